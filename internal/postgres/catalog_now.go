package postgres

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// Catalog knows tables and types as they are now, which may be later than what the log tells. It reads what it is asked for, and of types
// those alone that the tables in question use: a database may have thousands of others. It may be used by many at once.
type Catalog struct {
	source *Source
	mu     sync.Mutex // guards what follows
	carry  carriers
	asked  map[uint32]bool // types that were looked for; those that carry.types lacks are gone
}

// Catalog reads nothing yet.
func (s *Source) Catalog() *Catalog {
	return &Catalog{
		source: s, asked: map[uint32]bool{},
		carry: carriers{version: s.Version, ascii: s.ascii(), asTextIfGone: true, types: typeTable{}},
	}
}

// read runs f in one moment of the database.
func (c *Catalog) read(ctx context.Context, f func(*pgconn.PgConn) error) error {
	return c.readWith(ctx, "", f)
}

// byIndex has prepared statements keep one plan for any parameters, which goes by indexes: a look at one table must not cost more where the
// database has many. Left to itself the planner expects so many types that it reads the whole of pg_type and pg_proc.
const byIndex = "; set local plan_cache_mode = force_generic_plan; set local enable_seqscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off"

// readOne is read for what is asked of one table after another, when each changes first: its queries are prepared, because to plan them
// takes ten times longer than to run them.
func (c *Catalog) readOne(ctx context.Context, f func(*pgconn.PgConn) error) error {
	return c.readWith(ctx, byIndex, func(conn *pgconn.PgConn) error {
		conn.CustomData()[keepsPlans] = true
		defer delete(conn.CustomData(), keepsPlans)
		return f(conn)
	})
}

// readWith is read with settings of its own.
func (c *Catalog) readWith(ctx context.Context, settings string, f func(*pgconn.PgConn) error) error {
	return c.once(ctx, func(conn *pgconn.PgConn) error {
		if err := exec(ctx, conn, "begin transaction isolation level repeatable read, read only"+settings); err != nil {
			return err
		}
		return f(conn)
	})
}

// once runs f, whose statements see a moment each.
func (c *Catalog) once(ctx context.Context, f func(*pgconn.PgConn) error) error {
	conn, err := c.source.session(ctx)
	if err != nil {
		return err
	}
	defer leave(conn)
	if err = f(conn); fault.Of(err) != nil {
		return err
	}
	return classify(ctx, err, c.source.Name, "cannot read the catalog")
}

// Tables describes the relations that the selection chooses, in the order of schema and name.
func (c *Catalog) Tables(ctx context.Context, sel Selection) (tables []*change.Table, err error) {
	err = c.read(ctx, func(conn *pgconn.PgConn) error {
		rels, err := c.source.relations(ctx, conn, sel)
		if err == nil {
			tables, err = c.describe(ctx, conn, rels)
		}
		return err
	})
	return tables, err
}

// Table describes one table. One that does not exist any more is a SourceMissing fault.
func (c *Catalog) Table(ctx context.Context, oid uint32) (table *change.Table, err error) {
	err = c.readOne(ctx, func(conn *pgconn.PgConn) error {
		tables, err := c.describe(ctx, conn, []relation{{oid: oid}})
		if err == nil && len(tables) == 0 {
			return fault.New(fault.SourceMissing, c.source.Name, "there is no table of OID %d any more", oid)
		}
		if err == nil {
			table = tables[0]
		}
		return err
	})
	return table, err
}

// describe reads tables and the types of their columns in one moment.
func (c *Catalog) describe(ctx context.Context, conn *pgconn.PgConn, rels []relation) ([]*change.Table, error) {
	tables, err := describeTables(ctx, conn, rels, false)
	if err != nil {
		return nil, err
	}
	return tables, c.learn(ctx, conn, typesOf(tables...))
}

