package postgres

import (
	"slices"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// Moment is when a row was written, as far as it is known.
type Moment struct {
	XID uint32 // of its transaction; 0 when nobody knows
	// Behind: known may be of a later moment, as the definition of a copy is for rows that waited for it. Then columns of the row may be
	// gone from it, and later ones be in it.
	Behind bool
}

// AlignAt gives each column of a relation of the log its attnum, which the log does not tell. known is the table as it
// was last followed (nil for a new one); now is the table in the catalog, read after the relation came (nil once it is
// dropped), which may be ahead of the log. The result has the relation's columns in their order.
//
// Attnums grow and are never used twice, and the log tells columns in their order. So what known and now both have was
// there all the time, whatever its name; of the columns that now has besides, those that the log knows already are the
// first. What is left open is decided by names and types. A column that came and went again before now gets a free
// attnum in its place. A column that was dropped and made again under the same name and type looks in the log as if
// nothing had happened: Remade tells.
//
// When a row was written tells nearly always what names and types leave open, because who alters a table keeps its writers out until he
// commits: a column that a later transaction has dropped was there.
func AlignAt(known, now *change.Table, rel *Relation, at Moment) (*change.Table, error) {
	if t := alignByTraces(known, now, rel, at); t != nil {
		describeAligned(t, known, now, rel)
		return t, nil
	}
	a := newAligner(known, now, rel.Columns)
	found := a.solve()
	t := newAligned(rel)
	last := int16(0)
	for j, rc := range rel.Columns {
		if i := found[j]; i >= 0 {
			last = a.candidates[i].attnum
			t.Columns = append(t.Columns, a.candidates[i].column(rc, known != nil))
			continue
		}
		last = a.free(max(last, a.newest))
		for _, i := range found[j+1:] {
			if i >= 0 && a.candidates[i].attnum <= last {
				return nil, fault.New(fault.SchemaUnfollowable, rel.Schema+"."+rel.Name, "the column %s of the log fits no column of the catalog", rc.Name)
			}
		}
		t.Columns = append(t.Columns, change.Column{Name: rc.Name, Attnum: last, TypeOID: rc.TypeOID, Typmod: rc.Typmod})
	}
	describeAligned(t, known, now, rel)
	return t, nil
}

func newAligned(rel *Relation) *change.Table {
	return &change.Table{OID: rel.OID, Schema: rel.Schema, Name: rel.Name, ReplicaIdentity: rel.Identity, Kind: change.KindTable, Rows: -1}
}

// alignByTraces takes what the catalog keeps of all columns that ever were. Those that were there when the transaction wrote are
// the ones that are there now and those that were dropped by a later one; of these the log has the first, because numbers are
// given in the order of time. It gives nil where that does not fit what is known otherwise: transactions get their numbers before
// they wait for a lock, so one with a lower number may have been the later one.
func alignByTraces(known, now *change.Table, rel *Relation, at Moment) *change.Table {
	if now == nil || at.XID == 0 {
		return nil
	}
	a := newAligner(known, now, nil)
	t := newAligned(rel)
	for _, trace := range now.Traces {
		var c candidate
		if i := slices.IndexFunc(a.candidates, func(c candidate) bool { return c.attnum == trace.Attnum }); i >= 0 {
			c = a.candidates[i]
		}
		later := trace.After(at.XID)
		switch {
		case trace.By == at.XID: // somewhere among the rows of this very transaction
			return nil
		case trace.Dropped && (!later || known == nil || c.known == nil && trace.Attnum < a.newest && !at.Behind):
			continue // gone by then, or never known: generated, or left out of the publication
		case !trace.Dropped && c.known == nil && (c.now.Generated != 0 || a.unpublished(c)):
			continue
		case len(t.Columns) == len(rel.Columns):
			if !later || c.known != nil && !at.Behind {
				return nil // the log should have it
			}
			continue
		}
		rc := rel.Columns[len(t.Columns)]
		if !trace.Dropped && !later && (c.now.Name != rc.Name || c.now.TypeOID != rc.TypeOID || c.now.Typmod != rc.Typmod) {
			return nil // nobody has changed it since, and yet it differs
		}
		c.attnum = trace.Attnum
		t.Columns = append(t.Columns, c.column(rc, known != nil))
	}
	if len(t.Columns) < len(rel.Columns) {
		return nil
	}
	return t
}

// candidate is an attnum that a column of the log may have.
type candidate struct {
	attnum     int16
	known, now *change.Column // nil where that table does not have it
	// absent and absentLast are what it costs that the log does not have it: while it has later ones, and while it has none.
	absent, absentLast int
}

// The costs that decide between ways to see the same columns. Only their order matters.
const (
	costImpossible = 1000 // a column between two neighbours that leave no number for it
	costPresent    = 100  // that the log lacks a column that was there all the time
	costUnlisted   = 8    // the same where a column list of the publication may be why
	costCameWent   = 15   // a column that came and went again
	costInGap      = 9    // the same where a number is missing that was given since known
	costOther      = 10   // another name, or another type
	costTypmod     = 2
	costDropped    = 1 // that a known column which now lacks was dropped before, not after
)

type aligner struct {
	rel        []RelationColumn
	candidates []candidate // in order of attnum
	newest     int16       // the largest attnum of known: what came later is larger
	followed   bool        // there is a known
}

func newAligner(known, now *change.Table, rel []RelationColumn) *aligner {
	a := &aligner{rel: rel, followed: known != nil}
	if known == nil {
		known = &change.Table{}
	}
	if now == nil {
		now = &change.Table{}
	}
	i, j := 0, 0
	for i < len(known.Columns) || j < len(now.Columns) {
		var c candidate
		if j == len(now.Columns) || i < len(known.Columns) && known.Columns[i].Attnum <= now.Columns[j].Attnum {
			c.attnum, c.known = known.Columns[i].Attnum, &known.Columns[i]
			i++
		}
		if j < len(now.Columns) && (c.known == nil || now.Columns[j].Attnum == c.attnum) {
			c.attnum, c.now = now.Columns[j].Attnum, &now.Columns[j]
			j++
		}
		a.candidates = append(a.candidates, c)
	}
	if n := len(known.Columns); n > 0 {
		a.newest = known.Columns[n-1].Attnum
	}
	unlisted := costPresent
	if !a.followed || slices.ContainsFunc(a.candidates, a.unpublished) {
		unlisted = costUnlisted
	}
	for i := range a.candidates {
		switch c := &a.candidates[i]; {
		case c.known != nil && c.now != nil:
			c.absent, c.absentLast = costPresent, costPresent
		case c.known != nil:
			c.absent, c.absentLast = costDropped, costDropped
		case c.now.Generated == 0 && c.attnum > a.newest:
			c.absent = unlisted
		}
	}
	return a
}

// unpublished says whether the column was there when known was followed, and yet was not known.
func (a *aligner) unpublished(c candidate) bool {
	return c.known == nil && c.attnum < a.newest && c.now.Generated == 0
}

// match is what it costs that the log's column is this one.
func (c *candidate) match(rc *RelationColumn) int {
	name, typ := costOther, costOther
	for _, col := range [...]*change.Column{c.known, c.now} {
		if col == nil {
			continue
		}
		if col.Name == rc.Name {
			name = 0
		}
		switch {
		case col.TypeOID != rc.TypeOID:
		case col.Typmod != rc.Typmod:
			typ = min(typ, costTypmod)
		default:
			typ = 0
		}
	}
	return name + typ
}

// cameWent is what it costs that a column of the log stands just before candidate i (or behind all) and is none of them.
func (a *aligner) cameWent(i int) int {
	if i == len(a.candidates) {
		return costCameWent
	}
	before := a.newest
	if i > 0 {
		before = max(before, a.candidates[i-1].attnum)
	}
	switch {
	case a.candidates[i].attnum <= before+1:
		return costImpossible
	case a.followed:
		return costInGap
	}
	return costCameWent
}

// free is the first number behind after that no candidate has.
func (a *aligner) free(after int16) int16 {
	for n := after + 1; ; n++ {
		if !slices.ContainsFunc(a.candidates, func(c candidate) bool { return c.attnum == n }) {
			return n
		}
	}
}

// solve gives each column of the log the index of its candidate, -1 for none, at the least cost in all.
func (a *aligner) solve() []int {
	found := make([]int, len(a.rel))
	start := 0 // nearly always all is as it was
	for start < len(a.rel) && start < len(a.candidates) {
		c := &a.candidates[start]
		if c.match(&a.rel[start]) != 0 || c.now == nil || c.known == nil && a.followed {
			break
		}
		found[start] = start
		start++
	}
	rel, candidates := a.rel[start:], a.candidates[start:]
	const (
		absent = iota
		match
		none
	)
	width := len(candidates) + 1
	cost := make([]int32, (len(rel)+1)*width) // of the columns from j on with the candidates from i on
	step := make([]byte, len(cost))
	for j := len(rel); j >= 0; j-- {
		for i := len(candidates); i >= 0; i-- {
			at := j*width + i
			best, how := int32(-1), byte(0)
			try := func(c int32, s byte) {
				if best < 0 || c < best {
					best, how = c, s
				}
			}
			if j < len(rel) && i < len(candidates) {
				try(cost[at+width+1]+int32(candidates[i].match(&rel[j])), match)
			}
			if i < len(candidates) && j < len(rel) {
				try(cost[at+1]+int32(candidates[i].absent), absent)
			} else if i < len(candidates) {
				try(cost[at+1]+int32(candidates[i].absentLast), absent)
			}
			if j < len(rel) {
				try(cost[at+width]+int32(a.cameWent(start+i)), none)
			}
			cost[at], step[at] = max(best, 0), how
		}
	}
	for j, i := 0, 0; j < len(rel); {
		switch step[j*width+i] {
		case match:
			found[start+j] = start + i
			i++
			j++
		case none:
			found[start+j] = -1
			j++
		default:
			i++
		}
	}
	return found
}

// column is the log's column with what the log does not tell. NOT NULL is believed where it held before and holds now.
func (c *candidate) column(rc RelationColumn, followed bool) change.Column {
	col := change.Column{Name: rc.Name, Attnum: c.attnum, TypeOID: rc.TypeOID, Typmod: rc.Typmod}
	for _, from := range [...]*change.Column{c.known, c.now} { // now has the last word
		if from == nil {
			continue
		}
		col.Generated = from.Generated
		if from.TypeOID == rc.TypeOID {
			col.Dims = from.Dims
			if from.Typmod == rc.Typmod {
				col.Type = from.Type
			}
		}
	}
	col.NotNull = c.now != nil && c.now.NotNull && (c.known != nil && c.known.NotNull || !followed)
	return col
}

// describeAligned adds what is true of the whole table. The log marks the columns of the replica identity, in no order.
func describeAligned(t, known, now *change.Table, rel *Relation) {
	has := func(key []int16) bool {
		return !slices.ContainsFunc(key, func(n int16) bool {
			return !slices.ContainsFunc(t.Columns, func(c change.Column) bool { return c.Attnum == n })
		})
	}
	for _, from := range [...]*change.Table{known, now} {
		if from == nil {
			continue
		}
		t.Kind = from.Kind
		if has(from.Key) {
			t.Key = from.Key
		}
		if has(from.IdentityIndex) {
			t.IdentityIndex = from.IdentityIndex
		}
	}
	if now != nil {
		t.Rows, t.Bytes, t.Pages, t.Filenode = now.Rows, now.Bytes, now.Pages, now.Filenode
	}
	var marked []int16
	for i, c := range rel.Columns {
		if c.Key {
			marked = append(marked, t.Columns[i].Attnum)
		}
	}
	pick := func(of func(*change.Table) []int16) []int16 {
		for _, from := range [...]*change.Table{now, known} {
			if from != nil && sameSet(of(from), marked) {
				return of(from)
			}
		}
		return marked
	}
	switch rel.Identity {
	case 'd':
		t.Key, t.IdentityIndex = pick(func(t *change.Table) []int16 { return t.Key }), nil
	case 'i':
		t.IdentityIndex = pick(func(t *change.Table) []int16 { return t.IdentityIndex })
	}
}

func sameSet(a, b []int16) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// Remade lists the columns of known that the catalog has again under the same name and type, but as new columns: they
// were dropped and made again, at a moment that the log does not show. Only a new copy tells what the rows hold now.
func Remade(known, now *change.Table) (columns []change.Column) {
	for _, c := range known.Columns {
		same := func(n change.Column) bool { return n.Attnum == c.Attnum }
		again := func(n change.Column) bool {
			return n.Attnum > c.Attnum && n.Name == c.Name && n.TypeOID == c.TypeOID && n.Typmod == c.Typmod
		}
		if !slices.ContainsFunc(now.Columns, same) && slices.ContainsFunc(now.Columns, again) &&
			!slices.ContainsFunc(known.Columns, func(k change.Column) bool { return k.Attnum > c.Attnum && k.Name == c.Name }) {
			columns = append(columns, c)
		}
	}
	return columns
}

// StepKind says what changed in a table's definition.
type StepKind int

// The kinds of step, in the order in which they can be followed.
const (
	StepDropped StepKind = iota
	StepRenamed
	StepRetyped
	StepNullability
	StepAdded
)

// SchemaStep is one change of a column.
type SchemaStep struct {
	Kind StepKind
	From change.Column // zero of StepAdded
	To   change.Column // zero of StepDropped
}

// Diff lists the steps from one definition of a table to another, by attnum.
func Diff(known, next *change.Table) []SchemaStep {
	var steps []SchemaStep
	find := func(t *change.Table, attnum int16) *change.Column {
		i := slices.IndexFunc(t.Columns, func(c change.Column) bool { return c.Attnum == attnum })
		if i < 0 {
			return nil
		}
		return &t.Columns[i]
	}
	for _, from := range known.Columns {
		to := find(next, from.Attnum)
		if to == nil {
			steps = append(steps, SchemaStep{Kind: StepDropped, From: from})
			continue
		}
		if from.Name != to.Name {
			steps = append(steps, SchemaStep{Kind: StepRenamed, From: from, To: *to})
		}
		if from.TypeOID != to.TypeOID || from.Typmod != to.Typmod || from.Dims != to.Dims {
			steps = append(steps, SchemaStep{Kind: StepRetyped, From: from, To: *to})
		}
		if from.NotNull != to.NotNull {
			steps = append(steps, SchemaStep{Kind: StepNullability, From: from, To: *to})
		}
	}
	for _, to := range next.Columns {
		if find(known, to.Attnum) == nil {
			steps = append(steps, SchemaStep{Kind: StepAdded, To: to})
		}
	}
	slices.SortStableFunc(steps, func(a, b SchemaStep) int { return int(a.Kind - b.Kind) })
	return steps
}

const (
	oidText    = 25
	oidBpchar  = 1042
	oidVarchar = 1043
	oidVarbit  = 1562
)

// widens says whether every value of the one type is the same value in the other. Longer character(n) does not: it pads.
func widens(from, to change.Column) bool {
	longer := to.Typmod < 0 || from.Typmod >= 0 && from.Typmod <= to.Typmod
	if from.Dims != to.Dims {
		return false
	}
	if from.TypeOID == to.TypeOID {
		switch from.TypeOID {
		case oidVarchar, oidVarbit, 1083, 1114, 1184, 1266: // times: of more decimals
			return longer
		case oidNumeric: // ((precision << 16) | scale) + 4
			return from.Typmod >= 4 && to.Typmod >= 4 && (from.Typmod-4)&0x7ff == (to.Typmod-4)&0x7ff && longer
		}
		return false
	}
	switch [2]uint32{from.TypeOID, to.TypeOID} {
	case [2]uint32{21, 23}, [2]uint32{21, 20}, [2]uint32{23, 20}, [2]uint32{oidVarchar, oidText}:
		return true
	case [2]uint32{oidText, oidVarchar}:
		return to.Typmod < 0
	}
	return false
}
