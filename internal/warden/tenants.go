package warden

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/leatdata/leat/internal/bucket"
)

// Consent names the rules that may be made although the bucket holds what is not leat's: "encryption", "versioning", "lifecycle",
// "public-block".
type Consent []string

// Consents are all names of a [Consent].
var Consents = []string{"encryption", "versioning", "lifecycle", "public-block"}

// written are the keys that dumps write (docs/FORMAT.md): below a folder that has a manifest. Tables of a lake are not among them: no rule
// may remove their files one by one.
var written = regexp.MustCompile(`^(\d{4}-\d{2}-\d{2}(?:T\d{6}Z)?)/(manifest\.json|[^/]+(?:/\d{5}-\d{2})?\.(?:parquet|avro|csv|csv\.gz|jsonl|jsonl\.gz))$`)

// tenants is what a bucket held before anything was changed.
type tenants struct {
	objects, bytes int64 // below the path
	others         int64 // of these, those outside of leat's layout
	example        string
	beside         []string  // keys and folders beside the path
	old            int64     // objects that the rules would remove at once
	oldest         time.Time // when the oldest object was written
	rules          []string  // of the lifecycle that are not leat's
	err            error     // what kept us from looking
}

// look looks through the whole path, once.
func (b *builder) look() *tenants {
	if b.seen != nil {
		return b.seen
	}
	t := &tenants{}
	b.seen = t
	limit := b.now().AddDate(0, 0, -b.rules.ExpireDays)
	var folder dumpFolder
	for o, err := range b.k.List(b.ctx, "") {
		if err != nil {
			t.err = err
			return t
		}
		t.objects++
		t.bytes += o.Size
		if b.rules.ExpireDays > 0 && o.Modified.Before(limit) {
			t.old++
		}
		if t.oldest.IsZero() || o.Modified.Before(t.oldest) {
			t.oldest = o.Modified
		}
		folder.next(t, o.Key)
	}
	folder.end(t)
	t.beside, t.err = b.k.Beside(b.ctx)
	if t.err == nil {
		t.rules, t.err = foreignRules(b.ctx, b.k)
	}
	return t
}

// dumpFolder gathers the objects of one folder that look like a dump's, until its manifest shows that they are.
type dumpFolder struct {
	name     string
	manifest bool
	waiting  int64
	first    string
}

func (f *dumpFolder) next(t *tenants, key string) {
	part := written.FindStringSubmatch(key)
	switch {
	case state(key):
	case part == nil:
		t.other(key, 1)
	default:
		if part[1] != f.name {
			f.end(t)
			*f = dumpFolder{name: part[1], first: key}
		}
		f.waiting++
		f.manifest = f.manifest || part[2] == "manifest.json"
	}
}

func (f *dumpFolder) end(t *tenants) {
	if !f.manifest && f.waiting > 0 {
		t.other(f.first, f.waiting)
	}
}

func (t *tenants) other(key string, n int64) {
	if t.others += n; t.example == "" {
		t.example = key
	}
}

// state says whether a key is of what leat keeps for its own work.
func state(key string) bool {
	for segment := range strings.SplitSeq(key, "/") {
		if segment == ".leat" || strings.HasPrefix(segment, ".leat-") {
			return true
		}
	}
	return false
}

// foreignRules are rules of the lifecycle that leat did not make.
func foreignRules(ctx context.Context, k bucket.Keeper) (names []string, err error) {
	rules, err := k.Expiries(ctx)
	if err != nil && !refused(err) {
		return nil, err
	}
	for _, r := range rules {
		if r.ID != "leat" && !strings.HasPrefix(r.ID, "leat-") {
			names = append(names, r.ID)
		}
	}
	return names, nil
}

// why says why a rule of the bucket is not made without consent; "" where nothing speaks against it.
func (t *tenants) why(rule string) string {
	wide := rule != "lifecycle" // it holds for what is beside the path too
	switch {
	case t.err != nil:
		return "it cannot be seen what the bucket holds (" + t.err.Error() + ")"
	case t.others > 0:
		return fmt.Sprintf("the bucket holds %s that leat did not write, such as %q", objects(t.others), t.example)
	case wide && len(t.beside) > 0:
		return fmt.Sprintf("the bucket holds other things than those below the path, such as %q", t.beside[0])
	case !wide && len(t.rules) > 0:
		return "the bucket's lifecycle has rules that leat did not make: " + some(t.rules)
	}
	return ""
}

// withheld is the step for a rule that is not made without consent; ok where it may be made.
func (b *builder) withheld(rule, what string) (s Step, held bool) {
	for _, name := range b.consent {
		if name == rule {
			return s, false
		}
	}
	why := b.look().why(rule)
	if why == "" {
		return s, false
	}
	return Step{
		Rule: rule, Did: Withheld, What: fmt.Sprintf("not set, because %s. It would mean: %s", why, what),
		Mend: fmt.Sprintf("If it is meant, add --allow %s; else name a bucket for leat alone.", rule),
	}, true
}

// losses says what a lifecycle would remove, and when first.
func (b *builder) losses(days int) string {
	t := b.look()
	switch {
	case t.err != nil || t.objects == 0 || days == 0:
		return ""
	case t.old > 0:
		return fmt.Sprintf("; of %s (%d bytes), %d are older and go at once", objects(t.objects), t.bytes, t.old)
	}
	return fmt.Sprintf("; of %s (%d bytes), the first goes on %s", objects(t.objects), t.bytes, t.oldest.AddDate(0, 0, days+1).UTC().Format(time.DateOnly))
}

func objects(n int64) string {
	if n == 1 {
		return "1 object"
	}
	return fmt.Sprintf("%d objects", n)
}
