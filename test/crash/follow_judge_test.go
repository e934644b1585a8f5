package crash_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unique"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leatdata/leat/internal/change"
)

// followed is a table that the judge compares.
type followed struct {
	name string   // schema.table, also in the lake
	key  []string // nil: the whole row
}

// moment is what every table held at an exact position.
type moment struct {
	at   change.LSN
	rows map[string]content2
}

// content2 is the rows of a table as text, by the names of their columns.
type content2 struct {
	columns []string
	rows    [][]*string
	names   *definition // what the names mean; nil for those of now
}

// snapshotAt reads every table in the snapshot of a new slot's consistent point: transactions whose commit record begins
// before it are in, others are not.
func snapshotAt(t testing.TB, s *shop) moment {
	t.Helper()
	ctx := t.Context()
	c, err := pgconn.Connect(ctx, s.db.URL+"&replication=database")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.WithoutCancel(ctx))
	slot := fmt.Sprintf("moment_%s_%d", s.db.Name[max(0, len(s.db.Name)-30):], len(s.moments))
	made, err := c.Exec(ctx, "CREATE_REPLICATION_SLOT "+slot+" TEMPORARY LOGICAL test_decoding EXPORT_SNAPSHOT").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	at, snapshot := string(made[0].Rows[0][1]), string(made[0].Rows[0][2])
	m := moment{at: lsnOf(t, at), rows: map[string]content2{}}
	conn := s.db.Connect()
	defer conn.Close(context.WithoutCancel(ctx)) // or a TRUNCATE would wait for it
	reader := conn.PgConn()
	begin := "set timezone = 'UTC'; begin isolation level repeatable read; set transaction snapshot '" + snapshot + "'"
	if _, err := reader.Exec(ctx, begin).ReadAll(); err != nil {
		t.Fatal(err)
	}
	for _, f := range s.tables {
		rows := contentNow(t, reader, f.name)
		// TRUNCATE and ALTER TABLE are not MVCC-safe: what came between the snapshot and our lock shows in the rows.
		var still bool
		var columns []byte
		told := conn.QueryRow(ctx, `select relfilenode = pg_relation_filenode(c.oid), (select jsonb_object_agg(attname, attnum) from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped)
			from pg_class c where c.oid = $1::text::regclass`, quotedTable(f.name))
		if err := told.Scan(&still, &columns); err != nil {
			t.Fatal(err)
		}
		rows.names = &definition{}
		if err := json.Unmarshal(columns, &rows.names.columns); err != nil {
			t.Fatal(err)
		}
		last := 0
		for _, name := range rows.columns { // in the order of attnum, which two that change their names leave
			still, last = still && rows.names.columns[name] > last, rows.names.columns[name]
		}
		if still && len(rows.columns) == len(rows.names.columns) {
			m.rows[f.name] = rows
		}
	}
	return m
}

