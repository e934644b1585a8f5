package format_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/leatdata/leat/internal/format"
)

// fastavroPython is a Python that has fastavro; the test is skipped without one.
func fastavroPython(t *testing.T) string {
	t.Helper()
	python := os.Getenv("LEAT_TEST_PYTHON")
	if python == "" {
		t.Skip("LEAT_TEST_PYTHON names no Python with fastavro, cramjam and backports.zstd")
	}
	if out, err := exec.CommandContext(t.Context(), python, "-c", "import fastavro, cramjam, backports.zstd").CombinedOutput(); err != nil {
		t.Skipf("%s lacks fastavro, cramjam or backports.zstd: %s", python, bytes.TrimSpace(out))
	}
	return python
}

// readWithFastavro returns Python's repr() of each value, row by row, keys in the file's order.
func readWithFastavro(t *testing.T, python string, file []byte) [][]string {
	t.Helper()
	const script = `
import sys, json, fastavro
rows = fastavro.reader(sys.stdin.buffer)
json.dump([[repr(v) for v in row.values()] for row in rows], sys.stdout)
`
	cmd := exec.CommandContext(t.Context(), python, "-c", script)
	cmd.Stdin = bytes.NewReader(file)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("fastavro: %v\n%s", err, errs.Bytes())
	}
	var rows [][]string
	if err := json.Unmarshal(out.Bytes(), &rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

// pythonValues is what fastavro should make of avroTypes, by name. Types that are left out
// differ only in Arrow, not in Avro.
var pythonValues = map[string][]string{
	"boolean":          {"True", "False", "None"},
	"int32":            {"-2147483648", "2147483647", "-1"},
	"int64":            {"-9223372036854775808", "9223372036854775807"},
	"float":            {"1.5", "None"},
	"double":           {"-2.5", "None"},
	"decimal(10,2)":    {"Decimal('0.00')", "Decimal('0.01')", "Decimal('-0.01')", "Decimal('1.27')", "Decimal('1.28')", "Decimal('-1.28')", "Decimal('-1.29')", "Decimal('99999999.99')", "Decimal('-99999999.99')", "None"},
	"decimal(38,0)":    {"Decimal('99999999999999999999999999999999999999')", "Decimal('-99999999999999999999999999999999999999')", "Decimal('9223372036854775807')", "Decimal('9223372036854775808')", "Decimal('-9223372036854775808')", "Decimal('-9223372036854775809')"},
	"decimal(76,76)":   {"Decimal('0." + strings.Repeat("9", 76) + "')", "Decimal('-0." + strings.Repeat("9", 76) + "')"},
	"string":           {"''", "'a'", "'żółw 🐢'", "'NULL'", "None"},
	"json":             {`'{"a":1}'`, "None"},
	"enum":             {"'not an Avro name!'"},
	"bytes":            {"b''", `b'\x00\xff'`, "None"},
	"uuid":             {"UUID('00112233-4455-6677-8899-aabbccddeeff')", "None"},
	"date":             {"datetime.date(1970, 1, 1)", "datetime.date(1, 1, 1)", "datetime.date(9999, 12, 31)", "None"},
	"time":             {"datetime.time(0, 0)", "datetime.time(23, 59, 59, 999999)", "None"},
	"timestamptz":      {"datetime.datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=datetime.timezone.utc)", "datetime.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=datetime.timezone.utc)", "None"},
	"timestamp":        {"datetime.datetime(2026, 1, 2, 3, 4, 5, 678901)"},
	"null":             {"None", "None"},
	"array":            {"[]", "[1]", "[1, None, 3]", "None"},
	"array of arrays":  {"[]", "[[], None, ['a', None]]"},
	"record":           {"{'no': 7, 'street': 'Elm'}", "{'no': 8, 'street': None}", "None"},
	"array of records": {"[{'a': 1}, None, {'a': None}]"},
	"map":              {"{}", "{'a': '1', '': None}", "None"},
}

func TestFastavroReadsEveryType(t *testing.T) {
	t.Parallel()
	python := fastavroPython(t)
	seen := 0
	for _, c := range avroTypes {
		want, ok := pythonValues[c.name]
		if !ok {
			continue
		}
		seen++
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rec := oneColumn(t, c.field, c.values)
			var got []string
			for _, row := range readWithFastavro(t, python, writeAvro(t, rec.Schema(), format.AvroOptions{}, rec)) {
				got = append(got, row...)
			}
			if !slices.Equal(got, want) {
				t.Errorf("fastavro reads %q, want %q", got, want)
			}
		})
	}
	if seen != len(pythonValues) {
		t.Errorf("%d of %d types are known to avroTypes", seen, len(pythonValues))
	}
}

func TestFastavroReadsEveryCodecAndManyBlocks(t *testing.T) {
	t.Parallel()
	python := fastavroPython(t)
	for _, codec := range []format.Compression{format.CodecNone, format.CodecSnappy, format.CodecDeflate, format.CodecZstd} {
		t.Run(string(codec), func(t *testing.T) {
			t.Parallel()
			rec := numbers(0, 2000)
			file := writeAvro(t, rec.Schema(), format.AvroOptions{Compression: codec, BlockBytes: 1000, Name: "Order Items", Namespace: "my shop"}, rec)
			rows := readWithFastavro(t, python, file)
			if len(rows) != 2000 || rows[0][0] != "'row number 0'" || rows[1999][0] != "'row number 1999'" {
				t.Errorf("fastavro reads %d rows, the last %q", len(rows), rows[len(rows)-1])
			}
			none := arrow.NewSchema(nil, nil)
			file = writeAvro(t, none, format.AvroOptions{Compression: codec}, array.NewRecordBatch(none, nil, 5000))
			if rows := readWithFastavro(t, python, file); len(rows) != 5000 {
				t.Errorf("fastavro reads %d rows without columns, want 5000", len(rows))
			}
			if rows := readWithFastavro(t, python, writeAvro(t, rec.Schema(), format.AvroOptions{Compression: codec})); len(rows) != 0 {
				t.Errorf("fastavro reads %d rows of an empty file", len(rows))
			}
		})
	}
}
