package lake_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/lake"
)

// Which version of a table a folder holds, where its files tell more than one story. They are written in the order given.
func TestTheVersionThatAFolderHoldsIsTheOneThatWasWrittenToLast(t *testing.T) {
	t.Parallel()
	meta := func(uuid string, updated int) string {
		return fmt.Sprintf(`{"format-version":2,"location":"mem://a/t","table-uuid":%q,"last-updated-ms":%d,"snapshots":[]}`, uuid, updated)
	}
	for name, c := range map[string]struct {
		files []string // names and contents
		want  string   // the hint at the target
	}{
		"a table that replaced another":      {[]string{"00007-a.metadata.json", meta("one", 1), "00000-b.metadata.json", meta("two", 2)}, "00000-b"},
		"one that was restored later":        {[]string{"00000-b.metadata.json", meta("two", 1), "00007-a.metadata.json", meta("one", 2)}, "00007-a"},
		"one whose older files came last":    {[]string{"00007-a.metadata.json", meta("one", 2), "00000-b.metadata.json", meta("two", 1)}, "00007-a"},
		"one table":                          {[]string{"00007-a.metadata.json", meta("one", 2), "00000-b.metadata.json", meta("one", 3)}, "00007-a"},
		"a file of which nothing is known":   {[]string{"00007-a.metadata.json", meta("one", 2), "00000-b.metadata.json", "{"}, "00007-a"},
		"packed versions behind the hint":    {[]string{"version-hint.text", "1", "v1.metadata.json", meta("one", 1), "v2.gz.metadata.json", packed(t, meta("one", 2))}, "2"},
		"packed versions, named otherwise":   {[]string{"version-hint.text", "1", "v1.metadata.json", meta("one", 1), "v2.metadata.json.gz", packed(t, meta("one", 2))}, "2"},
		"a packed table that replaced one":   {[]string{"00007-a.metadata.json", meta("one", 1), "00000-b.gz.metadata.json", packed(t, meta("two", 2))}, "00000-b.gz"},
		"plain versions from the hint on":    {[]string{"version-hint.text", "2", "v2.metadata.json", meta("one", 1), "v3.metadata.json", meta("one", 2)}, "3"},
		"a hint that leads nowhere, counted": {[]string{"version-hint.text", "9", "v2.metadata.json", meta("one", 1), "v3.metadata.json", meta("one", 2)}, "3"},
	} {
		from, err := bucket.Open(t.Context(), "mem://", bucket.Options{})
		if err != nil {
			t.Fatal(err)
		}
		to, err := bucket.Open(t.Context(), "mem://", bucket.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(c.files); i += 2 {
			if _, err := bucket.WriteAll(t.Context(), from, "t/metadata/"+c.files[i], []byte(c.files[i+1]), bucket.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		r := &lake.Relocation{From: from, To: to, FromURL: "mem://a", ToURL: "mem://b", Root: "t", Carry: func(context.Context, string, int64) error { return nil }}
		if _, err := r.Run(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		hint, err := bucket.ReadAll(t.Context(), to, "t/metadata/version-hint.text", 100)
		if err != nil || strings.TrimSpace(string(hint)) != c.want {
			t.Errorf("%s: the hint is %q, want %q; %v", name, hint, c.want, err)
		}
	}
}