// learn reads types as they are at the moment of the connection.
func (c *Catalog) learn(ctx context.Context, conn *pgconn.PgConn, oids map[uint32]bool) error {
	types, err := readTypes(ctx, conn, oids)
	if err != nil {
		return err
	}
	var money int32
	if types[oidMoney].oid != 0 {
		if money, err = moneyDigits(ctx, conn); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.Copy(c.carry.types, types)
	maps.Copy(c.asked, oids)
	if money != 0 {
		c.carry.money = money
	}
	return nil
}

// know reads the types of columns that are not known yet: the log may hold values of types that no table uses any more.
func (c *Catalog) know(ctx context.Context, columns ...change.Column) error {
	unknown := map[uint32]bool{}
	c.mu.Lock()
	for _, col := range columns {
		if _, known := c.carry.types[col.TypeOID]; !known && !c.asked[col.TypeOID] {
			unknown[col.TypeOID] = true
		}
	}
	c.mu.Unlock()
	if len(unknown) == 0 {
		return nil
	}
	return c.readOne(ctx, func(conn *pgconn.PgConn) error { return c.learn(ctx, conn, unknown) })
}

// Plan decides how the table's columns are carried, as Snapshot.Plan does. Columns whose type is gone from the catalog
// are carried as the text that the log has.
func (c *Catalog) Plan(ctx context.Context, t *change.Table, policies Policies) (*Plan, error) {
	if err := c.know(ctx, t.Columns...); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	named := *t
	named.Columns = slices.Clone(t.Columns)
	for i := range named.Columns {
		if col := &named.Columns[i]; col.Type == "" {
			col.Type = c.carry.types[col.TypeOID].named(col.Typmod)
		}
	}
	return c.carry.plan(&named, policies)
}

// named is format_type's name of the type, as far as its modifier can be written without asking the server.
func (t typeInfo) named(typmod int32) string {
	switch {
	case t.oid == 0:
		return "unknown"
	case typmod < 4:
		return t.name
	case t.oid == oidNumeric:
		return t.name + "(" + strconv.Itoa(int(typmod-4)>>16&0xffff) + "," + strconv.Itoa(int(((typmod-4)&0x7ff^1024)-1024)) + ")"
	case t.oid == oidVarchar, t.oid == oidBpchar:
		return t.name + "(" + strconv.Itoa(int(typmod)-4) + ")"
	}
	return t.name
}

// DefaultKind says what the rows have that were there before a column was added.
type DefaultKind int

// The kinds of default.
const (
	DefaultNull    DefaultKind = iota // NULL
	DefaultMissing                    // all the same value, which the catalog keeps
	DefaultDiffers                    // values of their own, or nobody knows: the table must be copied anew
)

// Default is what the rows have that were there before a column was added.
type Default struct {
	Kind DefaultKind
	Text string // of DefaultMissing: the value as the type's output function writes it, for Plan.Value
	// Sure: the catalog tells. Otherwise it is right for rows that were not changed since, and the log brings what the others have.
	Sure bool
}

// addedSQL looks at the table, or for a partitioned one at its leaves, whose columns have numbers of their own. A default
// that is not volatile and left no missing value was either set after the column was added, or the table was rewritten
// since; its file's number tells a table that never was.
const addedSQL = `
select a.atthasmissing, coalesce(a.attmissingval::text, ''),
       (a.attidentity <> '' or a.attgenerated <> '' or t.typdefault is not null
        or a.atthasdef and (f.relfilenode <> f.oid or d.adbin::text like '%NEXTVALUE%'
          or exists (select from pg_catalog.regexp_matches(d.adbin::text, ':(?:op)?funcid (\d+)', 'g') m
                     join pg_catalog.pg_proc p on p.oid = m[1]::oid where p.provolatile = 'v')))
from pg_catalog.pg_class c
join pg_catalog.pg_attribute named on named.attrelid = c.oid and named.attnum = $2::int2 and not named.attisdropped
join lateral (select c.oid where c.relkind <> 'p' union all select k.relid from pg_catalog.pg_partition_tree(c.oid) k where k.isleaf and c.relkind = 'p') leaf(oid) on true
join pg_catalog.pg_class f on f.oid = leaf.oid and f.relkind <> 'p'
join pg_catalog.pg_attribute a on a.attrelid = f.oid and a.attname = named.attname and not a.attisdropped
join pg_catalog.pg_type t on t.oid = a.atttypid
left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where c.oid = $1::oid`

// AddedDefault says what existing rows have in a column that was added. A column that is gone again has DefaultNull.
//
// Where the catalog does not tell, the rows may: when all have the value of a constant default, that is what they were given, and when all
// have none, the default came later.
func (s *Source) AddedDefault(ctx context.Context, table uint32, attnum int16) (found Default, err error) {
	c := &Catalog{source: s}
	at := []string{strconv.FormatUint(uint64(table), 10), strconv.Itoa(int(attnum))}
	err = c.read(ctx, func(conn *pgconn.PgConn) error {
		rows, err := query(ctx, conn, addedSQL, at...)
		if err != nil {
			return err
		}
		if found = defaultOf(rows); found.Kind == DefaultDiffers {
			found, err = onlyValue(ctx, conn, at)
		}
		return err
	})
	return found, err
}

// constant is a default of which any evaluation gives the same: a number, a word or a text, and its type.
var constant = regexp.MustCompile(`^(-?\d+(\.\d+)?|true|false|'([^']|'')*')(::[a-z ]+(\(\d+(,\d+)?\))?(\[\])?)?$`)

// onlyValue looks for a row that has another value than a constant default, and stops at the first.
func onlyValue(ctx context.Context, conn *pgconn.PgConn, at []string) (Default, error) {
	names, err := query(ctx, conn, `select pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.quote_ident(a.attname), pg_catalog.format_type(a.atttypid, a.atttypmod),
  case when a.attidentity = '' and a.attgenerated = '' then pg_catalog.pg_get_expr(d.adbin, d.adrelid) end
from pg_catalog.pg_attribute a join pg_catalog.pg_class c on c.oid = a.attrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where c.oid = $1::oid and a.attnum = $2::int2 and not a.attisdropped`, at...)
	if err != nil || len(names) == 0 {
		return Default{}, err
	}
	table, column, kind, value := string(names[0][0]), string(names[0][1]), string(names[0][2]), string(names[0][3])
	if !constant.MatchString(value) {
		return Default{Kind: DefaultDiffers}, nil
	}
	rows, err := query(ctx, conn, `select pg_catalog.format('%s', one.v), exists (select from `+table+` t
  where t.`+column+` is null or pg_catalog.format('%s', t.`+column+`) <> pg_catalog.format('%s', one.v)),
  exists (select from `+table+` t where t.`+column+` is not null)
from (select (`+value+`)::`+kind+`) one(v)`)
	switch state := sqlState(err); {
	case state == "42703" || state == "42P01": // renamed or dropped in between
		return Default{Kind: DefaultDiffers}, nil
	case err != nil:
		return Default{}, err
	case string(rows[0][2]) != "t":
		return Default{}, nil
	case string(rows[0][1]) == "t":
		return Default{Kind: DefaultDiffers}, nil
	}
	return Default{Kind: DefaultMissing, Text: string(rows[0][0])}, nil
}

// defaultOf reads the answers to addedSQL, one a table or leaf.
func defaultOf(rows [][][]byte) (found Default) {
	for i, r := range rows {
		next := Default{Sure: true}
		switch {
		case string(r[0]) == "t":
			next.Kind, next.Text = DefaultMissing, onlyElement(r[1])
		case string(r[2]) == "t":
			next.Kind = DefaultDiffers
		}
		if i > 0 && next != found { // partitions disagree
			return Default{Kind: DefaultDiffers}
		}
		found = next
	}
	return found
}

// onlyElement takes the one element out of the text of an array. It stands for itself, whatever its type.
func onlyElement(array []byte) string {
	if len(array) < 2 {
		return ""
	}
	inner := array[1 : len(array)-1]
	if len(inner) > 0 && inner[0] == '"' {
		value, _, _ := new(column).quoted(inner[1:])
		return string(value)
	}
	return string(inner)
}

// Value makes an array of one row from a value's text, as a column of the plan carries it.
func (p *Plan) Value(column int, text string) (arrow.Array, error) {
	c := newColumn(p.carry[column])
	if err := c.appendText([]byte(text)); err != nil {
		if f := fault.Of(err); f != nil && f.Where == "" {
			f.Where = p.Table.String() + "." + p.Table.Columns[column].Name
		}
		return nil, err
	}
	return c.array(), nil
}
