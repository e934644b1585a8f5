package warden

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/fault"
)

// Consent names the rules that may be made although the bucket holds what is not leat's: "encryption", "versioning", "lifecycle",
// "public-block".
type Consent []string

// Consents are all names of a [Consent].
var Consents = []string{"encryption", "versioning", "lifecycle", "public-block"}

// dated begins the keys that dumps write (docs/FORMAT.md): below a folder that has a manifest. Tables of a lake are not among them: no rule
// may remove their files one by one.
var dated = regexp.MustCompile(`^(\d{4}-\d{2}-\d{2}(?:T\d{6}Z)?)/`)

// tenants is what a bucket held before anything was changed.
type tenants struct {
	objects, bytes int64 // below the path
	others         int64 // of these, those outside of leat's layout
	example        string
	versions       int64     // that were replaced or deleted and can be had back; others counts them too
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
		if err == nil {
			err = folder.judge(b, t, o.Key)
		}
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
	}
	if t.err = b.lookBack(t); t.err != nil {
		return t
	}
	t.beside, t.err = b.k.Beside(b.ctx)
	if t.err == nil {
		t.rules, t.err = foreignRules(b.ctx, b.k)
	}
	return t
}

// lookBack looks through what was replaced or deleted in a bucket with versions: the life cycle removes that too.
func (b *builder) lookBack(t *tenants) error {
	if status, err := b.k.Versioning(b.ctx); err != nil || status == "" {
		return nil //nolint:nilerr // a server that does not tell of versions gets no rule for them
	}
	var folder dumpFolder
	for o, err := range b.k.OldVersions(b.ctx) {
		if err == nil {
			err = folder.judge(b, t, o.Key)
		}
		if err != nil {
			return err
		}
		t.versions++
	}
	return nil
}

// dumpFolder is the folder of a dump: what its manifest names is leat's.
type dumpFolder struct {
	name  string
	names map[string]bool
}

// judge says whose an object is. Keys come in order, so a manifest is read once.
func (f *dumpFolder) judge(b *builder, t *tenants, key string) error {
	part := dated.FindStringSubmatch(key)
	switch {
	case state(key):
		return nil
	case part == nil:
		t.other(key)
		return nil
	case part[1] != f.name:
		f.name, f.names = part[1], map[string]bool{}
		m, err := dump.ReadManifest(b.ctx, b.k, f.name)
		switch {
		case fault.Is(err, fault.ObjectMissing), fault.Is(err, fault.BucketFailed), fault.Is(err, fault.BucketUnsupported): // none of leat's
		case err != nil:
			return err
		case m.Tool.Name == "leat":
			f.names[dump.ManifestKey(f.name)] = true
			for _, table := range m.Tables {
				for _, file := range table.Files {
					f.names[f.name+"/"+strings.TrimPrefix(file.Key, m.Folder+"/")] = true
				}
			}
		}
	}
	if !f.names[key] {
		t.other(key)
	}
	return nil
}

func (t *tenants) other(key string) {
	if t.others++; t.example == "" {
		t.example = key
	}
}

// state says whether a key is of what leat keeps for its own work.
func state(key string) bool {
	return strings.HasPrefix(key, ".leat/") || strings.HasPrefix(key, ".leat-")
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
	if t.err != nil || days == 0 {
		return ""
	}
	said := ""
	switch {
	case t.old > 0:
		said = fmt.Sprintf("; of %s (%d bytes), %d are older and go at once", objects(t.objects), t.bytes, t.old)
	case t.objects > 0:
		said = fmt.Sprintf("; of %s (%d bytes), the first goes on %s", objects(t.objects), t.bytes, t.oldest.AddDate(0, 0, days+1).UTC().Format(time.DateOnly))
	}
	if t.versions > 0 {
		said += fmt.Sprintf("; %d replaced or deleted versions go after 1 day", t.versions)
	}
	return said
}

func objects(n int64) string {
	if n == 1 {
		return "1 object"
	}
	return fmt.Sprintf("%d objects", n)
}
