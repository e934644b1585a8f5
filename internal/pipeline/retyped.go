package pipeline

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/lake"
	"github.com/leatdata/leat/internal/postgres"
)

// retype tells the definition what a column's new type does to the values that are there, and says whether the server has certainly
// written all rows again for it.
func retype(ctx context.Context, d *lake.Definition, catalog *postgres.Catalog, s postgres.SchemaStep) (rewrites bool, err error) {
	conversion, err := catalog.Conversion(ctx, s.From, s.To)
	if err != nil {
		return false, err
	}
	switch conversion {
	case postgres.ConversionUnknown:
		d.Rewritten = append(d.Rewritten, s.To.Attnum)
		return true, nil
	case postgres.ConversionExact:
		d.Converted[s.To.Attnum] = 0
	case postgres.ConversionCut:
		d.Converted[s.To.Attnum] = catalog.TextLength(s.To)
	}
	d.Retyped = append(d.Retyped, s.To.Attnum)
	return conversion != postgres.ConversionNone || s.From.TypeOID != s.To.TypeOID && isWhole(s.From) && isWhole(s.To), nil
}

func isWhole(c change.Column) bool { return slices.Contains([]uint32{20, 21, 23}, c.TypeOID) }

// checkValues compares rows as the lake is about to have them with those of the source that no transaction has touched since the
// table was altered: ALTER TABLE writes all rows again when it computes values, and so they bear its number. Where none does and
// yet rows were written again, a later statement has taken the number's place in the catalog, and all rows are compared. Where the
// source has other values, they came by ALTER … TYPE … USING, of which the log tells nothing.
func (r *run) checkValues(ctx context.Context, t *table, then, now *change.Table, rewrites bool, rows arrow.RecordBatch) error {
	if now == nil {
		return nil
	}
	var columns []change.Column
	for _, f := range rows.Schema().Fields() {
		c := then.Columns[slices.IndexFunc(then.Columns, func(c change.Column) bool { return c.Name == f.Name })]
		i := slices.IndexFunc(now.Columns, func(n change.Column) bool { return n.Attnum == c.Attnum })
		if i < 0 || now.Columns[i].TypeOID != c.TypeOID || now.Columns[i].Typmod != c.Typmod {
			return nil // altered again since: then all of it is compared
		}
		columns = append(columns, c)
	}
	keyed := identityOf(then)
	keys := chosenColumns(rows, func(name string) bool { return slices.Contains(keyed, name) })
	defer keys.Release()
	by := postgres.Writers{XIDs: []uint32{}}
	for _, trace := range now.Traces {
		by.XIDs = append(by.XIDs, trace.By)
	}
	catalog := r.source.Catalog()
	source, err := r.readRows(ctx, catalog, now, columns, keys, by)
	if err == nil && source.NumRows() == 0 && rewrites {
		source.Release()
		source, err = r.readRows(ctx, catalog, now, columns, keys, postgres.Writers{})
	}
	if errors.Is(err, postgres.ErrAltered) {
		return nil // the next look finds another definition
	}
	if err != nil {
		return err
	}
	defer source.Release()
	switch column := unlike(rows, source, keyed); {
	case column == "":
		return nil
	case !r.o.CopyOnChange:
		return fault.New(fault.SchemaUnfollowable, t.name+"."+column, "the source has computed other values in the column's new type (ALTER … TYPE … USING)").
			WithMend("Copy the table again: leat resync.")
	default:
		return r.anew(t, "the source has computed other values in a column's new type (ALTER … TYPE … USING): "+column)
	}
}

// mostCompared is how many rows are compared to find out whether columns have other values. A copy of more is not much more work.
const mostCompared = 20_000

// sameValues says whether the lake has what the source has in columns that keep their type, of all rows that nothing has written since a
// look: the log has come past it, so whatever differs came by an ALTER TABLE. Where they cannot be compared, the answer is no.
func (r *run) sameValues(ctx context.Context, t *table, now *change.Table, p pendingDoubt) (same bool, err error) {
	then := known(t)
	if t.diverted() || t.special.Load() > 0 || len(then.Identity()) == 0 || !slices.Equal(then.Identity(), now.Identity()) {
		return false, nil
	}
	keyed, columns, attnums := identityOf(then), []change.Column(nil), []int16(nil)
	for _, c := range then.Columns {
		there := slices.ContainsFunc(now.Columns, func(n change.Column) bool { return n.Attnum == c.Attnum })
		switch key := slices.Contains(keyed, c.Name); {
		case key && slices.Contains(p.Columns, c.Attnum): // by what would rows be compared?
			return false, nil
		case key:
			columns = append(columns, c)
		case there && slices.Contains(p.Columns, c.Attnum):
			columns, attnums = append(columns, c), append(attnums, c.Attnum)
		}
	}
	if len(attnums) == 0 { // the lake has none of them
		return true, nil
	}
	if err := r.flush(ctx, t); err != nil {
		return false, err
	}
	catalog := r.source.Catalog()
	err = r.aside(t, func() error {
		all, err := lake.Values(ctx, t.lake, attnums, mostCompared, func(rows arrow.RecordBatch) error {
			keys := chosenColumns(rows, func(name string) bool { return slices.Contains(keyed, name) })
			defer keys.Release()
			source, err := r.readRows(ctx, catalog, now, columns, keys, postgres.Writers{Visible: p.visible})
			if err != nil {
				return err
			}
			defer source.Release()
			if column := unlike(rows, source, keyed); column != "" {
				return errUnlike
			}
			return nil
		})
		same = all && err == nil
		return err
	})
	if errors.Is(err, errUnlike) || errors.Is(err, postgres.ErrAltered) || fault.Is(err, fault.SourceRights) {
		return false, nil
	}
	return same, err
}

var errUnlike = errors.New("rows differ")

func identityOf(t *change.Table) (names []string) {
	for _, c := range t.Columns {
		if slices.Contains(t.Identity(), c.Attnum) {
			names = append(names, c.Name)
		}
	}
	return names
}

func chosenColumns(rec arrow.RecordBatch, choose func(name string) bool) arrow.RecordBatch {
	var fields []arrow.Field
	var columns []arrow.Array
	for i, f := range rec.Schema().Fields() {
		if choose(f.Name) {
			fields, columns = append(fields, f), append(columns, rec.Column(i))
		}
	}
	return array.NewRecordBatch(arrow.NewSchema(fields, nil), columns, rec.NumRows())
}

// unlike names a column in which rows of the same key differ, "" for none.
func unlike(ours, theirs arrow.RecordBatch, keyed []string) string {
	column := func(rec arrow.RecordBatch, name string) arrow.Array {
		return rec.Column(rec.Schema().FieldIndices(name)[0])
	}
	keyOf := func(rec arrow.RecordBatch, row int) string {
		var b strings.Builder
		for _, name := range keyed {
			b.WriteString(column(rec, name).ValueStr(row))
			b.WriteByte(0)
		}
		return b.String()
	}
	at := make(map[string]int, ours.NumRows())
	for row := range int(ours.NumRows()) {
		at[keyOf(ours, row)] = row
	}
	for row := range int(theirs.NumRows()) {
		mine, ok := at[keyOf(theirs, row)]
		if !ok {
			continue
		}
		for _, f := range ours.Schema().Fields() {
			a, b := column(ours, f.Name), column(theirs, f.Name)
			if !arrow.TypeEqual(a.DataType(), b.DataType()) || a.IsNull(mine) != b.IsNull(row) || a.ValueStr(mine) != b.ValueStr(row) {
				return f.Name
			}
		}
	}
	return ""
}
