package dump_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	arrowmemory "github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/twmb/avro/ocf"

	"github.com/leatdata/leat/internal/dump"
)

// The readers here share no code with our writers. They turn each value into text that PostgreSQL takes as input
// of the column's type; nil is NULL.

// csvOf writes rows so that COPY FROM takes every byte as it is.
func csvOf(rows [][]*string) []byte {
	var b bytes.Buffer
	for _, row := range rows {
		for i, v := range row {
			if i > 0 {
				b.WriteByte(',')
			}
			if v != nil {
				b.WriteString(`"` + strings.ReplaceAll(*v, `"`, `""`) + `"`)
			}
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// parquetRows reads a file with Arrow's own reader.
func parquetRows(t testing.TB, data []byte, table dump.TableManifest) [][]*string {
	t.Helper()
	f, err := file.NewParquetReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows := make([][]*string, f.NumRows())
	if len(table.Columns) == 0 {
		return rows
	}
	r, err := pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{BatchSize: 1000}, arrowmemory.DefaultAllocator)
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.ReadTable(context.Background())
	if err != nil {
		t.Fatalf("%s: %v", table.Name, err)
	}
	defer got.Release()
	for i, c := range table.Columns {
		if name := got.Schema().Field(i).Name; name != c.Name {
			t.Fatalf("column %d is named %q in the file, %q in the manifest", i, name, c.Name)
		}
		row := 0
		for _, chunk := range got.Column(i).Data().Chunks() {
			for k := range chunk.Len() {
				rows[row] = append(rows[row], arrowText(t, chunk, k, c.Type))
				row++
			}
		}
	}
	return rows
}

func arrowText(t testing.TB, a arrow.Array, i int, pg string) *string {
	if a.IsNull(i) {
		return nil
	}
	var s string
	switch a := a.(type) {
	case array.ExtensionArray:
		return arrowText(t, a.Storage(), i, pg)
	case *array.Boolean:
		s = strconv.FormatBool(a.Value(i))
	case *array.Int16:
		s = strconv.Itoa(int(a.Value(i)))
	case *array.Int32:
		s = strconv.Itoa(int(a.Value(i)))
	case *array.Int64:
		s = strconv.FormatInt(a.Value(i), 10)
	case *array.Float32:
		s = floatText(float64(a.Value(i)), 32)
	case *array.Float64:
		s = floatText(a.Value(i), 64)
	case *array.Decimal128:
		s = a.Value(i).ToString(a.DataType().(*arrow.Decimal128Type).Scale)
	case *array.String:
		s = a.Value(i)
	case *array.Binary:
		s = bytesText(a.Value(i), pg)
	case *array.FixedSizeBinary:
		s = hex.EncodeToString(a.Value(i))
	case *array.Date32:
		s = timeText(time.Unix(int64(a.Value(i))*86400, 0), "2006-01-02")
	case *array.Time64:
		s = time.UnixMicro(int64(a.Value(i))).UTC().Format("15:04:05.000000")
	case *array.Timestamp:
		if unit := a.DataType().(*arrow.TimestampType).Unit; unit != arrow.Microsecond {
			t.Fatalf("a timestamp in %s", unit)
		}
		s = timeText(time.UnixMicro(int64(a.Value(i))), "2006-01-02 15:04:05.000000")
		if a.DataType().(*arrow.TimestampType).TimeZone != "" {
			s = zoned(s)
		}
	case *array.List:
		from, to := a.ValueOffsets(i)
		items := make([]*string, 0, to-from)
		for k := from; k < to; k++ {
			items = append(items, arrowText(t, a.ListValues(), int(k), pg))
		}
		_, nested := a.ListValues().(*array.List)
		s = arrayText(items, nested, pg)
	default:
		t.Fatalf("Arrow has read a %s", a.DataType())
	}
	return &s
}

func floatText(f float64, bits int) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return strconv.FormatFloat(f, 'g', -1, bits)
}

// bytesText is bytea's text form, or for PostGIS the hexadecimal that its input function takes. Arrow reads Parquet's
// JSON as bytes.
func bytesText(b []byte, pg string) string {
	if strings.Contains(pg, "json") {
		return string(b)
	}
	if strings.Contains(pg, "geometry") || strings.Contains(pg, "geography") {
		return hex.EncodeToString(b)
	}
	return `\x` + hex.EncodeToString(b)
}

// timeText writes years as PostgreSQL reads them: at least four digits, BC behind, no year 0.
func timeText(at time.Time, layout string) string {
	at = at.UTC()
	rest := at.Format(layout[len("2006"):])
	if at.Year() > 0 {
		return fmt.Sprintf("%04d%s", at.Year(), rest)
	}
	return fmt.Sprintf("%04d%s BC", 1-at.Year(), rest)
}

func zoned(s string) string {
	if bc, ok := strings.CutSuffix(s, " BC"); ok {
		return bc + "+00 BC"
	}
	return s + "+00"
}

// arrayText is array_in's form. box and PostGIS have delimiters of their own.
func arrayText(items []*string, nested bool, pg string) string {
	delimiter := ","
	switch {
	case strings.HasPrefix(pg, "box["):
		delimiter = ";"
	case strings.Contains(pg, "geometry"):
		delimiter = ":"
	}
	texts := make([]string, len(items))
	for i, item := range items {
		switch {
		case item == nil:
			texts[i] = "NULL"
		case nested && !strings.Contains(pg, "d_ints[]"): // a domain's arrays are elements, not dimensions
			texts[i] = *item
		default:
			texts[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(*item) + `"`
		}
	}
	return "{" + strings.Join(texts, delimiter) + "}"
}

// avroNode is a type of an Avro schema, as far as its values' text form needs.
type avroNode struct {
	kind, logical string
	scale         int
	items         *avroNode
	original      string // the column's name
}

// avroFields reads the file's schema.
func avroFields(t testing.TB, schema []byte) []avroNode {
	t.Helper()
	var record struct {
		Fields []struct {
			Name     string          `json:"name"`
			Original string          `json:"leat:name"`
			Type     json.RawMessage `json:"type"`
		} `json:"fields"`
	}
	if err := json.Unmarshal(schema, &record); err != nil {
		t.Fatal(err)
	}
	nodes := make([]avroNode, len(record.Fields))
	for i, f := range record.Fields {
		nodes[i] = avroNodeOf(t, f.Type)
		nodes[i].original = f.Name
		if f.Original != "" {
			nodes[i].original = f.Original
		}
	}
	return nodes
}

func avroNodeOf(t testing.TB, raw json.RawMessage) avroNode {
	t.Helper()
	var name string
	if json.Unmarshal(raw, &name) == nil {
		return avroNode{kind: name}
	}
	var union []json.RawMessage
	if json.Unmarshal(raw, &union) == nil {
		return avroNodeOf(t, union[len(union)-1])
	}
	var node struct {
		Type    string          `json:"type"`
		Logical string          `json:"logicalType"`
		Scale   int             `json:"scale"`
		Items   json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(raw, &node); err != nil {
		t.Fatal(err)
	}
	n := avroNode{kind: node.Type, logical: node.Logical, scale: node.Scale}
	if node.Items != nil {
		items := avroNodeOf(t, node.Items)
		n.items = &items
	}
	return n
}

// avroRows reads a file with github.com/twmb/avro.
func avroRows(t testing.TB, data []byte, table dump.TableManifest) [][]*string {
	t.Helper()
	r, err := ocf.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var names struct {
		Fields []struct{ Name string } `json:"fields"`
	}
	schema := r.Metadata()["avro.schema"]
	if err := json.Unmarshal(schema, &names); err != nil {
		t.Fatal(err)
	}
	nodes := avroFields(t, schema)
	var rows [][]*string
	for {
		var got map[string]any
		err := r.Decode(&got)
		if errors.Is(err, io.EOF) {
			return rows
		}
		if err != nil {
			t.Fatalf("%s: %v", table.Name, err)
		}
		row := make([]*string, len(table.Columns))
		for i, c := range table.Columns {
			if nodes[i].original != c.Name {
				t.Fatalf("column %d is named %q in the file, %q in the manifest", i, nodes[i].original, c.Name)
			}
			row[i] = avroText(t, got[names.Fields[i].Name], nodes[i], c.Type)
		}
		rows = append(rows, row)
	}
}

func avroText(t testing.TB, v any, n avroNode, pg string) *string {
	var s string
	switch v := v.(type) {
	case nil:
		return nil
	case bool, int32, int64:
		s = fmt.Sprint(v)
	case float32:
		s = floatText(float64(v), 32)
	case float64:
		s = floatText(v, 64)
	case string:
		s = v
	case []byte:
		s = bytesText(v, pg)
	case [16]byte:
		s = hex.EncodeToString(v[:])
	case *big.Rat:
		s = v.FloatString(n.scale)
	case time.Duration:
		s = time.UnixMicro(v.Microseconds()).UTC().Format("15:04:05.000000")
	case time.Time:
		switch n.logical {
		case "date":
			s = timeText(v, "2006-01-02")
		case "timestamp-micros":
			s = zoned(timeText(v, "2006-01-02 15:04:05.000000"))
		default:
			s = timeText(v, "2006-01-02 15:04:05.000000")
		}
	case []any:
		items := make([]*string, len(v))
		for i := range v {
			items[i] = avroText(t, v[i], *n.items, pg)
		}
		s = arrayText(items, n.items.kind == "array", pg)
	default:
		t.Fatalf("avro has read a %T", v)
	}
	return &s
}
