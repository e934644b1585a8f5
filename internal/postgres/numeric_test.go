package postgres

import (
	"encoding/binary"
	"fmt"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/leatdata/leat/internal/fault"
)

// sentGroups is a number as numeric_send writes it.
func sentGroups(sign uint16, weight int, groups ...uint16) []byte {
	out := binary.BigEndian.AppendUint16(nil, uint16(len(groups)))
	out = binary.BigEndian.AppendUint16(out, uint16(weight))
	out = binary.BigEndian.AppendUint16(out, sign)
	out = binary.BigEndian.AppendUint16(out, 0) // the decimals that are shown decide nothing
	for _, g := range groups {
		out = binary.BigEndian.AppendUint16(out, g)
	}
	return out
}

// exactly is what the groups say, in units of the last place of the given scale, and the nearest whole number to it, a half away from zero.
func exactly(neg bool, weight int, groups []uint16, scale int32) (v *big.Rat, nearest *big.Int) {
	v = new(big.Rat)
	for _, g := range groups {
		v.Mul(v, big.NewRat(10000, 1))
		v.Add(v, big.NewRat(int64(g), 1))
	}
	power := func(n int) *big.Rat {
		return new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil))
	}
	if exp := 4*(weight-len(groups)+1) + int(scale); exp >= 0 {
		v.Mul(v, power(exp))
	} else {
		v.Quo(v, power(-exp))
	}
	half := new(big.Rat).Add(v, big.NewRat(1, 2))
	nearest = new(big.Int).Quo(half.Num(), half.Denom())
	if neg {
		v.Neg(v)
		nearest.Neg(nearest)
	}
	return v, nearest
}

// someGroups are groups of digits as numbers have them, or with zeros at the ends, which the server never sends.
func someGroups(r *rand.Rand) []uint16 {
	groups := make([]uint16, 1+r.IntN(12))
	for i := range groups {
		groups[i] = []uint16{uint16(r.IntN(10000)), uint16(r.IntN(10)), 0, 9999, 1, uint16(r.IntN(100) * 100), 5000}[r.IntN(7)]
	}
	if r.IntN(4) > 0 {
		groups[0] = max(groups[0], 1)
		groups[len(groups)-1] = max(groups[len(groups)-1], 1)
	}
	return groups
}

func decimalColumn(precision, scale int32, policy Policy) *column {
	return newColumn(carrier{op: opDecimal, arrow: &arrow.Decimal128Type{Precision: precision, Scale: scale}, precision: precision, scale: scale, policy: policy})
}

func TestNumericsAreWhatTheirGroupsSay(t *testing.T) {
	t.Parallel()
	const rounds = 60_000
	r := rand.New(rand.NewPCG(20, 26))
	fits, finer, larger := 0, 0, 0
	for range rounds {
		precision := int32(1 + r.IntN(maxDecimal128))
		scale := r.Int32N(precision + 1)
		groups, neg := someGroups(r), r.IntN(2) == 0
		weight := r.IntN(len(groups)+6) - 4
		sign := uint16(numericPos)
		if neg {
			sign = numericNeg
		}
		name := fmt.Sprintf("sign %#x, weight %d, groups %v as decimal(%d,%d)", sign, weight, groups, precision, scale)
		v, nearest := exactly(neg, weight, groups, scale)
		most := maxDecimals[precision]
		tooLarge := new(big.Int).Quo(new(big.Int).Abs(v.Num()), v.Denom()).CmpAbs(most) > 0
		failing, clamped := decimalColumn(precision, scale, Fail), decimalColumn(precision, scale, Clamp)
		err := failing.append(sentGroups(sign, weight, groups...))
		if e := clamped.append(sentGroups(sign, weight, groups...)); e != nil {
			t.Fatalf("%s: clamped it is %v", name, e)
		}
		want := nearest
		switch {
		case v.IsInt() && !tooLarge:
			fits++
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got := failing.array().(*array.Decimal128).Value(0).BigInt(); got.Cmp(want) != 0 {
				t.Fatalf("%s is %v, not %v", name, got, want)
			}
		case !v.IsInt():
			finer++
		default:
			larger++
		}
		if (err == nil) != (v.IsInt() && !tooLarge) || err != nil && !fault.Is(err, fault.ValueUncarriable) {
			t.Fatalf("%s: %v", name, err)
		}
		if want.CmpAbs(most) > 0 {
			want = new(big.Int).Mul(most, big.NewInt(int64(want.Sign())))
		}
		if got := clamped.array().(*array.Decimal128).Value(0).BigInt(); got.Cmp(want) != 0 {
			t.Fatalf("%s is %v clamped, not %v", name, got, want)
		}
	}
	if least := rounds / 20; fits < least || finer < least || larger < least {
		t.Fatalf("%d numbers fit, %d have more decimals, %d more digits: too few of a kind to tell", fits, finer, larger)
	}
}

func TestEachLastGroupIsCutAtItsDecimals(t *testing.T) {
	t.Parallel()
	for scale := range int32(5) {
		for g := range uint16(10000) {
			for _, head := range []uint16{1, 9999} {
				c := decimalColumn(18, scale, Null)
				if err := c.append(sentGroups(numericNeg, 0, head, g)); err != nil {
					t.Fatal(err)
				}
				v, nearest := exactly(true, 0, []uint16{head, g}, scale)
				a := c.array().(*array.Decimal128)
				if a.IsNull(0) == v.IsInt() || v.IsInt() && a.Value(0).BigInt().Cmp(nearest) != 0 {
					t.Fatalf("-%d.%04d of scale %d is %v", head, g, scale, a)
				}
			}
		}
	}
}
