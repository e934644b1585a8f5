package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

const logPatience = 60 * time.Second

// logLab is a database with a publication and a slot that stands before everything the test does.
type logLab struct {
	*testlab.DB
	t      *testing.T
	source *postgres.Source
	slot   string
}

func newLogLab(t *testing.T, db *testlab.DB, tables string) *logLab {
	t.Helper()
	db.Exec(tables)
	db.Exec("create publication leat for all tables")
	lab := &logLab{DB: db, t: t, slot: db.Name}
	db.Exec("select pg_create_logical_replication_slot('" + lab.slot + "', 'pgoutput')")
	source, err := postgres.Connect(t.Context(), postgres.Settings{ConnString: db.URL})
	if err != nil {
		t.Fatal(err)
	}
	lab.source = source
	return lab
}

func (l *logLab) options() postgres.LogOptions {
	return postgres.LogOptions{Slot: l.slot, Publications: []string{"leat"}}
}

// open begins to follow the log; a session that is just leaving the slot is waited for.
func (l *logLab) open(o postgres.LogOptions) *postgres.Log {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), logPatience)
	defer cancel()
	for {
		log, err := l.source.Log(ctx, o)
		if fault.Is(err, fault.SlotBusy) {
			continue
		}
		if err != nil {
			l.t.Fatal(err)
		}
		l.t.Cleanup(log.Close)
		return log
	}
}

// now is the end of the log; all that is committed lies before it.
func (l *logLab) now() change.LSN {
	l.t.Helper()
	lsn, err := change.ParseLSN(l.One("select pg_current_wal_insert_lsn()"))
	if err != nil {
		l.t.Fatal(err)
	}
	return lsn
}

// follow hands the events to see, until all before to has come.
func follow(t *testing.T, log *postgres.Log, to change.LSN, see func(*postgres.Event)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), logPatience)
	defer cancel()
	for {
		e, err := log.Next(ctx)
		if err != nil {
			t.Fatalf("before %s: %v", to, err)
		}
		if see != nil {
			see(e)
		}
		if (e.Kind == postgres.EventIdle || e.Kind == postgres.EventCommit) && e.Position >= to {
			return
		}
	}
}

// replica is tables as the events tell them, by name and then by the text of their first column.
type replica struct {
	t        *testing.T
	tables   map[string]map[string][]string
	seq      uint64
	tx       postgres.Tx
	last     change.LSN
	messages []string
	again    *postgres.EventReader // decodes Raw again, as a spool does
}

func newReplica(t *testing.T) *replica {
	return &replica{t: t, tables: map[string]map[string][]string{}, again: postgres.NewEventReader()}
}

func (r *replica) table(rel *postgres.Relation) map[string][]string {
	name := rel.Schema + "." + rel.Name
	if r.tables[name] == nil {
		r.tables[name] = map[string][]string{}
	}
	return r.tables[name]
}

func values(t postgres.Tuple) []string {
	var row []string
	for i := range t.Len() {
		switch t.Kind(i) {
		case 'n':
			row = append(row, testlab.Null)
		case 'u':
			row = append(row, "<unchanged>")
		default:
			row = append(row, string(t.Bytes(i)))
		}
	}
	return row
}

// brief says what an event tells, so that two can be compared.
func brief(e *postgres.Event) string {
	s := fmt.Sprintf("%d %d %+v %v %v %q %s %+v", e.Kind, e.Seq, e.Tx, values(e.Old), values(e.New), e.OldKind, e.Position, e.Message)
	if e.Relation != nil {
		s += fmt.Sprintf(" %+v", *e.Relation)
	}
	for _, rel := range e.Truncated {
		s += " " + rel.Name
	}
	return s
}

