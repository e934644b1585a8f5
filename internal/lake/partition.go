package lake

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// partitionField is one expression of Spec.Partition.
type partitionField struct {
	name      string // as Iceberg's writers call it: created_at_day
	column    string
	transform iceberg.Transform
	typ       iceberg.Type // of the column
}

var partitionForm = regexp.MustCompile(`^(\w+)\s*\(\s*(?:(\d+)\s*,\s*)?(.+?)\s*\)$`)

const partitionMend = `Write a column, or year, month, day, hour(column), bucket(16, column) or truncate(4, column).`

// partitionFields reads expressions such as day(created_at), bucket(16, id) or region against the columns of files. A wrong one
// is fault.ConfigInvalid.
func partitionFields(of string, expressions []string, schema *arrow.Schema) ([]partitionField, error) {
	var out []partitionField
	for _, text := range expressions {
		refuse := func(why string) error {
			return fault.New(fault.ConfigInvalid, "lake.partition_by", "%s: cannot partition by %q: %s", of, text, why).WithMend(partitionMend)
		}
		f, ok := partitionExpression(strings.TrimSpace(text))
		if !ok {
			return nil, refuse("it is no expression")
		}
		at := schema.FieldIndices(f.column)
		if len(at) != 1 {
			return nil, refuse("the table has no column " + strconv.Quote(f.column))
		}
		var err error
		if f.typ, err = icebergType(schema.Field(at[0]), func() int { return 1 }); err != nil {
			return nil, err
		}
		if !f.transform.CanTransform(f.typ) {
			return nil, refuse("a column of type " + f.typ.String() + " cannot be used so")
		}
		taken := func() bool {
			return f.name != f.column && schema.HasField(f.name) || slices.ContainsFunc(out, func(o partitionField) bool { return o.name == f.name })
		}
		for _, other := range out {
			if other.column == f.column && other.transform.Equals(f.transform) {
				return nil, refuse("it is there twice")
			}
		}
		for odd := f.column != avroName(f.column); odd && taken(); {
			f.name += "_"
		}
		if taken() {
			return nil, refuse("the table has a column or partition of its name, " + f.name)
		}
		out = append(out, f)
	}
	return out, nil
}

// partitionExpression reads one expression. Names follow Iceberg's reference implementation, and are such that Avro, in which manifests
// have them, takes them.
func partitionExpression(text string) (partitionField, bool) {
	m := partitionForm.FindStringSubmatch(text)
	if m == nil {
		column := unquoteName(text)
		return partitionField{name: avroName(column), column: column, transform: iceberg.IdentityTransform{}}, column != ""
	}
	f := partitionField{column: unquoteName(m[3])}
	number, _ := strconv.ParseInt(m[2], 10, 32)
	word := strings.ToLower(m[1])
	if (word == "bucket" || word == "truncate") != (number > 0) {
		return f, false
	}
	suffix := word
	switch word {
	case "identity":
		f.transform, f.name = iceberg.IdentityTransform{}, avroName(f.column)
		return f, true
	case "bucket":
		f.transform = iceberg.BucketTransform{NumBuckets: int(number)}
	case "truncate":
		f.transform, suffix = iceberg.TruncateTransform{Width: int(number)}, "trunc"
	case "year":
		f.transform = iceberg.YearTransform{}
	case "month":
		f.transform = iceberg.MonthTransform{}
	case "day":
		f.transform = iceberg.DayTransform{}
	case "hour":
		f.transform = iceberg.HourTransform{}
	default:
		return f, false
	}
	f.name = avroName(f.column) + "_" + suffix
	return f, true
}

// unquoteName takes a column's name with or without the quotes of SQL.
func unquoteName(text string) string {
	if len(text) > 1 && text[0] == '"' && text[len(text)-1] == '"' {
		return strings.ReplaceAll(text[1:len(text)-1], `""`, `"`)
	}
	return text
}

// partitionKey is what tells a partition from others, and its values in the order of its fields, nil for null.
type partitionKey struct {
	key    string
	values []any
}

// portion is the part of a record that lies in one partition; rows is nil when that is the whole record.
type portion struct {
	partitionKey
	rows []uint32
}

// partitioner tells the partitions of a record's rows. One without fields has a single partition.
type partitioner struct {
	fields  []partitionField
	columns []int // of the fields, in the records; -1 for one that is null in all rows
	ids     []int // of Iceberg's partition fields; nil for plain files
	known   map[string]int
	buf     []byte
}

