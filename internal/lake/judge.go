package lake

import (
	"cmp"
	"context"
	"io"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// newForm is what an Iceberg table of the spec is made with.
type newForm struct {
	schema  *iceberg.Schema
	columns []column
	layout  []catalog.CreateTableOpt
}

func (t *lakeTable) newForm(kind string) (f newForm, err error) {
	schema, key := t.spec.Schema, t.spec.Key
	if kind == kindHistory {
		if schema, err = historySchema(t.lake.Profile, t.spec); err != nil {
			return f, err
		}
		key = nil
	}
	if f.schema, err = icebergSchema(schema, key); err != nil {
		return f, err
	}
	if err = distinct(t.spec.Table, f.schema, strings.Clone); err != nil {
		return f, err
	}
	if f.columns, err = columnsOf(t.spec.Table, t.spec.Key, f.schema); err != nil {
		return f, err
	}
	f.layout, err = t.layoutOf(schema, f.schema)
	return f, err
}

// kinds are the forms that the spec keeps of a table.
func (s *Spec) kinds() (kinds []string) {
	if s.History {
		kinds = append(kinds, kindHistory)
	}
	if s.Current {
		kinds = append(kinds, kindCurrent)
	}
	return kinds
}

// Judge says whether a lake of these options can hold a table, without asking anything of a catalog. It names the places of the table as
// the catalog tells them apart: of two source tables that share one, the lake can hold one.
func (o Options) Judge(spec Spec) (places []string, err error) {
	o.Location = "mem://" // nothing is written
	if o, err = o.withDefaults(); err != nil {
		return nil, err
	}
	t := &lakeTable{lake: &Lake{Options: o}, spec: spec}
	if err := hasColumns(spec.Table); err != nil {
		return nil, err
	}
	fold := strings.Clone
	if o.Catalog.Kind == "hive" || o.Catalog.Kind == "glue" {
		fold = strings.ToLower
	}
	for _, kind := range spec.kinds() {
		form, err := t.newForm(kind)
		if err != nil {
			return nil, err
		}
		if err := distinct(spec.Table, form.schema, fold); err != nil {
			return nil, err
		}
		places = append(places, fold(strings.Join(t.lake.identifier(spec.Table, t.lake.suffix(kind)), ".")))
	}
	return places, nil
}

// suffix stands behind a table's name for a kind.
func (l *Lake) suffix(kind string) string {
	if kind == kindHistory {
		return l.HistorySuffix
	}
	return ""
}

func hasColumns(t *change.Table) error {
	if len(t.Columns) > 0 {
		return nil
	}
	return fault.New(fault.SchemaUnfollowable, t.String(), "it has no columns that can be kept").
		WithMend("Add a column to the table, or exclude it (run.exclude).")
}

// distinct refuses columns that the catalog does not tell apart. In Iceberg's schemas what lies in a list has a name too.
func distinct(t *change.Table, schema *iceberg.Schema, fold func(string) string) error {
	seen := map[string]string{}
	for _, f := range schema.Fields() {
		other, twice := seen[fold(f.Name)]
		found, ok := schema.FindFieldByName(f.Name)
		if twice || !ok || found.ID != f.ID {
			return fault.New(fault.SchemaUnfollowable, t.String()+"."+f.Name, "the lake does not tell the column from %s", cmp.Or(other, "a part of another one")).
				WithMend("Rename one of them at the source, leave it out of the publication (run.columns), or exclude the table (run.exclude).")
		}
		seen[fold(f.Name)] = f.Name
	}
	return nil
}

// Look says whether a table can be opened here, as far as other owners of its name matter: fault.LakeForeign if another
// pipeline, or another source table, has it.
func (l *Lake) Look(ctx context.Context, spec Spec) error {
	t := &lakeTable{lake: l, spec: spec}
	for _, kind := range spec.kinds() {
		ice, found, err := l.openIceberg(ctx, l.identifier(spec.Table, l.suffix(kind)), kind)
		if err == nil && found {
			err = t.checkOwner(ice)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Judge is that of Options for a lake of files.
func (o FilesOptions) Judge(spec Spec) (places []string, err error) {
	l := &Files{FilesOptions: o}
	if err := hasColumns(spec.Table); err != nil {
		return nil, err
	}
	if spec.Current {
		return nil, l.noCurrent(spec.Table)
	}
	form, err := (&filesTable{lake: l, spec: spec}).formOf(spec)
	if err != nil {
		return nil, err
	}
	if l.Format.Typed() { // names that the format has no room for
		w, err := l.newWriter(io.Discard, form.rows.schema, spec.Table.Name)
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			return nil, fault.Wrap(err, fault.SchemaUnfollowable, spec.Table.String(), "its columns cannot be written as %s", l.Format)
		}
	}
	return []string{l.folder(spec.Table)}, nil
}

// Look is that of Lake for files.
func (l *Files) Look(ctx context.Context, spec Spec) error {
	t := &filesTable{lake: l, spec: spec, folder: l.folder(spec.Table)}
	if err := t.load(ctx); err != nil || t.last == nil {
		return err
	}
	return t.checkOwner()
}

func (l *Files) noCurrent(t *change.Table) error {
	return fault.New(fault.ConfigInvalid, "run.keep", "%s: change files hold the history, not the latest state", t).
		WithMend("Set run.keep to history, or lake.target to iceberg.")
}
