package postgres_test

import (
	"errors"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

func TestRowsAreNotReadByAPlanOfAnEarlierDefinition(t *testing.T) {
	t.Parallel()
	for name, alter := range map[string]string{
		"not altered":              "select",
		"another column was added": "alter table leat_t add w int",
		"dropped":                  "alter table leat_t drop v",
		"renamed":                  "alter table leat_t rename v to w",
		"two changed their names":  "alter table leat_t rename v to x; alter table leat_t rename u to v; alter table leat_t rename x to u",
		"another type":             "alter table leat_t alter v type varchar(9)",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := testlab.Postgres(t)
			db.Exec("create table leat_t (id int primary key, v text, u text); insert into leat_t values (1, 'a', 'b')")
			source := sourceOf(t, db)
			table := tablesOf(t, source, "leat")["leat_t"]
			catalog := source.Catalog()
			plan, err := catalog.Plan(t.Context(), table, postgres.Policies{})
			must(t, err)
			db.Exec(alter)
			b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int32}}, nil))
			defer b.Release()
			b.Field(0).(*array.Int32Builder).Append(1)
			keys := b.NewRecordBatch()
			defer keys.Release()
			rows, err := source.ReadKeys(t.Context(), plan, keys)
			if name == "not altered" || name == "another column was added" {
				must(t, err)
				defer rows.Release()
				if got := rowOf(rows, 0); got != "1 a b" {
					t.Errorf("read is %s", got)
				}
				return
			}
			if !errors.Is(err, postgres.ErrAltered) {
				t.Errorf("want that the table was altered, got %v", err)
			}
		})
	}
}
