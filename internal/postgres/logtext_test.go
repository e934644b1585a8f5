package postgres

import (
	"math/big"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
)

func TestDatesAreCountedAsTheCalendarDoes(t *testing.T) {
	t.Parallel()
	epoch := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	for day := epoch.AddDate(-2400, 0, 0); day.Year() < 2500; day = day.AddDate(0, 0, 17) {
		want := (day.Unix() - epoch.Unix()) / 86400
		if got := daysOf(int64(day.Year()), int64(day.Month()), int64(day.Day())); got != want {
			t.Fatalf("%s is day %d, not %d", day, got, want)
		}
	}
}

func TestTimesAreReadInAnyZone(t *testing.T) {
	t.Parallel()
	c := newColumn(bounded[1184](Policies{}))
	for text, want := range map[string]string{
		"2026-11-21 09:45:00+00": "2026-11-21T09:45:00Z", "2026-11-21 09:45:00.5+05:30": "2026-11-21T04:15:00.5Z",
		"1883-11-18 12:00:00-04:56:02": "1883-11-18T16:56:02Z", "2026-11-21 09:45:00.123456-01": "2026-11-21T10:45:00.123456Z",
	} {
		c.reset()
		if err := c.appendText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if got := time.UnixMicro(arrow.Int64Traits.CastFromBytes(c.data)[0]).UTC().Format(time.RFC3339Nano); got != want {
			t.Errorf("%s is %s, not %s", text, got, want)
		}
	}
	for _, text := range []string{"", "2026", "2026-11-21", "2026-11-21 09:45", "2026-13-21 09:45:00", "2026-11-21 09:45:00 ", "2026-11-21 09:45:00.1234567", "21.11.2026 09:45:00"} {
		if err := c.appendText([]byte(text)); err == nil {
			t.Errorf("%q was read as a timestamp", text)
		}
	}
}

// Numbers of every length around the ends of a word, with every scale, against arithmetic without ends.
func TestDecimalsAreReadDigitForDigit(t *testing.T) {
	t.Parallel()
	for digits := 1; digits <= 38; digits++ {
		for scale := range digits + 1 {
			whole := "9876543210987654321098765432109876543210"[:digits-scale]
			text := whole + "." + "1234567890123456789012345678901234567890"[:scale]
			want, _ := new(big.Int).SetString(whole+text[len(whole)+1:], 10)
			if scale == 0 {
				text = whole
			}
			if whole == "" {
				text = "0" + text
			}
			c := newColumn(carrier{op: opDecimal, arrow: &arrow.Decimal128Type{Precision: int32(digits), Scale: int32(scale)}, precision: int32(digits), scale: int32(scale), policy: Fail})
			for _, sign := range []string{"", "-"} {
				if err := c.appendText([]byte(sign + text)); err != nil {
					t.Fatalf("%s: %v", text, err)
				}
			}
			if whole != "" {
				if err := c.appendText([]byte("1" + text)); err == nil {
					t.Fatalf("1%s was read as a decimal of %d digits", text, digits)
				}
			}
			values := arrow.Decimal128Traits.CastFromBytes(c.data)
			if values[0].BigInt().Cmp(want) != 0 || values[1].BigInt().Cmp(want.Neg(want)) != 0 {
				t.Fatalf("%s of scale %d is %v and %v", text, scale, values[0].BigInt(), values[1].BigInt())
			}
		}
	}
}

func TestMoneyIsReadWhateverTheLocaleWrites(t *testing.T) {
	t.Parallel()
	c := newColumn(carrier{op: opMoney, arrow: &arrow.Decimal128Type{Precision: 19, Scale: 2}})
	for text, want := range map[string]int64{
		"$1,234.56": 123456, "-$1,234.56": -123456, "($0.01)": -1, "1.234,56 €": 123456, "-1 234,56 €": -123456, "\u22121\u00a0234,56\u00a0kr": -123456,
		"-$92,233,720,368,547,758.08": -1 << 63, "$92,233,720,368,547,758.07": 1<<63 - 1, "$0.00": 0,
	} {
		c.reset()
		if err := c.appendText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if got := arrow.Decimal128Traits.CastFromBytes(c.data)[0].BigInt(); got.Cmp(big.NewInt(want)) != 0 {
			t.Errorf("%s is %v", text, got)
		}
	}
	if err := c.appendText([]byte("$")); err == nil {
		t.Error("no digits are money")
	}
}
