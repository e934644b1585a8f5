package lake

import (
	"encoding/json"
	"slices"

	"github.com/apache/iceberg-go"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// column ties a column of the source to a field of the Iceberg table. The list of them is kept in propColumns: a
// column is known by its attnum, so that a rename is a rename and not a drop and an add.
type column struct {
	Attnum  int16  `json:"attnum"`
	Name    string `json:"name"`
	Field   int    `json:"field"` // Iceberg's field id
	TypeOID uint32 `json:"type_oid"`
	Typmod  int32  `json:"typmod"`
	Type    string `json:"type"`
	Dims    int    `json:"dims,omitempty"`
	NotNull bool   `json:"not_null,omitempty"`
	Key     int    `json:"key,omitempty"` // its place in the key, from 1; 0 when it is no part of it
	// Generated is pg_attribute.attgenerated, "" for none.
	Generated string `json:"generated,omitempty"`
	// Computed: see change.Column.
	Computed bool `json:"computed,omitempty"`
}

func columnOf(c change.Column, fieldID int) column {
	out := column{Attnum: c.Attnum, Name: c.Name, Field: fieldID, TypeOID: c.TypeOID, Typmod: c.Typmod, Type: c.Type, Dims: c.Dims, NotNull: c.NotNull, Computed: c.Computed}
	if c.Generated != 0 {
		out.Generated = string(rune(c.Generated))
	}
	return out
}

func (c column) source() change.Column {
	out := change.Column{Name: c.Name, Attnum: c.Attnum, TypeOID: c.TypeOID, Typmod: c.Typmod, Type: c.Type, Dims: c.Dims, NotNull: c.NotNull, Computed: c.Computed}
	if c.Generated != "" {
		out.Generated = c.Generated[0]
	}
	return out
}

// columnsOf ties the columns of t to the fields of their names.
func columnsOf(t *change.Table, key []string, schema *iceberg.Schema) ([]column, error) {
	out := make([]column, len(t.Columns))
	for i, c := range t.Columns {
		f, ok := schema.FindFieldByName(c.Name)
		if !ok {
			return nil, fault.New(fault.Internal, t.String()+"."+c.Name, "the column is not in the Iceberg table")
		}
		out[i] = columnOf(c, f.ID)
		out[i].Key = slices.Index(key, c.Name) + 1
	}
	return out, nil
}

// keyOfColumns names the columns of the key in its order.
func keyOfColumns(columns []column) []string {
	var key []column
	for _, c := range columns {
		if c.Key > 0 {
			key = append(key, c)
		}
	}
	slices.SortFunc(key, func(a, b column) int { return a.Key - b.Key })
	names := make([]string, len(key))
	for i, c := range key {
		names[i] = c.Name
	}
	return names
}

func encodeColumns(columns []column) string {
	data, _ := json.Marshal(columns) // strings and numbers always encode
	return string(data)
}

// columns are the source's columns as rows are written by: those of the staged definition, where there is one.
func (t *icebergTable) columns() ([]column, error) {
	if t.staged != nil {
		return t.staged.columns, nil
	}
	return t.columnsHeld()
}

// hasSpecial says whether the table has the column of special values.
func (t *icebergTable) hasSpecial() (bool, error) {
	columns, err := t.columnsHeld()
	return slices.ContainsFunc(columns, func(c column) bool { return c.Attnum == change.SpecialAttnum }), err
}

// columnsHeld reads what the table says of its columns.
func (t *icebergTable) columnsHeld() ([]column, error) {
	text := t.property(propColumns)
	if text == "" {
		return nil, nil
	}
	var out []column
	err := json.Unmarshal([]byte(text), &out)
	return out, fault.Wrap(err, fault.LakeFailed, t.where(), "its property %s cannot be understood", propColumns)
}
