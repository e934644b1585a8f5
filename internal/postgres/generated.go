package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// The log does not have generated columns, unless the publication gives stored ones (18+). Their expressions are immutable and know
// nothing but the row's own columns. So the server computes from the row that the log tells what it had in them, whatever has become
// of the row since.

// Generated is a generated column of a table, and how the server computes it apart from the table.
type Generated struct {
	Column change.Column
	Inputs []int16 // attnums, in order
	// Version names the expression, by the version of its catalog row, and the functions that it calls, by what they do.
	Version string
	// Why it cannot be computed from the row that the log tells; "" if it can. Hint says what helps.
	Why, Hint string

	sql      string
	tableoid bool
}

// Expressions are the generated columns of one table.
type Expressions struct {
	List []Generated

	table  uint32
	inputs map[int16]exprInput
}

// exprInput is a column that expressions use.
type exprInput struct {
	name  string
	typ   string // format_type's
	array uint32 // the type of an array of its values; 0 where they are handed over as text and cast
	elem  uint32
	delim byte
	// collation is quoted; "" for a type that has none.
	collation string
}

// mostGenerated is how many generated columns of a table can be computed: the rows say by a bit for each which they have.
const mostGenerated = 64

// The tree of an expression names columns by number and functions by OID; text that stands in it cannot look like either.
var generatedSQL = `
select a.attnum, pg_catalog.pg_get_expr(d.adbin, d.adrelid),
       coalesce((select pg_catalog.string_agg(distinct m[1], ' ') from pg_catalog.regexp_matches(d.adbin::text, ':varattno (-?\d+)', 'g') m), ''),
       pg_catalog.concat(d.oid, '/', d.xmin, (select pg_catalog.string_agg('+' || pg_catalog.md5((pg_catalog.to_jsonb(p) - 'proacl' - 'proowner')::text), '' order by p.oid)
         from pg_catalog.pg_proc p where p.oid >= 16384 and p.oid in (
           select m[1]::oid from pg_catalog.regexp_matches(d.adbin::text, ':(?:op)?funcid (\d+)', 'g') m))),
       c.relkind = 'p' and exists (
         select from ` + below("c.oid") + ` k join pg_catalog.pg_attribute l on l.attrelid = k.relid and l.attname = a.attname and not l.attisdropped
         left join pg_catalog.pg_attrdef e on e.adrelid = l.attrelid and e.adnum = l.attnum
         where k.relid <> c.oid and pg_catalog.pg_get_expr(e.adbin, e.adrelid) is distinct from pg_catalog.pg_get_expr(d.adbin, d.adrelid)),
       c.relkind, c.oid,
       a.attgenerated = 's' and exists (
         select from pg_catalog.pg_proc p where p.oid >= 16384 and p.oid in (
           select m[1]::oid from pg_catalog.regexp_matches(d.adbin::text, ':(?:op)?funcid (\d+)', 'g') m)
         and pg_catalog.age(p.xmin) < (
           select max(pg_catalog.age(e.xmin)) from ` + below("c.oid") + ` k join pg_catalog.pg_attribute l on l.attrelid = k.relid and l.attname = a.attname and not l.attisdropped
           join pg_catalog.pg_attrdef e on e.adrelid = l.attrelid and e.adnum = l.attnum))
from pg_catalog.pg_attribute a join pg_catalog.pg_class c on c.oid = a.attrelid
join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where a.attrelid = any($1::oid[]) and a.attnum > 0 and not a.attisdropped and a.attgenerated <> '' order by c.oid, a.attnum`

const exprInputsSQL = `
select a.attnum, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypid,
       case when t.typreceive <> 0 then t.typarray else 0 end, t.typdelim, n.nspname, o.collname
from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid
left join pg_catalog.pg_collation o on o.oid = a.attcollation left join pg_catalog.pg_namespace n on n.oid = o.collnamespace
where a.attrelid = $1::oid and a.attnum > 0 and not a.attisdropped`