// contentNow reads a table as PostgreSQL writes values in text.
func contentNow(t testing.TB, c *pgconn.PgConn, table string) (all content2) {
	t.Helper()
	about, err := c.Prepare(t.Context(), "", "select * from "+quotedTable(table), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range about.Fields {
		all.columns = append(all.columns, f.Name)
	}
	result := c.ExecPrepared(t.Context(), "", nil, nil, nil).Read()
	if result.Err != nil {
		t.Fatal(result.Err)
	}
	for _, values := range result.Rows {
		row := make([]*string, len(values))
		for i, v := range values {
			if v != nil {
				row[i] = kept(string(v))
			}
		}
		all.rows = append(all.rows, row)
	}
	return all
}

// kept is a value of which equal ones share their bytes: bodies of documents come again in each moment and in each event.
func kept(text string) *string {
	text = unique.Make(text).Value()
	return &text
}

func quotedTable(name string) string { return `"` + strings.ReplaceAll(name, ".", `"."`) + `"` }

// event is a row of a history.
type event struct {
	op        string
	lsn       change.LSN
	seq, xid  int64
	unchanged []string
	row       tuple
	place     [2]int // of its transaction in the truth, and of its operation in that
}

// events reads a history in its order.
func events(t testing.TB, name string, l lakeTable) []event {
	t.Helper()
	op, lsn, seq, xid, unchanged := l.column("_leat_op"), l.column("_leat_lsn"), l.column("_leat_seq"), l.column("_leat_txid"), l.column("_leat_unchanged")
	if min(op, lsn, seq, xid, unchanged) < 0 {
		t.Errorf("the history of %s has the columns %q", name, l.Columns)
		return nil
	}
	all := make([]event, len(l.Rows))
	for i, r := range l.Rows {
		e := event{op: *r[op], lsn: change.LSN(integer(r[lsn])), seq: integer(r[seq]), xid: integer(r[xid]), row: tuple{}, place: [2]int{-1, -1}}
		if r[unchanged] != nil {
			_ = json.Unmarshal([]byte(*r[unchanged]), &e.unchanged)
		}
		for k, column := range l.Columns {
			if !strings.HasPrefix(column, "_leat_") {
				e.row[column] = r[k]
			}
		}
		all[i] = e
	}
	slices.SortStableFunc(all, func(a, b event) int { return cmp.Or(cmp.Compare(a.lsn, b.lsn), cmp.Compare(a.seq, b.seq)) })
	return all
}

func integer(s *string) int64 {
	if s == nil {
		return -1
	}
	n, _ := strconv.ParseInt(*s, 10, 64) // a bigint as Python writes it
	return n
}

// verdictOf is what the judge knows while it looks at a lake.
type followJudge struct {
	t     testing.TB
	shop  *shop
	txs   []truthTx
	gaps  bool            // a lost slot leaves a hole in histories
	anew  map[string]bool // tables of which leat said that it copies them anew
	again bool            // the test has asked for new copies
	found []event
}

// judging: a history of an hour is large, and one judge has it in memory at a time.
var judging sync.Mutex

// judgeLake fails the test where the lake is not what the source says. Nobody writes any more, and the run has caught up.
func judgeLake(t testing.TB, s *shop, f *follower, gaps bool) {
	t.Helper()
	s.truth.hear(t)
	judging.Lock()
	defer judging.Unlock()
	j := &followJudge{t: t, shop: s, txs: s.truth.txs, gaps: gaps, anew: f.copiedAnew(), again: f.asked}
	t.Logf("judging %d transactions, %d alterations, %d moments; copied anew: %v", len(j.txs), s.truth.alterations, len(s.moments), slices.Sorted(maps.Keys(j.anew)))
	now := s.db.Connect()
	if _, err := now.Exec(t.Context(), "set timezone = 'UTC'"); err != nil {
		t.Fatal(err)
	}
	for _, table := range s.tables {
		lake := theStranger(t).read(t, f.to, f.properties, []string{table.name, table.name + "_history"})
		current, history := lake[table.name], lake[table.name+"_history"]
		if current.Missing || history.Missing {
			t.Errorf("%s is not in the lake: current %v, history %v", table.name, !current.Missing, !history.Missing)
			continue
		}
		j.table(table, current, history, contentNow(t, now.PgConn(), table.name))
	}
	j.order()
}

func (j *followJudge) table(f followed, current, history lakeTable, source content2) {
	j.t.Helper()
	same(j.t, "current of "+f.name, source, content2{columns: current.Columns, rows: current.Rows})
	for _, name := range current.Columns {
		if !slices.Contains(source.columns, name) && !strings.Contains(name, "__v") { // kept under another name by policy
			j.t.Errorf("current of %s has the column %s, which the source does not have", f.name, name)
		}
	}
	all := events(j.t, f.name, history)
	holes := j.againstTruth(f, all)
	fills := j.shop.truth.fills(f.name)
	for _, e := range all {
		fill(e.row, fills)
	}
	last := j.rebuild(f, all, 1<<63-1)
	same(j.t, "the history of "+f.name+", rebuilt to its end,", source, last)
	for _, m := range j.shop.moments {
		_, known := m.rows[f.name]
		if !known || slices.ContainsFunc(holes, func(h hole) bool { return h.from <= m.at && m.at < h.to }) {
			continue
		}
		same(j.t, fmt.Sprintf("the history of %s, rebuilt to %s,", f.name, m.at), j.renamed(f, m.rows[f.name]), j.rebuild(f, all, m.at))
	}
	for _, e := range all {
		e.row, e.unchanged = nil, nil
		j.found = append(j.found, e)
	}
}

// renamed gives columns the names they have now, without those that are gone.
func (j *followJudge) renamed(f followed, c content2) (now content2) {
	var places []int
	for i, name := range c.columns {
		if name = j.shop.truth.nameNow(f.name, c.names, name); name != "" {
			places, now.columns = append(places, i), append(now.columns, name)
		}
	}
	for _, row := range c.rows {
		now.rows = append(now.rows, picked(row, places))
	}
	return now
}

func picked(row []*string, places []int) []*string {
	out := make([]*string, len(places))
	for i, p := range places {
		out[i] = row[p]
	}
	return out
}

// same compares rows as a multiset, by the columns that the source has.
func same(t testing.TB, what string, want, got content2) {
	t.Helper()
	var places []int
	for _, name := range want.columns {
		i := slices.Index(got.columns, name)
		if i < 0 && len(got.rows) > 0 {
			t.Errorf("%s lacks the column %s: it has %q", what, name, got.columns)
			return
		}
		places = append(places, i)
	}
	count := map[string]int{}
	for _, row := range want.rows {
		count[line(row)]++
	}
	for _, row := range got.rows {
		count[line(picked(row, places))]--
	}
	var lacks, extra []string
	for _, text := range slices.Sorted(maps.Keys(count)) {
		if n := count[text]; n > 0 {
			lacks = append(lacks, shortened(text))
		} else if n < 0 {
			extra = append(extra, shortened(text))
		}
	}
	if len(lacks)+len(extra) > 0 {
		t.Errorf("%s differs from the source (%d rows there, %d here): it lacks %d, as %q, and has %d too many, as %q",
			what, len(want.rows), len(got.rows), len(lacks), lacks[:min(4, len(lacks))], len(extra), extra[:min(4, len(extra))])
	}
}

func line(row []*string) string {
	var b strings.Builder
	for _, v := range row {
		if v == nil {
			b.WriteString("\x00|")
			continue
		}
		b.WriteString(*v + "|")
	}
	return b.String()
}

func shortened(s string) string {
	if len(s) > 160 {
		return s[:160] + "…"
	}
	return s
}

// expected is a row that the history must have.
type expected struct {
	truthOp
	xid   uint32
	moved bool // it is the row that says the old key is gone
	place [2]int
}

// expects lists the history's rows of a table for transactions that ended behind from.
func (j *followJudge) expects(f followed, from change.LSN) (all []expected) {
	for i, tx := range j.txs {
		if tx.end <= from {
			continue
		}
		for k, op := range tx.ops {
			if op.table != f.name {
				continue
			}
			e := expected{op, tx.xid, false, [2]int{i, k}}
			if op.op == 'u' && keyMoves(f, op) {
				gone := e
				gone.op, gone.new, gone.moved = 'd', nil, true
				all = append(all, gone)
			}
			all = append(all, e)
		}
	}
	return all
}

func keyMoves(f followed, op truthOp) bool {
	if op.old == nil {
		return false
	}
	columns := f.key
	if columns == nil {
		columns = slices.Collect(maps.Keys(op.new))
	}
	for _, c := range columns {
		if op.new[c] != unchangedToast && !equal(op.old[c], op.new[c]) {
			return true
		}
	}
	return false
}

func equal(a, b *string) bool { return a == b || a != nil && b != nil && *a == *b }

// againstTruth compares a history with what was committed, row by row in order. A history is one copy and what came
// after it, and, where the table was copied again, that behind a 't' of no transaction.
func (j *followJudge) againstTruth(f followed, all []event) (holes []hole) {
	j.t.Helper()
	stamp := beginning(all)
	from := 0
	for i, e := range all {
		if e.op != "t" || e.xid != 0 {
			continue
		}
		h, ok := j.part(f, all[from:i], stamp, e.lsn)
		if !ok {
			return holes
		}
		holes = append(holes, h)
		from, stamp = i+1, e.lsn
	}
	h, _ := j.part(f, all[from:], stamp, 0)
	return append(holes, h)
}

// beginning is the position of a history's first copy; a table that was empty then must be told from its first row on.
func beginning(all []event) change.LSN {
	stamp := change.LSN(1<<64 - 1)
	for _, e := range all {
		if e.op == "t" && e.xid == 0 {
			break
		}
		if e.op == "r" {
			stamp = min(stamp, e.lsn)
		}
	}
	if len(all) > 0 && stamp == 1<<64-1 {
		return all[0].lsn
	}
	return stamp
}

// hole is what a history does not tell: from a transaction on, up to where the table was copied anew.
type hole struct{ from, to change.LSN }

// part compares what came after a copy with the log; until is where the next copy begins, 0 for the last part, which must
// hold everything.
func (j *followJudge) part(f followed, part []event, stamp, until change.LSN) (none hole, ok bool) {
	j.t.Helper()
	want := j.expects(f, stamp)
	at := 0
	for i := range part {
		e := &part[i]
		if e.op == "r" {
			continue
		}
		if at == len(want) {
			j.t.Errorf("the history of %s (copied at %s) has more than the log: %s", f.name, stamp, tell(*e))
			return none, false
		}
		if why := j.differ(f, want[at], *e); why != "" {
			j.t.Errorf("the history of %s (copied at %s), event %d of %d: %s: there is %s, but the log says %s", f.name, stamp, at, len(want), why, tell(*e), j.say(want[at]))
			return none, false
		}
		e.place = want[at].place
		at++
	}
	if at == len(want) {
		return none, true
	}
	next := j.txs[want[at].place[0]]
	switch {
	case until > 0 && next.end > until:
		return none, true
	case j.gaps || until > 0 && (f.key == nil || j.anew[f.name] || j.again):
		return hole{next.end, until}, true
	}
	j.t.Errorf("the history of %s (copied at %s, and again at %s) ends after %d of %d events; the next is %s", f.name, stamp, until, at, len(want), j.say(want[at]))
	return none, false
}

func tell(e event) string {
	return fmt.Sprintf("%s lsn %s seq %d xid %d %s", e.op, e.lsn, e.seq, e.xid, rowText(e.row))
}

func (j *followJudge) say(e expected) string {
	return fmt.Sprintf("%c xid %d (ends at %s) old %s new %s", e.op, e.xid, j.txs[e.place[0]].end, rowText(e.old), rowText(e.new))
}

func rowText(row tuple) string {
	var b strings.Builder
	for _, c := range slices.Sorted(maps.Keys(row)) {
		text := "null"
		if v := row[c]; v == unchangedToast {
			text = "(unchanged)"
		} else if v != nil {
			text = strconv.Quote((*v)[:min(len(*v), 24)])
		}
		fmt.Fprintf(&b, "%s=%s ", c, text)
	}
	return b.String()
}

// historyOp are the letters of a history.
var historyOp = map[byte]string{'i': "c", 'u': "u", 'd': "d", 't': "t"}

// differ says how a row of the history is not the one that the log tells.
func (j *followJudge) differ(f followed, want expected, got event) string {
	tx := j.txs[want.place[0]]
	if got.op != historyOp[want.op] || got.xid != int64(want.xid) {
		return "another change"
	}
	if got.lsn >= tx.end || want.place[0] > 0 && got.lsn < j.txs[want.place[0]-1].end {
		return "its LSN is not of its transaction"
	}
	values, only := want.new, []string(nil)
	if want.op == 'd' {
		values, only = want.old, f.key
	}
	for column, v := range values {
		name := j.shop.truth.nameNow(f.name, want.names, column)
		if name == "" || v == unchangedToast || only != nil && !slices.Contains(only, column) {
			continue
		}
		have, there := got.row[name]
		if !there {
			return "no column " + name
		}
		if !equal(v, have) {
			return "another value of " + column
		}
	}
	return ""
}

// order makes sure that (lsn, seq) is the order of the log over all tables, and that no two rows claim one place.
func (j *followJudge) order() {
	j.t.Helper()
	all := slices.DeleteFunc(j.found, func(e event) bool { return e.place[0] < 0 })
	slices.SortStableFunc(all, func(a, b event) int { return cmp.Or(cmp.Compare(a.lsn, b.lsn), cmp.Compare(a.seq, b.seq)) })
	for i := 1; i < len(all); i++ {
		if c := slices.Compare(all[i-1].place[:], all[i].place[:]); c > 0 {
			j.t.Errorf("the histories put %s behind %s, the log before it", tell(all[i]), tell(all[i-1]))
			return
		}
	}
}

// rebuild is what FORMAT.md tells readers to do: the last row of each key before a position, behind the last truncate.
func (j *followJudge) rebuild(f followed, all []event, to change.LSN) content2 {
	state := map[string][]tuple{}
	var gone tuple // the row that a key's move has just ended
	for _, e := range all {
		if e.lsn > to || e.lsn == to && e.op != "r" {
			break
		}
		id := keyText(f, e.row)
		old := gone
		gone = nil
		switch {
		case e.op == "t":
			clear(state)
		case e.op == "d":
			if have := state[id]; len(have) > 0 {
				if e.seq%2 != 0 { // the log's own numbers are doubled
					gone = have[0]
				}
				state[id] = have[1:]
			}
		case f.key == nil && e.op == "u" && old == nil: // the row has not changed
		default:
			if have := state[id]; old == nil && len(have) > 0 && f.key != nil {
				old = have[0]
			}
			row := e.row
			if len(e.unchanged) > 0 {
				row = maps.Clone(row)
			}
			for _, c := range e.unchanged {
				row[c] = old[c]
			}
			if f.key == nil {
				id = keyText(f, row)
				state[id] = append(state[id], row)
			} else {
				state[id] = []tuple{row}
			}
		}
	}
	return flattened(state)
}

// fill gives a row what columns that came later have in it.
func fill(row tuple, fills map[string]*string) {
	for name, v := range fills {
		if row[name] == nil {
			row[name] = v
		}
	}
}

func flattened(state map[string][]tuple) (c content2) {
	for _, rows := range state {
		for _, row := range rows {
			if c.columns == nil {
				c.columns = slices.Sorted(maps.Keys(row))
			}
			values := make([]*string, len(c.columns))
			for i, name := range c.columns {
				values[i] = row[name]
			}
			c.rows = append(c.rows, values)
		}
	}
	return c
}

func keyText(f followed, row tuple) string {
	columns := f.key
	if columns == nil {
		columns = slices.Sorted(maps.Keys(row))
	}
	values := make([]*string, len(columns))
	for i, c := range columns {
		values[i] = row[c]
	}
	return line(values)
}