func newPartitioner(fields []partitionField, schema *arrow.Schema) (*partitioner, error) {
	p := &partitioner{fields: fields, known: map[string]int{}}
	for _, f := range fields {
		at := schema.FieldIndices(f.column)
		if len(at) != 1 {
			return nil, fault.New(fault.SchemaUnfollowable, f.column, "the column is gone, and the table is partitioned by it")
		}
		p.columns = append(p.columns, at[0])
	}
	return p, nil
}

// split divides a record's rows by partition, in the order in which partitions come first.
func (p *partitioner) split(rec arrow.RecordBatch) []portion {
	if len(p.fields) == 0 || rec.NumRows() == 0 {
		return []portion{{}}
	}
	clear(p.known)
	appenders := make([]func([]byte, int) []byte, len(p.fields))
	for i := range p.fields {
		if p.columns[i] < 0 {
			appenders[i] = func(to []byte, _ int) []byte { return append(to, 0) }
			continue
		}
		appenders[i] = p.fields[i].appender(storage(rec.Column(p.columns[i])))
	}
	var out []portion
	for row := range int(rec.NumRows()) {
		p.buf = p.buf[:0]
		for _, add := range appenders {
			p.buf = add(p.buf, row)
		}
		n, ok := p.known[string(p.buf)]
		if !ok {
			n = len(out)
			p.known[string(p.buf)] = n
			out = append(out, portion{partitionKey: partitionKey{string(p.buf), p.values(rec, row)}})
		}
		out[n].rows = append(out[n].rows, uint32(row))
	}
	if len(out) == 1 {
		out[0].rows = nil
	}
	return out
}

func (p *partitioner) values(rec arrow.RecordBatch, row int) []any {
	out := make([]any, len(p.fields))
	for i := range p.fields {
		if p.columns[i] < 0 {
			continue
		}
		out[i] = p.fields[i].value(storage(rec.Column(p.columns[i])), row)
	}
	return out
}

// value is the partition's value for a row: a value of Iceberg's Go types, nil for null.
func (f *partitionField) value(column arrow.Array, row int) any {
	lit := literalOf(column, f.typ, row)
	if lit == nil {
		return nil
	}
	got := f.transform.Apply(iceberg.Optional[iceberg.Literal]{Valid: true, Val: lit})
	if !got.Valid {
		return nil
	}
	return got.Val.Any()
}

// appender gives what appends bytes that differ when partitions do. Where a value's own bytes will do, nothing is computed.
func (f *partitionField) appender(column arrow.Array) func([]byte, int) []byte {
	var of func([]byte, int) []byte
	switch f.transform.(type) {
	case iceberg.IdentityTransform:
		of = rawAppender(column)
	case iceberg.DayTransform, iceberg.HourTransform:
		of = f.timeAppender(column)
	}
	if of == nil {
		of = func(to []byte, row int) []byte { return appendPartitionValue(to, f.value(column, row)) }
	}
	return func(to []byte, row int) []byte {
		if column.IsNull(row) {
			return append(to, 0)
		}
		return of(append(to, 1), row)
	}
}

func rawAppender(column arrow.Array) func([]byte, int) []byte {
	switch a := column.(type) {
	case *array.String:
		return func(to []byte, row int) []byte { return appendSized(to, a.Value(row)) }
	case *array.Int64:
		return func(to []byte, row int) []byte { return binary.LittleEndian.AppendUint64(to, uint64(a.Value(row))) }
	case *array.Int32:
		return func(to []byte, row int) []byte { return binary.LittleEndian.AppendUint32(to, uint32(a.Value(row))) }
	case *array.Date32:
		return func(to []byte, row int) []byte { return binary.LittleEndian.AppendUint32(to, uint32(a.Value(row))) }
	}
	return nil
}

func appendSized(to []byte, v string) []byte {
	return append(binary.AppendUvarint(to, uint64(len(v))), v...)
}

func (f *partitionField) timeAppender(column arrow.Array) func([]byte, int) []byte {
	a, ok := column.(*array.Timestamp)
	if !ok {
		return nil
	}
	unit := time.Hour.Microseconds()
	if _, day := f.transform.(iceberg.DayTransform); day {
		unit *= 24
	}
	return func(to []byte, row int) []byte {
		v := int64(a.Value(row))
		q := v / unit
		if v%unit < 0 {
			q--
		}
		return binary.LittleEndian.AppendUint64(to, uint64(q))
	}
}

func appendPartitionValue(to []byte, v any) []byte {
	switch v := v.(type) {
	case int32:
		return binary.LittleEndian.AppendUint32(to, uint32(v))
	case int64:
		return binary.LittleEndian.AppendUint64(to, uint64(v))
	case string:
		return appendSized(to, v)
	case []byte:
		return appendSized(to, string(v))
	case float32:
		return binary.LittleEndian.AppendUint32(to, math.Float32bits(v))
	case float64:
		return binary.LittleEndian.AppendUint64(to, math.Float64bits(v))
	case iceberg.Decimal:
		return appendSized(to, v.Val.ToString(0))
	}
	return appendSized(to, fmt.Sprint(v)) // tells two values of one column apart, no more
}