// Generated reads how the generated columns of a table are computed, and tries whether this role can.
func (c *Catalog) Generated(ctx context.Context, t *change.Table) (x *Expressions, err error) {
	err = c.read(ctx, func(conn *pgconn.PgConn) error {
		x = &Expressions{table: t.OID, inputs: map[int16]exprInput{}}
		rows, err := query(ctx, conn, generatedSQL, oidArray(map[uint32]bool{t.OID: true}))
		if err != nil || len(rows) == 0 {
			return err
		}
		if err := c.exprInputs(ctx, conn, x); err != nil {
			return err
		}
		for _, r := range rows {
			at := slices.IndexFunc(t.Columns, func(col change.Column) bool { return col.Attnum == int16(number(r[0])) })
			if at < 0 {
				continue // made since the table was read
			}
			g := Generated{Column: t.Columns[at], sql: "(" + string(r[1]) + ")::" + t.Columns[at].Type, Version: string(r[3])}
			g.judge(attnums(r[2]), string(r[4]) == "t", string(r[5]) == "p", len(x.List))
			if g.Why == "" {
				if err := c.try(ctx, conn, x, &g); err != nil {
					return err
				}
			}
			if g.Why == "" && string(r[7]) == "t" {
				if err := c.prove(ctx, conn, t, &g); err != nil {
					return err
				}
			}
			x.List = append(x.List, g)
		}
		return nil
	})
	return x, err
}

// judge takes the columns that the expression uses, and decides whether a row of the log says enough.
func (g *Generated) judge(uses []int16, leavesDiffer, partitioned bool, before int) {
	for _, attnum := range uses {
		switch {
		case attnum > 0:
			g.Inputs = append(g.Inputs, attnum)
		case attnum == 0:
			g.Why = "its expression uses the whole row"
		default: // of the system columns no other is allowed
			g.tableoid = true
		}
	}
	slices.Sort(g.Inputs)
	switch {
	case leavesDiffer:
		g.Why, g.Hint = "partitions compute it by other expressions, and the log does not tell of which partition a row is", "run.partitions: leaves follows each partition as a table of its own."
	case g.tableoid && partitioned:
		g.Why, g.Hint = "its expression uses tableoid, and the log does not tell of which partition a row is", "run.partitions: leaves follows each partition as a table of its own."
	case before >= mostGenerated:
		g.Why = fmt.Sprintf("the table has more than %d generated columns", mostGenerated)
	}
}

// exprInputs reads the columns that expressions may use. An array has no array of its own, and a list of rows would fall apart into
// their fields: both are handed over as text.
func (c *Catalog) exprInputs(ctx context.Context, conn *pgconn.PgConn, x *Expressions) error {
	rows, err := query(ctx, conn, exprInputsSQL, fmt.Sprint(x.table))
	if err != nil {
		return err
	}
	types := map[uint32]bool{}
	for _, r := range rows {
		types[oid(r[3])] = true
	}
	if err := c.learn(ctx, conn, types); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range rows {
		in := exprInput{name: string(r[1]), typ: string(r[2]), elem: oid(r[3]), array: oid(r[4]), delim: r[5][0]}
		below := c.carry.types[in.elem]
		for below.kind == 'd' {
			below = c.carry.types[below.base]
		}
		if below.kind == 'c' || below.element != 0 || below.oid == 0 {
			in.array = 0
		}
		if r[7] != nil {
			in.collation = quoteIdent(string(r[6])) + "." + quoteIdent(string(r[7]))
		}
		x.inputs[int16(number(r[0]))] = in
	}
	return nil
}

// try computes the column for no row: that shows what the role may not call, and what cannot be said apart from the table.
func (c *Catalog) try(ctx context.Context, conn *pgconn.PgConn, x *Expressions, g *Generated) error {
	if err := exec(ctx, conn, "savepoint try"); err != nil {
		return err
	}
	q := x.query(g.Inputs, []string{g.sql}, g.tableoid)
	params := make([]rowValues, len(g.Inputs))
	_, err := q.run(ctx, conn, params, 0, 0)
	if err == nil {
		return exec(ctx, conn, "release try")
	}
	if !refused(err) {
		return err
	}
	g.Why = "the server cannot compute it for this role: " + errors.Unwrap(err).Error()
	if sqlState(err) == "42501" {
		g.Hint = "Grant EXECUTE on the function that it calls, and USAGE on its schema; then start again."
	}
	return exec(ctx, conn, "rollback to try")
}

