package postgres

import (
	"cmp"
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// Policy says what happens to a value that a typed column cannot carry exactly.
type Policy string

// The policies.
const (
	Fail  Policy = "fail"  // an error that names table, column and value
	Null  Policy = "null"  // the value becomes NULL, and is counted
	Text  Policy = "text"  // the whole column is carried as PostgreSQL's own text, exactly
	Clamp Policy = "clamp" // the nearest value the column has (NaN, which has none, becomes NULL), and is counted
	Aside Policy = "aside" // the value becomes NULL, and its exact text stands in change.SpecialName of the same row
)

// Policies holds one Policy a class of types; "" is Fail.
type Policies struct {
	Numeric     Policy // NaN, and numbers that do not fit the decimal
	Date        Policy // ±infinity
	Time        Policy // 24:00:00
	Timestamp   Policy // ±infinity, and years past 294246
	Timestamptz Policy // the same
	Array       Policy // more or fewer dimensions than declared, or a lower bound other than 1 (no clamp)
	Text        Policy // bytes of a SQL_ASCII database that are not UTF-8 (no clamp, no text)
	UUID        Policy // Text for the canonical text; nothing can go wrong with either
	// UnboundedNumeric is how numeric without precision is carried: "" or "text" as
	// PostgreSQL's text, or "decimal(p,s)", where Numeric rules what does not fit.
	UnboundedNumeric string
}

// op says how one value's bytes become one Arrow value. A closed set, so that decoding is a switch.
type op uint8

const (
	opBool op = iota
	opInt16
	opInt32
	opInt64
	opOID
	opFloat32
	opFloat64
	opDecimal
	opMoney
	opBytes // text and bytea: the wire's bytes are the value
	opJSONB // a version byte, then text
	opUUID
	opDate
	opTime
	opTimestamp
	opList
)

// carrier says how one column travels: what the server is asked for, what arrives, what
// Arrow type it becomes.
type carrier struct {
	op        op
	arrow     arrow.DataType
	expr      string // with %s for the quoted column; "" is the column itself
	logical   string
	policy    Policy
	class     string // the policy's name in leat.yaml, for messages
	precision int32  // decimals
	scale     int32
	elem      *carrier // lists
	dims      int
	delim     byte     // lists: what stands between elements in the array's text
	wire      wireForm // text-carried types: what the log's binary form is
	undecoded Policy   // what becomes of text that is not UTF-8; "" where the server sees to it that there is none
}

// carriers decides how types are carried, by what the server says of them.
type carriers struct {
	types   typeTable
	money   int32 // decimals of money
	version int
	ascii   bool // text may be any bytes: the server's encoding is SQL_ASCII
	// asTextIfGone carries a type that is not in the catalog any more as the text that the log holds.
	asTextIfGone bool
}

func (sn *Snapshot) carriers() carriers {
	return carriers{types: sn.types, money: sn.money, version: sn.source.Version, ascii: sn.source.ascii()}
}

// PlannedColumn tells the manifest how a column is carried.
type PlannedColumn struct {
	Column change.Column
	Field  arrow.Field
	Class  string // the policy class, "" where nothing can go wrong
	Policy Policy
	AsText bool // carried as PostgreSQL's own text
}

// Plan says how a table's columns are carried in typed formats.
type Plan struct {
	Table   *change.Table
	Schema  *arrow.Schema
	Columns []PlannedColumn
	// RowFilter is the condition of the rows that Reader.Batches reads, in SQL; "" is all rows.
	RowFilter string

	carry []carrier
	query string // SELECT list
	// rescue keeps the text of what cannot be understood, as that of a special value.
	rescue bool
}

// GoesAside says whether values of the i-th column may go aside.
func (p *Plan) GoesAside(i int) bool { return p.carry[i].goesAside() }

// Plan decides how each column of the table is carried.
func (sn *Snapshot) Plan(t *change.Table, policies Policies) (*Plan, error) {
	return sn.carriers().plan(t, policies)
}

func (cs carriers) plan(t *change.Table, policies Policies) (*Plan, error) {
	p := &Plan{Table: t, rescue: policies.Text == Aside}
	fields := make([]arrow.Field, len(t.Columns))
	exprs := make([]string, len(t.Columns))
	for i, col := range t.Columns {
		c, err := cs.carrierOf(col.TypeOID, col.Typmod, col.Dims, policies)
		if err != nil {
			return nil, fault.Wrap(err, fault.TypeUncarriable, t.String()+"."+col.Name, "type %s", col.Type)
		}
		if cs.ascii {
			c.checkText(cmp.Or(policies.Text, Fail))
		}
		meta := map[string]string{change.TypeKey: col.Type}
		if c.logical != "" {
			meta[change.LogicalKey] = c.logical
		}
		lossy := c.policy == Null || c.policy == Clamp || c.undecoded == Null
		fields[i] = arrow.Field{Name: col.Name, Type: c.arrow, Nullable: !col.NotNull || lossy, Metadata: arrow.MetadataFrom(meta)}
		exprs[i] = c.asked(quoteIdent(col.Name))
		p.carry = append(p.carry, c)
		p.Columns = append(p.Columns, PlannedColumn{Column: col, Field: fields[i], Class: c.class, Policy: c.policy, AsText: c.expr != "" && c.op != opList})
	}
	p.Schema = arrow.NewSchema(fields, nil)
	p.query = strings.Join(exprs, ",")
	return p, nil
}

// asked is what the server is asked for to get a value.
func (c *carrier) asked(value string) string {
	if c.expr == "" {
		return value
	}
	return fmt.Sprintf(c.expr, value)
}

// fixed lists the built-in types that have an exact Arrow twin and no value outside it.
var fixed = map[uint32]carrier{
	16:   {op: opBool, arrow: arrow.FixedWidthTypes.Boolean},
	17:   {op: opBytes, arrow: arrow.BinaryTypes.Binary},
	19:   {op: opBytes, arrow: arrow.BinaryTypes.String}, // name
	20:   {op: opInt64, arrow: arrow.PrimitiveTypes.Int64},
	21:   {op: opInt16, arrow: arrow.PrimitiveTypes.Int16},
	23:   {op: opInt32, arrow: arrow.PrimitiveTypes.Int32},
	25:   {op: opBytes, arrow: arrow.BinaryTypes.String},
	26:   {op: opOID, arrow: arrow.PrimitiveTypes.Int64},
	114:  {op: opBytes, arrow: arrow.BinaryTypes.String, logical: change.LogicalJSON},
	700:  {op: opFloat32, arrow: arrow.PrimitiveTypes.Float32},
	701:  {op: opFloat64, arrow: arrow.PrimitiveTypes.Float64},
	1042: {op: opBytes, arrow: arrow.BinaryTypes.String}, // bpchar, its padding kept
	1043: {op: opBytes, arrow: arrow.BinaryTypes.String},
	2950: {op: opUUID, arrow: &arrow.FixedSizeBinaryType{ByteWidth: 16}, logical: change.LogicalUUID},
	3802: {op: opJSONB, arrow: arrow.BinaryTypes.String, logical: change.LogicalJSON},
}

// bounded builds the carriers of types that have values an Arrow type lacks.
var bounded = map[uint32]func(p Policies) carrier{
	1082: func(p Policies) carrier {
		return carrier{op: opDate, arrow: arrow.FixedWidthTypes.Date32, policy: p.Date, class: "date"}
	},
	oidTime: func(p Policies) carrier {
		return carrier{op: opTime, arrow: arrow.FixedWidthTypes.Time64us, policy: p.Time, class: "time"}
	},
	1114: func(p Policies) carrier {
		return carrier{op: opTimestamp, arrow: &arrow.TimestampType{Unit: arrow.Microsecond}, policy: p.Timestamp, class: "timestamp"}
	},
	1184: func(p Policies) carrier {
		return carrier{op: opTimestamp, arrow: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, policy: p.Timestamptz, class: "timestamptz"}
	},
}

const (
	oidNumeric    = 1700
	oidMoney      = 790
	oidUUID       = 2950
	oidTime       = 1083
	oidChar       = 18 // "char"
	maxDecimal128 = 38 // digits
)

// charText writes a "char" above 127 as servers from 15 on do, \303. Older ones send the byte alone, which is no text
// in UTF-8. CSV keeps that byte, because it is what COPY gives.
const charText = `case when pg_catalog.get_byte(pg_catalog.charsend(%[1]s), 0) < 128 or %[1]s is null then %[1]s::pg_catalog.text
 else pg_catalog.concat(E'\\', pg_catalog.get_byte(pg_catalog.charsend(%[1]s), 0) / 64, pg_catalog.get_byte(pg_catalog.charsend(%[1]s), 0) / 8 %% 8,
 pg_catalog.get_byte(pg_catalog.charsend(%[1]s), 0) %% 8) end`

// asText asks the server for its own text form: exact by construction, for every type there is.
func asText() carrier {
	return carrier{op: opBytes, arrow: arrow.BinaryTypes.String, expr: "%s::pg_catalog.text"}
}

func (cs carriers) carrierOf(typeOID uint32, typmod int32, dims int, p Policies) (carrier, error) {
	t, ok := cs.types[typeOID]
	if !ok && cs.asTextIfGone {
		return asText(), nil
	}
	if !ok {
		return carrier{}, fmt.Errorf("type %d is not in the catalog", typeOID)
	}
	if t.kind == 'd' {
		return cs.carrierOf(t.base, pickTypmod(typmod, t.typmod), max(dims, t.dims), p)
	}
	switch {
	case t.kind == 'e':
		return carrier{op: opBytes, arrow: arrow.BinaryTypes.String, logical: change.LogicalEnum}, nil
	case t.geo:
		return carrier{op: opBytes, arrow: arrow.BinaryTypes.Binary}, nil
	case t.element != 0:
		return cs.listOf(t, typmod, max(dims, 1), p)
	case typeOID == oidNumeric:
		return numericCarrier(typmod, p)
	case typeOID == oidMoney:
		return carrier{op: opMoney, arrow: &arrow.Decimal128Type{Precision: 19, Scale: cs.money}, precision: 19, scale: cs.money}, nil
	case typeOID == oidUUID && p.UUID == Text:
		text := asText()
		text.wire = wireUUID
		return text, nil
	}
	if c, ok := fixed[typeOID]; ok {
		return c, nil
	}
	if typeOID == oidChar && cs.version < 150000 {
		return carrier{op: opBytes, arrow: arrow.BinaryTypes.String, expr: charText, wire: wireChar}, nil
	}
	if build, ok := bounded[typeOID]; ok {
		c := build(p)
		if c.policy == "" {
			c.policy = Fail
		}
		if c.policy == Text {
			text := asText()
			text.policy, text.class = Text, c.class
			if typeOID == oidTime {
				text.wire = wireTime
			}
			return text, nil
		}
		return c, nil
	}
	return t.asText(), nil
}

// asText asks for the type's text as its output function writes it, as CSV, JSON and the log have it. Some types have a
// cast of their own that writes another: inet's adds /32, xml's keeps a declaration that says nothing.
func (t typeInfo) asText() carrier {
	c := asText()
	if t.output != "" {
		c.expr = "pg_catalog.textin(" + strings.ReplaceAll(t.output, "%", "%%") + "(%s))"
	}
	c.wire = wireForms[t.oid]
	if t.sendsText {
		c.wire = wireText
	}
	return c
}

// A domain's own typmod rules; a column of a domain type has none.
func pickTypmod(column, domain int32) int32 {
	if domain >= 0 {
		return domain
	}
	return column
}

// numericCarrier reads numeric's typmod: ((precision << 16) | scale) + 4, the scale 11 bits signed since 15.
func numericCarrier(typmod int32, p Policies) (carrier, error) {
	c := carrier{op: opDecimal, policy: p.Numeric, class: "numeric"}
	if c.policy == "" {
		c.policy = Fail
	}
	if typmod < 4 {
		precision, scale, decimal, err := ParseDecimal(p.UnboundedNumeric)
		if err != nil {
			return c, err
		}
		if !decimal {
			text := asText()
			text.policy, text.class, text.wire = Text, "unbounded_numeric", wireNumeric
			return text, nil
		}
		c.precision, c.scale = precision, scale
	} else {
		c.precision = (typmod - 4) >> 16 & 0xffff
		c.scale = ((typmod-4)&0x7ff ^ 1024) - 1024
		if c.scale < 0 { // numeric(5,-2) holds up to seven digits before the point
			c.precision, c.scale = c.precision-c.scale, 0
		}
		c.precision = max(c.precision, c.scale, 1)
	}
	if c.policy == Text || c.precision > maxDecimal128 {
		text := asText()
		text.policy, text.class, text.wire = Text, "numeric", wireNumeric
		return text, nil
	}
	c.arrow = &arrow.Decimal128Type{Precision: c.precision, Scale: c.scale}
	return c, nil
}

// ParseDecimal reads "decimal(p,s)"; "" and "text" are no decimal.
func ParseDecimal(s string) (precision, scale int32, decimal bool, err error) {
	if s == "" || s == string(Text) {
		return 0, 0, false, nil
	}
	inner, ok := strings.CutPrefix(strings.ReplaceAll(s, " ", ""), "decimal(")
	inner, ok2 := strings.CutSuffix(inner, ")")
	ps, ss, ok3 := strings.Cut(inner, ",")
	pn, err1 := strconv.Atoi(ps)
	sc, err2 := strconv.Atoi(ss)
	if !ok || !ok2 || !ok3 || err1 != nil || err2 != nil || pn < 1 || pn > maxDecimal128 || sc < 0 || sc > pn {
		return 0, 0, false, fault.New(fault.ConfigInvalid, "dump.types.unbounded_numeric", "%q is neither text nor decimal(p,s) with p up to 38 and s up to p", s)
	}
	return int32(pn), int32(sc), true, nil
}

// listOf carries an array as nested Arrow lists, one level a declared dimension. Elements that have no exact
// Arrow twin are lists of text; the policy text makes the whole array one text.
func (cs carriers) listOf(t typeInfo, typmod int32, dims int, p Policies) (carrier, error) {
	policy := p.Array
	if policy == "" || policy == Clamp {
		policy = Fail
	}
	if policy == Text {
		text := asText()
		text.policy, text.class = Text, "array"
		return text, nil
	}
	elem, err := cs.carrierOf(t.element, typmod, 0, p)
	if err != nil {
		return carrier{}, err
	}
	c := carrier{op: opList, policy: policy, class: "array", dims: dims, elem: &elem, delim: cs.types[t.element].delim}
	switch {
	case elem.expr == "":
	case elem.op == opList: // an array of a domain over an array of what goes as text: one text an element
		elem = asText()
		c.expr = "%s::pg_catalog.text[]"
	case cs.types[t.element].output != "": // the array's own text is written by that function, too
		c.expr = "%s::pg_catalog.text::pg_catalog.text[]"
	default:
		c.expr = "%s::pg_catalog.text[]"
	}
	elem.expr = ""
	c.arrow = elem.arrow
	item := arrow.Field{Name: "item", Nullable: true, Metadata: logicalMetadata(elem.logical)}
	for range dims {
		item.Type = c.arrow
		c.arrow = arrow.ListOfField(item)
		item.Metadata = arrow.Metadata{}
	}
	return c, nil
}

// logicalMetadata marks the elements of a list as a field of their type would be.
func logicalMetadata(logical string) arrow.Metadata {
	if logical == "" {
		return arrow.Metadata{}
	}
	return arrow.MetadataFrom(map[string]string{change.LogicalKey: logical})
}

// maxDecimals[p] is 10^p - 1, the largest decimal of p digits.
var maxDecimals = func() (m [maxDecimal128 + 1]*big.Int) {
	for p := range m {
		m[p] = new(big.Int).Sub(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(p)), nil), big.NewInt(1))
	}
	return m
}()