// literalOf is a value as Iceberg's library has it, nil for null.
func literalOf(column arrow.Array, t iceberg.Type, row int) iceberg.Literal {
	if column.IsNull(row) {
		return nil
	}
	switch a := column.(type) {
	case *array.Boolean:
		return iceberg.BoolLiteral(a.Value(row))
	case *array.Int8:
		return iceberg.Int32Literal(a.Value(row))
	case *array.Int16:
		return iceberg.Int32Literal(a.Value(row))
	case *array.Int32:
		return iceberg.Int32Literal(a.Value(row))
	case *array.Int64:
		return iceberg.Int64Literal(a.Value(row))
	case *array.Float32:
		return iceberg.Float32Literal(a.Value(row))
	case *array.Float64:
		return iceberg.Float64Literal(a.Value(row))
	case *array.String:
		return iceberg.StringLiteral(strings.Clone(a.Value(row)))
	case *array.Binary:
		return iceberg.BinaryLiteral(append([]byte{}, a.Value(row)...))
	case *array.Date32:
		return iceberg.DateLiteral(a.Value(row))
	case *array.Time64:
		return iceberg.TimeLiteral(a.Value(row))
	case *array.Timestamp:
		return iceberg.TimestampLiteral(a.Value(row))
	case *array.Decimal128:
		d, _ := t.(iceberg.DecimalType)
		return iceberg.DecimalLiteral{Val: a.Value(row), Scale: d.Scale()}
	case *array.FixedSizeBinary:
		if id, err := uuid.FromBytes(a.Value(row)); err == nil {
			return iceberg.UUIDLiteral(id)
		}
		return iceberg.FixedLiteral(append([]byte{}, a.Value(row)...))
	}
	return nil
}

// partitioner divides records of a data file's schema as the table's partition spec says.
func (t *icebergTable) partitioner(schema *arrow.Schema) (*partitioner, error) {
	p := &partitioner{known: map[string]int{}}
	spec := t.now().Spec()
	for _, f := range spec.Fields() {
		if _, void := f.Transform.(iceberg.VoidTransform); void {
			continue
		}
		at := slices.IndexFunc(schema.Fields(), func(c arrow.Field) bool { return fieldID(c) == f.SourceID() })
		source, known := t.now().Schema().FindFieldByID(f.SourceID())
		switch {
		case at >= 0:
			var err error
			if source.Type, err = icebergType(schema.Field(at), func() int { return 1 }); err != nil {
				return nil, err
			}
			source.Name = schema.Field(at).Name
		case !known:
			return nil, fault.New(fault.SchemaUnfollowable, t.where(), "the column of partition %s is gone", f.Name).
				WithMend("Somebody has dropped it in the lake: drop the table there, and copy it anew: leat resync --table NAME.")
		}
		p.fields = append(p.fields, partitionField{name: f.Name, column: source.Name, transform: f.Transform, typ: source.Type})
		p.columns, p.ids = append(p.columns, at), append(p.ids, f.FieldID)
	}
	return p, nil
}

// byID is a partition's values by the ids of Iceberg's partition fields.
func (p *partitioner) byID(values []any) map[int]any {
	if len(p.ids) == 0 {
		return nil
	}
	out := make(map[int]any, len(p.ids))
	for i, id := range p.ids {
		out[id] = values[i]
	}
	return out
}

// icebergPartitions makes the partition spec of a new table. Expressions of system columns are the history's alone.
func icebergPartitions(of string, expressions []string, schema *arrow.Schema, icy *iceberg.Schema, system *arrow.Schema) (*iceberg.PartitionSpec, error) {
	fields, err := partitionFields(of, ofTable(expressions, schema, system), schema)
	if err != nil || len(fields) == 0 {
		return iceberg.UnpartitionedSpec, err
	}
	var out []iceberg.PartitionField
	for i, f := range fields {
		source, _ := icy.FindFieldByName(f.column)
		out = append(out, iceberg.PartitionField{SourceIDs: []int{source.ID}, FieldID: 1000 + i, Name: f.name, Transform: f.transform})
	}
	spec := iceberg.NewPartitionSpec(out...)
	return &spec, nil
}