// mostProof is how long the rows of a table may be compared with what is computed now.
const mostProof = "20s"

// prove looks whether the rows have what is computed now. A function that was changed after the column was made leaves what is stored as it
// is, and an UPDATE of other columns keeps it. What was found out of a version of the expression is not asked again.
func (c *Catalog) prove(ctx context.Context, conn *pgconn.PgConn, t *change.Table, g *Generated) error {
	key := fmt.Sprintf("%d/%d/%s", t.OID, g.Column.Attnum, g.Version)
	same, known := c.source.proven.Load(key)
	if !known {
		err := exec(ctx, conn, "savepoint prove; set local statement_timeout = '"+mostProof+"'")
		if err != nil {
			return err
		}
		rows, err := query(ctx, conn, fmt.Sprintf("select exists (select from %s where %s::pg_catalog.text is distinct from (%s)::pg_catalog.text)",
			quoteTable(t.Schema, t.Name), quoteIdent(g.Column.Name), g.sql))
		if err != nil && (sqlState(err) == "" || sqlState(err) != "57014" && fault.Codes[codeOf(err)].Retry || ctx.Err() != nil) {
			return err
		}
		same = err == nil && string(rows[0][0]) == "f"
		if err := exec(ctx, conn, "rollback to prove"); err != nil {
			return err
		}
		c.source.proven.Store(key, same)
	}
	if !same.(bool) {
		g.Why = "it calls a function that was changed after the column was made, and rows may have kept what that gave before"
		g.Hint = "ALTER TABLE … ALTER COLUMN … SET EXPRESSION (17 and newer), or dropping and adding the column, computes all rows again; then start again."
	}
	return nil
}

// exprQuery computes expressions for rows whose inputs are given, column by column.
type exprQuery struct {
	sql    string
	inputs []exprInput
	types  []uint32
}

// query is that of the expressions. Inputs come under their names, in their types and collations, so that an expression means what it
// means in the table.
func (x *Expressions) query(inputs []int16, exprs []string, tableoid bool) exprQuery {
	var q exprQuery
	var columns, from, names []string
	for i, attnum := range inputs {
		in := x.inputs[attnum]
		q.inputs = append(q.inputs, in)
		array := in.array
		if array == 0 {
			array = oidTextArray
		}
		q.types = append(q.types, array)
		value := fmt.Sprintf("u.c%d::%s", i+1, in.typ)
		if in.collation != "" {
			value = "(" + value + ") collate " + in.collation
		}
		columns = append(columns, value+" as "+quoteIdent(in.name))
		from = append(from, fmt.Sprintf("pg_catalog.unnest($%d)", i+1))
		names = append(names, fmt.Sprintf("c%d", i+1))
	}
	if len(inputs) == 0 {
		q.types, from, names = []uint32{23}, []string{"pg_catalog.generate_series(1, $1)"}, []string{"c0"}
		columns = append(columns, "u.c0")
	}
	if tableoid {
		columns = append(columns, "'"+strconv.FormatUint(uint64(x.table), 10)+"'::pg_catalog.oid as tableoid")
	}
	q.sql = "select " + strings.Join(exprs, ", ") + " from (select " + strings.Join(columns, ", ") +
		" from rows from (" + strings.Join(from, ", ") + ") as u(" + strings.Join(names, ", ") + ")) as t"
	return q
}

const (
	oidTextArray = 1009
	oidBytea     = 17
)

// Uncomputable says that the server refused to compute generated columns of rows that the log told.
type Uncomputable struct{ err error }

func (u *Uncomputable) Error() string {
	return "the server cannot compute generated columns: " + u.err.Error()
}
func (u *Uncomputable) Unwrap() error { return u.err }

// refused says whether the server's answer is about the expression or the values, and not about this moment.
func refused(err error) bool {
	var u *Uncomputable
	return errors.As(err, &u)
}
