package lake_test

import (
	"bytes"
	"compress/gzip"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/lake"
)

func packed(t *testing.T, text string) string {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestAFolderIsATableWhenItsMetadataSaysSo(t *testing.T) {
	t.Parallel()
	const meta = `{"snapshots":[{"a":{"b":[1]}}],"format-version":2,"location":"s3://lake/t"}`
	for name, c := range map[string]struct {
		files map[string]string
		want  bool
	}{
		"counted":                       {map[string]string{"v1.metadata.json": meta}, true},
		"of a catalog":                  {map[string]string{"00003-x.metadata.json": meta}, true},
		"packed":                        {map[string]string{"00003-x.gz.metadata.json": packed(t, meta)}, true},
		"by its hint":                   {map[string]string{"v2.metadata.json": meta, "version-hint.text": "2"}, true},
		"whose newest version is torn":  {map[string]string{"v1.metadata.json": meta, "v2.metadata.json": meta[:40], "version-hint.text": "2"}, true},
		"beside another's file":         {map[string]string{"00003-x.metadata.json": meta, "00009-beach.metadata.json": `{"camera":"x"}`}, true},
		"with another name":             {map[string]string{"img.metadata.json": meta}, false},
		"with a hint alone":             {map[string]string{"version-hint.text": "1"}, false},
		"of pictures":                   {map[string]string{"v1.metadata.json": `{"format-version":"2","location":{"lat":1}}`}, false},
		"with its fields further below": {map[string]string{"v1.metadata.json": `{"a":` + meta + `}`}, false},
		"of lists":                      {map[string]string{"v1.metadata.json": `[` + meta + `]`}, false},
		"of no JSON":                    {map[string]string{"v1.metadata.json": "\x00\x01"}, false},
		"of bad gzip":                   {map[string]string{"v1.metadata.json": "\x1f\x8bno"}, false},
		"without files":                 {nil, false},
	} {
		for _, root := range []string{"", "a/t"} {
			b, err := bucket.Open(t.Context(), "mem://", bucket.Options{})
			if err != nil {
				t.Fatal(err)
			}
			folder := "metadata/"
			if root != "" {
				folder = root + "/metadata/"
			}
			for file, text := range c.files {
				if _, err := bucket.WriteAll(t.Context(), b, folder+file, []byte(text), bucket.WriteOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			if is, err := lake.IsTable(t.Context(), b, root); err != nil || is != c.want {
				t.Errorf("a folder %s, at %q: %v, %v", name, root, is, err)
			}
		}
	}
}

// A key that no table has is asked about too, because data lies in folders of any name.
func TestAFolderOfAnOddNameIsNoTable(t *testing.T) {
	t.Parallel()
	b, err := bucket.Open(t.Context(), "mem://", bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{"x\x01y", "d/", "..", "bytes\xff", strings.Repeat("q", 1005)} {
		if is, err := lake.IsTable(t.Context(), b, root); err != nil || is {
			t.Errorf("%.20q: %v, %v", root, is, err)
		}
	}
}