// ofTable leaves out expressions of system columns that the schema does not have: a current table has none.
func ofTable(expressions []string, schema, system *arrow.Schema) []string {
	return slices.DeleteFunc(slices.Clone(expressions), func(text string) bool {
		f, ok := partitionExpression(strings.TrimSpace(text))
		return ok && !schema.HasField(f.column) && system.HasField(f.column)
	})
}

// hivePath is the folders of a partition as Hive's readers expect them: region=eu/created_at_day=2026-11-21/.
func (p *partitioner) hivePath(values []any) string {
	var b strings.Builder
	for i, f := range p.fields {
		value := "__HIVE_DEFAULT_PARTITION__"
		if values[i] != nil {
			value = hiveValue(f.human(values[i]))
		}
		b.WriteString(folderName(change.EncodeName(f.name), value) + "/")
	}
	return b.String()
}

// hiveValue escapes what would end a folder's name, as Hive does; readers undo %XX.
func hiveValue(v string) string {
	if v == "" {
		return "__HIVE_DEFAULT_PARTITION__"
	}
	return strings.ReplaceAll(url.QueryEscape(v), "+", "%20")
}

// human is a partition's value for people and paths.
func (f *partitionField) human(v any) string {
	return f.transform.ToHumanStrType(f.typ, v)
}

// partitionOf names the partition of a data file.
func partitionOf(f iceberg.DataFile) string { return fmt.Sprint(f.SpecID(), f.Partition()) }

// layoutOf is how a new Iceberg table is partitioned and sorted.
func (t *lakeTable) layoutOf(schema *arrow.Schema, icy *iceberg.Schema) ([]catalog.CreateTableOpt, error) {
	columns, err := profileColumns(t.lake.Profile)
	if err != nil {
		return nil, err
	}
	system := arrow.NewSchema(columns.fields(), nil)
	spec, err := icebergPartitions(t.spec.Table.String(), t.spec.Partition, schema, icy, system)
	if err != nil {
		return nil, err
	}
	order, err := sortOrder(t.spec.Table.String(), ofTable(t.spec.Sort, schema, system), icy)
	return []catalog.CreateTableOpt{catalog.WithPartitionSpec(spec), catalog.WithSortOrder(order)}, err
}

// sortOrder reads columns, each with "desc" behind it or not.
func sortOrder(of string, columns []string, icy *iceberg.Schema) (table.SortOrder, error) {
	var fields []table.SortField
	for _, text := range columns {
		name, falling := strings.CutSuffix(strings.TrimSpace(text), " desc")
		f, ok := icy.FindFieldByName(unquoteName(strings.TrimSpace(name)))
		if !ok {
			return table.UnsortedSortOrder, fault.New(fault.ConfigInvalid, "lake.sort_by", "%s: cannot sort by %q: the table has no such column", of, text).
				WithMend("Write columns, with desc behind one that falls: created_at desc, id.")
		}
		if _, plain := f.Type.(iceberg.PrimitiveType); !plain {
			return table.UnsortedSortOrder, fault.New(fault.ConfigInvalid, "lake.sort_by", "%s: cannot sort by %q: values of type %s have no order", of, text, f.Type)
		}
		s := table.SortField{SourceIDs: []int{f.ID}, Transform: iceberg.IdentityTransform{}, Direction: table.SortASC, NullOrder: table.NullsFirst}
		if falling {
			s.Direction, s.NullOrder = table.SortDESC, table.NullsLast
		}
		fields = append(fields, s)
	}
	if len(fields) == 0 {
		return table.UnsortedSortOrder, nil
	}
	return table.NewSortOrder(1, fields)
}

// checkLayout refuses a setting that is not what the table was made with. A column that was renamed since may be called
// either way.
func (t *lakeTable) checkLayout(ice *icebergTable) error {
	columns, err := profileColumns(t.lake.Profile)
	if err != nil {
		return err
	}
	system := arrow.NewSchema(columns.fields(), nil)
	var want []partitionField
	for _, text := range t.spec.Partition {
		f, ok := partitionExpression(strings.TrimSpace(text))
		if ok && (ice.kind == kindHistory || !system.HasField(f.column)) {
			want = append(want, f)
		}
	}
	spec := ice.now().Spec()
	same := spec.NumFields() == len(want)
	for i, f := range spec.Fields() {
		column, _ := ice.now().Schema().FindColumnName(f.SourceID())
		same = same && f.Transform.Equals(want[i].transform) && (f.Name == want[i].name || column == want[i].column)
	}
	if same {
		return nil
	}
	return fault.New(fault.ConfigInvalid, "lake.partition_by", "%s was made with other partitions: %s", ice.where(), spec.String()).
		WithMend("Set lake.partition_by to what the table has, or drop the table and copy it anew: leat resync.")
}