func (r *replica) see(e *postgres.Event) {
	r.t.Helper()
	if e.Kind == postgres.EventIdle {
		return
	}
	first := brief(e)
	if second, err := r.again.Event(bytes.Clone(e.Raw)); err != nil || brief(second) != first {
		r.t.Fatalf("%s\nfrom a spool: %v, %v", first, second, err)
	}
	rows := uint64(1)
	switch e.Kind {
	case postgres.EventBegin:
		if e.Tx.LSN <= r.last {
			r.t.Fatalf("a transaction at %s after one at %s", e.Tx.LSN, r.last)
		}
		r.tx, r.last, r.seq = e.Tx, e.Tx.LSN, 0
	case postgres.EventCommit:
		if e.Position <= r.tx.LSN || e.Tx.End != e.Position || e.Tx.XID != r.tx.XID {
			r.t.Fatalf("commit %+v of %+v", e.Tx, r.tx)
		}
	case postgres.EventMessage:
		r.messages = append(r.messages, e.Message.Prefix+"="+string(e.Message.Content))
	case postgres.EventTruncate:
		for _, rel := range e.Truncated {
			clear(r.table(rel))
		}
		rows = uint64(len(e.Truncated))
	case postgres.EventInsert, postgres.EventUpdate, postgres.EventDelete:
		r.apply(e)
	}
	if e.Seq != 0 {
		if e.Seq != r.seq+1 || e.Tx.XID != r.tx.XID {
			r.t.Fatalf("row %d of %+v after row %d of %+v", e.Seq, e.Tx, r.seq, r.tx)
		}
		r.seq += rows
	}
}

func (r *replica) apply(e *postgres.Event) {
	table, before, after := r.table(e.Relation), values(e.Old), values(e.New)
	if e.Kind == postgres.EventDelete {
		if _, ok := table[before[0]]; !ok {
			r.t.Errorf("%s has no row %s to delete", e.Relation.Name, before[0])
		}
		delete(table, before[0])
		return
	}
	key := after[0]
	if e.OldKind != 0 {
		key = before[0]
	}
	known := table[key]
	if e.Kind == postgres.EventUpdate {
		if known == nil {
			r.t.Errorf("%s has no row %s to update", e.Relation.Name, key)
		}
		delete(table, key)
	}
	for i, v := range after {
		if v == "<unchanged>" && i < len(known) {
			after[i] = known[i]
		}
	}
	table[after[0]] = after
}

// equals compares with what the server has.
func (r *replica) equals(lab *logLab, tables ...string) {
	r.t.Helper()
	for _, name := range tables {
		want := map[string][]string{}
		for _, row := range lab.Query("select * from " + name) {
			want[row[0]] = row
		}
		if have := r.tables[name]; !maps.EqualFunc(have, want, slices.Equal) {
			r.t.Errorf("%s: the log tells %d rows, the table has %d, or they differ", name, len(have), len(want))
		}
	}
}

// run runs statements on a connection of the test's own.
func run(ctx context.Context, c *pgx.Conn, sql string) error {
	_, err := c.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

func everyMajor(t *testing.T, f func(t *testing.T, db *testlab.DB, major int)) {
	for _, major := range testlab.Majors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			f(t, testlab.Postgres(t, major), major)
		})
	}
}

const shopTables = `
	create table public.usual (id int primary key, v text, big text);
	alter table usual alter big set storage external;
	create table public.whole (id int, v text, big text);
	alter table whole alter big set storage external, replica identity full;
	create table public.byindex (id int not null, v text);
	create unique index byindex_id on byindex (id);
	alter table byindex replica identity using index byindex_id;
	create table public.silent (id int, v text);
	alter table silent replica identity nothing;
	create schema "Other"; create table "Other".usual (id int primary key, u int references public.usual, "Köln" text);`

