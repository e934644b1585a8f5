package postgres

import (
	"encoding/binary"
	"testing"

	"github.com/leatdata/leat/internal/change"
)

// sixColumns is a plan of mixed columns, its relation, and the log's Insert of one row.
func sixColumns(b *testing.B, kind byte) (*Plan, *Relation, []byte) {
	b.Helper()
	t := &change.Table{Schema: "s", Name: "t"}
	rel := &Relation{OID: 7, Schema: "s", Name: "t", Identity: 'd', Version: 1}
	types := typeTable{}
	for i, c := range []struct {
		name   string
		oid    uint32
		typmod int32
	}{{"id", 20, -1}, {"n", 23, -1}, {"price", oidNumeric, 12<<16 | 2 + 4}, {"at", 1184, -1}, {"name", 25, -1}, {"day", 1082, -1}} {
		types[c.oid] = typeInfo{oid: c.oid, kind: 'b'}
		t.Columns = append(t.Columns, change.Column{Name: c.name, Attnum: int16(i + 1), TypeOID: c.oid, Typmod: c.typmod})
		rel.Columns = append(rel.Columns, RelationColumn{Name: c.name, TypeOID: c.oid, Typmod: c.typmod})
	}
	p, err := carriers{types: types, version: 180000}.plan(t, Policies{})
	if err != nil {
		b.Fatal(err)
	}
	values := []string{"123456789", "4711", "12345.67", "2026-11-21 09:45:00.123456+00", "a name of some length", "2026-11-21"}
	if kind == 'b' {
		values = []string{"\x00\x00\x00\x00\x07\x5b\xcd\x15", "\x00\x00\x12\x67", "\x00\x03\x00\x01\x00\x00\x00\x02\x00\x01\x09\x29\x1a\x2c", "\x00\x03\x04\x05\x06\x07\x08\x09", "a name of some length", "\x00\x00\x26\x5d"}
	}
	raw := binary.BigEndian.AppendUint32([]byte{'I'}, 7)
	raw = append(raw, 'N', 0, byte(len(values)))
	for _, v := range values {
		raw = binary.BigEndian.AppendUint32(append(raw, kind), uint32(len(v)))
		raw = append(raw, v...)
	}
	return p, rel, raw
}

func benchmarkChanges(b *testing.B, kind byte, build bool) {
	p, rel, raw := sixColumns(b, kind)
	builder, err := NewChangesBuilder(p, rel)
	if err != nil {
		b.Fatal(err)
	}
	r := NewEventReader()
	r.relations[rel.OID], r.open = rel, true
	b.ReportAllocs()
	for b.Loop() {
		e, err := r.Event(raw)
		if err != nil {
			b.Fatal(err)
		}
		if !build {
			continue
		}
		if err := builder.Append(e); err != nil {
			b.Fatal(err)
		}
		if builder.Rows() == 1<<14 {
			builder.Take()
		}
	}
}

// One iteration is one row of six columns; Decode is what the log itself costs of the others.
func BenchmarkChangesDecode(b *testing.B) { benchmarkChanges(b, 't', false) }
func BenchmarkChangesText(b *testing.B)   { benchmarkChanges(b, 't', true) }
func BenchmarkChangesBinary(b *testing.B) { benchmarkChanges(b, 'b', true) }
