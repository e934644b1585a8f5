package dump_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/testlab"
)

// dice are thrown anew each run; the log says how to throw them again.
func dice(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// randomNumeric has up to p digits, s of them after the point; zeros in the middle and at the ends are as frequent
// as the groups of four digits that PostgreSQL leaves out.
func randomNumeric(r *rand.Rand, p, s int) string {
	digits := make([]byte, p)
	for i := 0; i < p; {
		zeros, run := r.IntN(3) == 0, 1+r.IntN(9)
		for ; run > 0 && i < p; i, run = i+1, run-1 {
			if digits[i] = '0'; !zeros {
				digits[i] += byte(r.IntN(10))
			}
		}
	}
	sign := []string{"", "-"}[r.IntN(2)]
	return sign + "0" + string(digits[:p-s]) + "." + string(digits[p-s:]) + "0"
}

func TestRandomNumericsComeBackDigitForDigit(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	r := dice(t)
	const columns, rows = 40, 200
	types, lines := make([]string, columns), make([]string, rows)
	shape := make([][2]int, columns)
	for i := range types {
		p := 1 + r.IntN(38)
		shape[i] = [2]int{p, r.IntN(p + 1)}
		types[i] = fmt.Sprintf("c%d numeric(%d,%d)", i, p, shape[i][1])
	}
	for k := range lines {
		values := make([]string, columns)
		for i, ps := range shape {
			values[i] = randomNumeric(r, ps[0], ps[1])
		}
		lines[k] = "(" + strings.Join(values, ",") + ")"
	}
	db.Exec("create schema rnd; create table rnd.n (" + strings.Join(types, ",") + "); insert into rnd.n values " + strings.Join(lines, ","))
	comesBack(t, db)
}

// The moments are made by the server out of numbers, so that no code of ours writes dates on the way in.
func TestRandomDatesAndTimesComeBackOverTheWholeRange(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	r := dice(t)
	var lines []string
	for range 2000 {
		// Days since 2000-01-01: dates from 4714 BC to 5874897, timestamps to the end of 294246.
		day, moment := r.IntN(2145031949+2451545)-2451545, r.IntN(106741034+2451545)-2451544
		if r.IntN(2) == 0 {
			day, moment = r.IntN(1500000)-1200000, r.IntN(1500000)-1200000
		}
		lines = append(lines, fmt.Sprintf("(%d,%d,%d::bigint)", day, moment, r.Int64N(86400_000_000)))
	}
	db.Exec(`create schema rnd; set timezone = 'UTC'; create table rnd.moments as
		select date '2000-01-01' + day as d, timestamp '2000-01-01' + make_interval(days => moment) + i as ts,
		       timestamptz '2000-01-01 00:00:00+00' + make_interval(days => moment) + i as tstz, time '00:00' + i as t
		from (select day, moment, (us || ' microseconds')::interval as i from (values ` + strings.Join(lines, ",") + `) v(day, moment, us)) x`)
	comesBack(t, db)
}

func comesBack(t *testing.T, db *testlab.DB) {
	t.Helper()
	source := connect(t, db)
	for _, kind := range []format.Kind{format.Parquet, format.Avro, format.JSONL} {
		d := take(t, source, dump.Options{Format: kind, Selection: in("rnd")})
		newJudge(t, db).same(d, d.Tables[0])
		for _, c := range d.Tables[0].Columns {
			if kind.Typed() && c.Carried == "text" {
				t.Errorf("%s %s was carried as text, so nothing was tried", c.Name, c.Type)
			}
		}
	}
}