func TestTheLogTellsEveryRowUnderEveryReplicaIdentity(t *testing.T) {
	t.Parallel()
	everyMajor(t, func(t *testing.T, db *testlab.DB, major int) {
		lab := newLogLab(t, db, shopTables)
		lab.Exec(`insert into usual select i, 'v' || i, repeat('x', 5000) from generate_series(1, 50) i`)
		lab.Exec(`insert into whole select i, null, repeat('y', 5000) from generate_series(1, 50) i`)
		lab.Exec(`insert into silent values (1, 'a'), (2, 'b'); insert into byindex values (1, 'a'), (2, 'b'), (3, null)`)
		lab.Exec(`insert into "Other".usual values (1, 1, 'ä'), (2, 2, null)`)
		lab.Exec(`begin; update usual set v = v || '+' where id <= 10; update usual set id = id + 1000 where id between 30 and 35; delete from usual where id between 40 and 45; commit`)
		lab.Exec(`update whole set v = 'new' where id <= 10; update whole set id = -id where id = 1; delete from whole where id = 20`)
		lab.Exec(`update byindex set v = 'c' where id = 3; update byindex set id = 5 where id = 2`)
		r := newReplica(t)
		log := lab.open(lab.options())
		follow(t, log, lab.now(), r.see)
		r.equals(lab, "public.usual", "public.whole", "public.silent", "public.byindex")
		if got := r.tables["Other.usual"]["1"]; !slices.Equal(got, []string{"1", "1", "ä"}) {
			t.Errorf("%q", got)
		}
		var truncated []string
		lab.Exec(`truncate usual restart identity cascade`)
		follow(t, log, lab.now(), func(e *postgres.Event) {
			r.see(e)
			for _, rel := range e.Truncated {
				truncated = append(truncated, rel.Schema+"."+rel.Name)
			}
		})
		slices.Sort(truncated)
		if fmt.Sprint(truncated) != "[Other.usual public.usual]" {
			t.Errorf("truncated %v", truncated)
		}
		r.equals(lab, "public.usual")
	})
}

func TestARelationHasANewVersionWhenItsDefinitionDiffers(t *testing.T) {
	t.Parallel()
	lab := newLogLab(t, testlab.Postgres(t), "create table t (id int primary key)")
	lab.Exec("insert into t values (1)")
	lab.Exec("analyze t; insert into t values (2)")
	lab.Exec("alter table t add v text; insert into t values (3, 'x')")
	var seen []string
	log := lab.open(lab.options())
	follow(t, log, lab.now(), func(e *postgres.Event) {
		if e.Kind == postgres.EventInsert {
			seen = append(seen, fmt.Sprintf("v%d with %d columns", e.Relation.Version, len(e.Relation.Columns)))
		}
	})
	if fmt.Sprint(seen) != "[v1 with 1 columns v1 with 1 columns v2 with 2 columns]" {
		t.Error(seen)
	}
}

// streamed makes the server send every transaction of more than 64 kB while it is in progress.
func (l *logLab) streamed(dir string, major int) postgres.LogOptions {
	if major >= 13 {
		l.Exec("alter database " + l.Name + " set logical_decoding_work_mem = '64kB'")
	}
	o := l.options()
	o.Streaming, o.SpillDir, o.Messages = true, dir, true
	return o
}

