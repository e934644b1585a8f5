package lake

import (
	"fmt"
	"math"

	"github.com/apache/iceberg-go"
	"github.com/google/uuid"
)

// partitionSummary gathers what a list of manifests tells of a partition field's values in a manifest.
type partitionSummary struct {
	field         iceberg.NestedField
	null, nan     bool
	lowest, upper iceberg.Literal // nil without any
}

// add takes the value of a file; nil is null.
func (p *partitionSummary) add(value any) error {
	if _, unknown := p.field.Type.(iceberg.UnknownType); unknown || value == nil { // of a column that is gone no value is kept
		p.null = true
		return nil
	}
	v, ok := partitionLiteral(value)
	if !ok {
		return fmt.Errorf("the partition %s has a value of type %T", p.field.Name, value)
	}
	if as, err := v.To(p.field.Type); err == nil { // one that was written before the column's type was widened
		v = as
	}
	switch f := v.Any().(type) {
	case float32:
		p.nan = p.nan || math.IsNaN(float64(f))
		if math.IsNaN(float64(f)) {
			return nil
		}
	case float64:
		p.nan = p.nan || math.IsNaN(f)
		if math.IsNaN(f) {
			return nil
		}
	}
	if p.lowest == nil {
		p.lowest, p.upper = v, v
		return nil
	}
	below, ok := compareLiterals(v, p.lowest)
	above, _ := compareLiterals(v, p.upper)
	if !ok {
		return fmt.Errorf("the partition %s has values of types %s and %s", p.field.Name, v.Type(), p.lowest.Type())
	}
	if below < 0 {
		p.lowest = v
	}
	if above > 0 {
		p.upper = v
	}
	return nil
}

func (p *partitionSummary) summary() (s iceberg.FieldSummary, err error) {
	s = iceberg.FieldSummary{ContainsNull: p.null, ContainsNaN: &p.nan}
	if p.lowest == nil {
		return s, nil
	}
	lower, err := p.lowest.MarshalBinary()
	if err != nil {
		return s, err
	}
	upper, err := p.upper.MarshalBinary()
	s.LowerBound, s.UpperBound = &lower, &upper
	return s, err
}

// partitionLiteral is the value of a partition as the library gives it from a manifest, or as a transform gave it.
func partitionLiteral(value any) (iceberg.Literal, bool) {
	switch v := value.(type) {
	case iceberg.Literal:
		return v, true
	case bool:
		return iceberg.BoolLiteral(v), true
	case int32:
		return iceberg.Int32Literal(v), true
	case int64:
		return iceberg.Int64Literal(v), true
	case float32:
		return iceberg.Float32Literal(v), true
	case float64:
		return iceberg.Float64Literal(v), true
	case string:
		return iceberg.StringLiteral(v), true
	case []byte:
		return iceberg.BinaryLiteral(v), true
	case iceberg.Date:
		return iceberg.DateLiteral(v), true
	case iceberg.Time:
		return iceberg.TimeLiteral(v), true
	case iceberg.Timestamp:
		return iceberg.TimestampLiteral(v), true
	case iceberg.TimestampNano:
		return iceberg.TimestampNsLiteral(v), true
	case uuid.UUID:
		return iceberg.UUIDLiteral(v), true
	case iceberg.Decimal:
		return iceberg.DecimalLiteral(v), true
	}
	return nil, false
}

// compareLiterals compares two literals; false where they are of different types.
func compareLiterals(a, b iceberg.Literal) (int, bool) {
	switch a := a.(type) {
	case iceberg.TypedLiteral[bool]:
		return compareTyped(a, b)
	case iceberg.TypedLiteral[int32]:
		return compareTyped(a, b)
	case iceberg.TypedLiteral[int64]:
		return compareTyped(a, b)
	case iceberg.TypedLiteral[float32]:
		return compareTyped(a, b)
	case iceberg.TypedLiteral[float64]:
		return compareTyped(a, b)
	case iceberg.TypedLiteral[string]:
		return compareTyped(a, b)
	case iceberg.TypedLiteral[[]byte]:
		return compareTyped(a, b)
	case iceberg.TypedLiteral[iceberg.Date]:
		return compareTyped(a, b)
	case iceberg.TypedLiteral[iceberg.Time]:
		return compareTyped(a, b)
	case iceberg.TypedLiteral[iceberg.Timestamp]:
		return compareTyped(a, b)
	case iceberg.TypedLiteral[iceberg.TimestampNano]:
		return compareTyped(a, b)
	case iceberg.TypedLiteral[uuid.UUID]:
		return compareTyped(a, b)
	case iceberg.TypedLiteral[iceberg.Decimal]:
		return compareTyped(a, b)
	}
	return 0, false
}

func compareTyped[T iceberg.LiteralType](a iceberg.TypedLiteral[T], b iceberg.Literal) (int, bool) {
	as, ok := b.(iceberg.TypedLiteral[T])
	if !ok {
		return 0, false
	}
	return a.Comparator()(a.Value(), as.Value()), true
}
