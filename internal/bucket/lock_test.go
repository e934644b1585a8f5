package bucket_test

import (
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
)

func TestALockIsRaisedAndNeverLowered(t *testing.T) {
	t.Parallel()
	const governance, compliance = "GOVERNANCE", "COMPLIANCE"
	soon := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	late := soon.Add(time.Second)
	lock := func(mode string, until time.Time) bucket.Lock { return bucket.Lock{Mode: mode, Until: until} }
	held := func(l bucket.Lock) bucket.Lock { l.Hold = true; return l }
	for name, c := range map[string]struct {
		is, to, more bucket.Lock
		whole        bool
	}{
		"none, and none":                     {lock("", time.Time{}), lock("", time.Time{}), bucket.Lock{}, true},
		"none, and one":                      {bucket.Lock{}, held(lock(governance, soon)), held(lock(governance, soon)), true},
		"the same":                           {held(lock(compliance, soon)), held(lock(compliance, soon)), bucket.Lock{}, true},
		"a longer one":                       {lock(governance, soon), lock(governance, late), lock(governance, late), true},
		"a shorter one":                      {lock(governance, late), lock(governance, soon), bucket.Lock{}, true},
		"a stricter one":                     {lock(governance, soon), lock(compliance, soon), lock(compliance, soon), true},
		"a stricter one that is shorter":     {lock(governance, late), lock(compliance, soon), bucket.Lock{}, false},
		"one less strict":                    {lock(compliance, late), lock(governance, soon), bucket.Lock{}, true},
		"one less strict that is longer":     {lock(compliance, soon), lock(governance, late), bucket.Lock{}, false},
		"a hold beside one":                  {lock(governance, late), held(lock(governance, soon)), held(bucket.Lock{}), true},
		"a hold beside one that cannot be":   {lock(compliance, soon), held(lock(governance, late)), held(bucket.Lock{}), false},
		"a hold alone":                       {lock(governance, late), held(bucket.Lock{}), held(bucket.Lock{}), true},
		"no hold any more":                   {held(lock(governance, soon)), lock(governance, late), lock(governance, late), true},
		"none any more":                      {held(lock(governance, soon)), bucket.Lock{}, bucket.Lock{}, true},
		"one whose end is not known":         {lock(governance, soon), lock(governance, time.Time{}), bucket.Lock{}, false},
		"one of an unknown mode":             {lock("", time.Time{}), lock("FOREVER", late), bucket.Lock{}, false},
		"one for one whose end is not known": {lock(governance, time.Time{}), lock(governance, late), bucket.Lock{}, false},
		"one for one of an unknown mode":     {lock("FOREVER", soon), lock(compliance, late), bucket.Lock{}, false},
	} {
		if more, whole := c.is.Raise(c.to); more != c.more || whole != c.whole {
			t.Errorf("%s: %+v, %v", name, more, whole)
		}
	}
}

func TestARetentionEndsOnlyWhereItsEndIsKnown(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		is, at bucket.Lock
		holds  bool
	}{
		"one that goes on":        {bucket.Lock{Mode: "GOVERNANCE", Until: now.Add(1)}, bucket.Lock{Mode: "GOVERNANCE", Until: now.Add(1)}, true},
		"one that is over":        {bucket.Lock{Mode: "GOVERNANCE", Until: now}, bucket.Lock{}, false},
		"one over, and a hold":    {bucket.Lock{Mode: "COMPLIANCE", Until: now, Hold: true}, bucket.Lock{Hold: true}, true},
		"one without a known end": {bucket.Lock{Mode: "GOVERNANCE"}, bucket.Lock{Mode: "GOVERNANCE"}, true},
		"none":                    {bucket.Lock{}, bucket.Lock{}, false},
	} {
		if at := c.is.At(now); at != c.at || c.is.Holds(now) != c.holds {
			t.Errorf("%s: %+v, %v", name, at, c.is.Holds(now))
		}
	}
}