func TestStreamedTransactionsComeWholeAndRolledBackOnesLeaveNoTrace(t *testing.T) {
	t.Parallel()
	everyMajor(t, func(t *testing.T, db *testlab.DB, major int) {
		lab := newLogLab(t, db, shopTables+`create table n (id serial primary key, v text); create table late (id int primary key, v text);
			create table fresh (id serial primary key, v text)`)
		dir := t.TempDir()
		r := newReplica(t)
		log := lab.open(lab.streamed(dir, major))
		b, g := lab.Connect(), lab.Connect()
		do := func(c *pgx.Conn, sql string) {
			t.Helper()
			if err := run(t.Context(), c, sql); err != nil {
				t.Fatal(err)
			}
		}
		do(b, `begin; insert into usual select i, 'kept', 'b' from generate_series(1, 3000) i`)
		do(g, `begin; insert into usual select i, 'ghost', 'g' from generate_series(100001, 103000) i; alter table late add ghost int; insert into late select i, repeat('g', 100), 1 from generate_series(1, 2000) i`)
		lab.Exec(`insert into n (v) values ('small 1')`)
		// fresh is first seen in what is undone.
		do(b, `savepoint z; insert into fresh (v) select 'undone ' || i from generate_series(1, 3000) i; rollback to z; insert into fresh (v) values ('kept')`)
		do(b, `savepoint a; insert into n (v) select 'undone ' || i from generate_series(1, 3000) i; savepoint inner_a; update usual set v = 'undone'; rollback to a`)
		do(b, `savepoint c; update usual set v = 'c' where id % 2 = 0; release c; insert into n (v) select 'big ' || i from generate_series(1, 3000) i`)
		lab.Exec(`insert into n (v) values ('small 2')`)
		do(g, `rollback`)
		do(b, `savepoint d; alter table whole add extra int; insert into whole select i, 'd', 'd', 1 from generate_series(1, 3000) i; rollback to d; insert into whole select i, 'e', 'e' from generate_series(1, 3000) i; delete from usual where id > 2990; commit`)
		lab.Exec(`insert into late values (7, 'after'); insert into n (v) values ('small 3'); insert into fresh (v) values ('after'); update usual set v = 'last' where id = 1`)
		follow(t, log, lab.now(), r.see)
		r.equals(lab, "public.usual", "public.n", "public.whole", "public.late", "public.fresh")
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%d files stay in the folder", len(left))
		}
		if major >= 14 {
			lab.eventually("select stream_txns >= 2 from pg_stat_replication_slots where slot_name = '" + lab.slot + "'")
		}
	})
}

