package format

import (
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/leatdata/leat/internal/change"
)

// Form is a form in which readers meet the files.
type Form string

// The forms.
const (
	FormParquet   Form = "Parquet dump"
	FormIcebergV2 Form = "Iceberg v2"
	FormIcebergV3 Form = "Iceberg v3"
)

// Forms are all forms.
var Forms = []Form{FormParquet, FormIcebergV2, FormIcebergV3}

// Kinds of what readers differ in, beside the names of types. See KindOf.
const (
	KindAnyTable       = ""                        // every table of the form
	KindOldDate        = "date before 1582"        // values of a date
	KindOldTimestamptz = "timestamptz before 1900" // values of a timestamptz
)

// limit is something that a reader does not read.
type limit struct {
	reader string
	forms  []Form
	kind   string
	why    string
}

const rebase = "set spark.sql.parquet.datetimeRebaseModeInRead=CORRECTED"

// limits are what readers were seen not to read. TestFiltersFindTheRowsThatPostgreSQLFinds fails where one reads it by now.
var limits = []limit{
	{"spark", Forms, "time", "opens no table that has a time, not even for its other columns"},
	{"spark", []Form{FormParquet}, "uuid", "opens the files only with a schema given by hand, with the uuid as binary"},
	{"spark", []Form{FormParquet}, KindOldDate, "refuses dates before 1582-10-15: " + rebase},
	{"spark", []Form{FormParquet}, KindOldTimestamptz, "refuses moments before 1900: " + rebase},
	{"datafusion", []Form{FormIcebergV2, FormIcebergV3}, KindAnyTable, "has no reader of Iceberg of its own"},
	{"trino", []Form{FormParquet}, "uuid", "has no such type in its Hive connector; declare it as varbinary"},
	{"trino", []Form{FormParquet}, "time", "has no such type in its Hive connector"},
	{"trino", []Form{FormIcebergV3}, KindAnyTable, "knows no deletion vectors: set lake.format_version: 2"},
	{"clickhouse", []Form{FormIcebergV3}, KindAnyTable, "knows no deletion vectors: set lake.format_version: 2"},
}

// Readers are the programs that CannotRead knows.
var Readers = []string{"clickhouse", "datafusion", "duckdb", "polars", "pyarrow", "pyiceberg", "spark", "trino"}

// CannotRead says what a reader does where it cannot read a table in some form because of a kind of column; "" where nothing
// is known against it.
func CannotRead(reader string, form Form, kind string) string {
	for _, l := range limits {
		if l.reader == reader && l.kind == kind && slices.Contains(l.forms, form) {
			return l.why
		}
	}
	return ""
}

// KindOf is a column's kind: its type as far as readers differ in it. Lists are of the kind of their elements.
func KindOf(f arrow.Field) string {
	switch dt := f.Type.(type) {
	case *arrow.ListType:
		return KindOf(dt.ElemField())
	case *arrow.Time64Type:
		return "time"
	case *arrow.FixedSizeBinaryType:
		if change.Logical(f) == change.LogicalUUID {
			return "uuid"
		}
	}
	return strings.ToLower(f.Type.Name())
}
