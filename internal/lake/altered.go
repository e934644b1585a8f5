package lake

import (
	"context"
	"slices"
	"strings"

	"github.com/apache/iceberg-go"

	"github.com/leatdata/leat/internal/fault"
)

// checkAltered finds columns that another program has renamed or dropped in the lake: leat knows a column by its field, and rows go by its
// name. With Spec.Repair renamed ones get their names back.
func (t *lakeTable) checkAltered(ctx context.Context, ice *icebergTable) error {
	columns, err := ice.columnsHeld()
	if err != nil {
		return err
	}
	schema := ice.now().Schema()
	fields := slices.Clone(schema.Fields())
	var changes, undo []string
	for _, c := range columns {
		i := slices.IndexFunc(fields, func(f iceberg.NestedField) bool { return f.ID == c.Field })
		switch {
		case i < 0:
			return ice.altered("column "+c.Name+" was dropped", "Drop the table in the lake, and copy it again")
		case fields[i].Name != c.Name:
			changes = append(changes, "column "+c.Name+" is called "+fields[i].Name)
			undo = append(undo, "RENAME COLUMN "+fields[i].Name+" TO "+c.Name)
			fields[i].Name = c.Name
		}
	}
	if err := t.checkSystem(ice); err != nil || len(changes) == 0 {
		return err
	}
	if !t.spec.Repair {
		return ice.altered(strings.Join(changes, ", "), "Rename back in the lake ("+strings.Join(undo, ", ")+"), or let leat do so and copy the table again")
	}
	t.lake.Log.Warn("columns that another program has renamed in the lake get their names back", "table", ice.where(), "renamed", strings.Join(changes, ", "))
	back := iceberg.NewSchemaWithIdentifiers(0, schema.IdentifierFieldIDs, fields...)
	return ice.commit(ctx, delta{staged: &staged{schemas: []*iceberg.Schema{back}, columns: columns, source: ice.property(propSource)}})
}

// checkSystem finds columns of the history's own that are not there any more.
func (t *lakeTable) checkSystem(ice *icebergTable) error {
	if ice.kind != kindHistory {
		return nil
	}
	system, err := profileColumns(t.lake.Profile)
	if err != nil {
		return err
	}
	for _, c := range system {
		if _, ok := ice.now().Schema().FindFieldByName(c.field.Name); !ok {
			return ice.altered("column "+c.field.Name+" was renamed or dropped, or lake.profile was another one", "Rename it back in the lake, or drop the table there and copy it again")
		}
	}
	return nil
}

func (t *icebergTable) altered(what, hint string) error {
	return fault.New(fault.LakeAltered, t.where(), "another program has changed the table's definition in the lake: %s", what).
		WithMend("%s: leat resync --table %s.", hint, fault.Shell(t.property(propSource)))
}