func TestALargeTransactionIsKeptInAFileAndComesOnce(t *testing.T) {
	t.Parallel()
	lab := newLogLab(t, testlab.Postgres(t, 17), `create table t (id int primary key, v text)`)
	dir := t.TempDir()
	stale := filepath.Join(dir, "slot-"+lab.slot+"-tx-1.spill")
	if err := os.WriteFile(stale, []byte("of a process that died"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := lab.open(lab.streamed(dir, 17))
	if _, err := os.Stat(stale); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a dead process left stays: %v", err)
	}
	lab.Exec(`begin; insert into t select i, repeat('x', 1000) from generate_series(1, 40000) i; savepoint s; delete from t; rollback to s; commit`)
	rows, files := 0, 0
	follow(t, log, lab.now(), func(e *postgres.Event) {
		switch e.Kind {
		case postgres.EventInsert:
			rows++
			if rows == 1 {
				left, _ := os.ReadDir(dir)
				files = len(left)
			}
		case postgres.EventDelete:
			t.Fatal("a deletion that was rolled back")
		}
	})
	if left, _ := os.ReadDir(dir); rows != 40000 || files != 1 || len(left) != 0 {
		t.Errorf("%d rows, %d files while they came, %d after", rows, files, len(left))
	}
}

func TestTheLogTellsLogicalMessages(t *testing.T) {
	t.Parallel()
	lab := newLogLab(t, testlab.Postgres(t, 14), `create table t (id int primary key)`)
	o := lab.options()
	o.Messages = true
	lab.Exec(`select pg_logical_emit_message(false, 'free', 'a')`)
	lab.Exec(`begin; insert into t values (1); select pg_logical_emit_message(true, 'within', 'b'); commit`)
	lab.Exec(`begin; select pg_logical_emit_message(true, 'undone', 'c'); rollback`)
	r := newReplica(t)
	follow(t, lab.open(o), lab.now(), r.see)
	if fmt.Sprint(r.messages) != "[free=a within=b]" {
		t.Error(r.messages)
	}
}

func TestAnIdleLogAdvancesOverWhatIsNotPublished(t *testing.T) {
	t.Parallel()
	everyMajor(t, func(t *testing.T, db *testlab.DB, major int) {
		lab := newLogLab(t, db, `create table t (id int primary key)`)
		lab.Exec(`drop publication leat; create publication leat for table t; create table unpublished (v text); insert into unpublished select repeat('x', 1000) from generate_series(1, 1000)`)
		log := lab.open(lab.options())
		to := lab.now()
		follow(t, log, to, func(e *postgres.Event) {
			if e.Kind == postgres.EventInsert {
				t.Error("a row of a table that is not published")
			}
			log.Ack(e.Position)
		})
		lab.confirmed(to)
	})
}

// confirmed waits until the slot has been told a position.
func (l *logLab) confirmed(to change.LSN) {
	l.t.Helper()
	l.eventually("select confirmed_flush_lsn >= '" + to.String() + "' from pg_replication_slots where slot_name = '" + l.slot + "'")
}

// eventually waits until a condition of the server is true.
func (l *logLab) eventually(condition string) {
	l.t.Helper()
	for deadline := time.Now().Add(logPatience); time.Now().Before(deadline); {
		if l.One("select coalesce(("+condition+"), false)") == "t" {
			return
		}
	}
	l.t.Fatalf("not true in time: %s", condition)
}

func TestTheLogGoesOnWhereItWasAcknowledged(t *testing.T) {
	t.Parallel()
	lab := newLogLab(t, testlab.Postgres(t), `create table t (id int primary key)`)
	ids := func(log *postgres.Log, to change.LSN) (got []string, position change.LSN) {
		follow(t, log, to, func(e *postgres.Event) {
			if e.Kind == postgres.EventInsert {
				got = append(got, string(e.New.Bytes(0)))
			}
			if e.Kind == postgres.EventCommit {
				position = e.Position
			}
		})
		return got, position
	}
	lab.Exec(`insert into t values (1)`)
	log := lab.open(lab.options())
	_, first := ids(log, lab.now())
	log.Ack(first)
	log.Close()
	lab.confirmed(first)
	lab.Exec(`insert into t values (2)`)
	o := lab.options()
	if got, _ := ids(lab.open(o), lab.now()); fmt.Sprint(got) != "[2]" {
		t.Errorf("the slot's own position gives %v", got)
	}
}

func TestNotAcknowledgedMeansDeliveredAgain(t *testing.T) {
	t.Parallel()
	lab := newLogLab(t, testlab.Postgres(t), `create table t (id int primary key)`)
	lab.Exec(`insert into t values (1)`)
	lab.Exec(`insert into t values (2)`)
	for range 2 {
		log := lab.open(lab.options())
		r := newReplica(t)
		follow(t, log, lab.now(), r.see)
		r.equals(lab, "public.t")
		log.Close()
	}
}

func TestAWaitThatIsCutShortLosesNothing(t *testing.T) {
	t.Parallel()
	lab := newLogLab(t, testlab.Postgres(t), `create table t (id int primary key, v text)`)
	log := lab.open(lab.options())
	r := newReplica(t)
	written := make(chan struct{})
	conn := lab.Connect()
	go func() {
		defer close(written)
		for i := range 200 {
			if err := run(t.Context(), conn, fmt.Sprintf("insert into t values (%d, repeat('x', 3000))", i)); err != nil {
				t.Error(err)
			}
		}
	}()
	var to change.LSN
	deadline := time.Now().Add(logPatience)
	for cut := 0; time.Now().Before(deadline); {
		select {
		case <-written:
			to, written = lab.now(), nil
		default:
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Microsecond)
		e, err := log.Next(ctx)
		cancel()
		if err != nil {
			if !fault.Is(err, fault.Interrupted) {
				t.Fatal(err)
			}
			cut++
			continue
		}
		r.see(e)
		if to != 0 && e.Position >= to {
			if cut == 0 {
				t.Error("no wait was cut short")
			}
			r.equals(lab, "public.t")
			return
		}
	}
	t.Fatal("the log does not come to its end")
}
