package mirror_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/lake"
	"github.com/leatdata/leat/internal/mirror"
	"github.com/leatdata/leat/internal/testlab"
)

// relocating has the lake look for tables and rewrite them.
type relocating struct{ from, to bucket.Bucket }

func (l relocating) Is(ctx context.Context, root string) (bool, error) {
	is, err := lake.IsTable(ctx, l.from, root)
	if err == nil && !is {
		err = lake.NotDamaged(ctx, l.from, l.to, root)
	}
	return is, err
}

func (l relocating) Relocate(ctx context.Context, root string, files mirror.Files) (bool, error) {
	r := &lake.Relocation{From: l.from, To: l.to, FromURL: l.from.Properties().URL, ToURL: l.to.Properties().URL, Root: root, Read: files.Read, Carry: files.Carry}
	done, err := r.Run(ctx)
	return !done.Nothing(), err
}

func (l relocating) Brought(ctx context.Context, root string) (func(string) bool, error) {
	r := &lake.Relocation{From: l.from, To: l.to, FromURL: l.from.Properties().URL, ToURL: l.to.Properties().URL, Root: root}
	return r.Brought(ctx)
}

// bareTable is a version of a table of the source that has no snapshot yet.
func bareTable(rows int) []byte {
	return fmt.Appendf(nil, `{"format-version":2,"table-uuid":"u","location":"s3://any/app/t","last-sequence-number":%d,"properties":{}}`, rows)
}

func TestADamagedTableLeavesTheTargetsTableAsItWas(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(near *testlab.AnyKeyStore){
		"torn metadata": func(near *testlab.AnyKeyStore) { near.Put("app/t/metadata/00000-a.metadata.json", bareTable(1)[:40]) },
		"an empty file": func(near *testlab.AnyKeyStore) { near.Put("app/t/metadata/00000-a.metadata.json", nil) },
		"another name's file": func(near *testlab.AnyKeyStore) {
			near.Remove("app/t/metadata/00000-a.metadata.json")
			near.Put("app/t/metadata/00001-b.metadata.json", []byte("{"))
		},
		"no version, and manifests": func(near *testlab.AnyKeyStore) { near.Remove("app/t/metadata/00000-a.metadata.json") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near, far := testlab.AnyKey(t, 1000), testlab.AnyKey(t, 1000)
			near.Put("app/t/metadata/00000-a.metadata.json", bareTable(1))
			near.Put("app/t/metadata/m.avro", []byte("Obj"))
			near.Put("app/plain", []byte("1"))
			from, to := open(t, near.Store, "app"), open(t, far.Store, "copy")
			with := func(o *mirror.Options) { o.Tables, o.Delete, o.MaxDeleteShare = relocating{from, to}, true, 100 }
			r, _, err := run(t, from, to, with)
			must(t, err)
			good := string(far.Data("copy/t/metadata/00000-a.metadata.json"))
			if r.Tables != 1 || !strings.Contains(good, "s3://any/copy/t") {
				t.Fatalf("%d tables, metadata %s", r.Tables, good)
			}
			damage(near)
			near.Put("app/plain", []byte("2"))
			r, _, err = run(t, from, to, with)
			if !fault.Is(err, fault.MirrorIncomplete) || r.FailedBy[fault.LakeFailed] == 0 || r.Deleted != 0 || string(far.Data("copy/plain")) != "2" {
				t.Errorf("%v: failed by %v, deleted %d, plain %q", err, r.FailedBy, r.Deleted, far.Data("copy/plain"))
			}
			if now := string(far.Data("copy/t/metadata/00000-a.metadata.json")); now != good || string(far.Data("copy/t/metadata/version-hint.text")) != "00000-a" {
				t.Errorf("the target's metadata is %s, its pointer %q", now, far.Data("copy/t/metadata/version-hint.text"))
			}
			if far.Data("copy/t/metadata/m.avro") != nil {
				t.Error("a manifest came as it was")
			}
		})
	}
}

func TestATableThatIsGoneIsDeletedAndItsFolderMayBePlainThen(t *testing.T) {
	t.Parallel()
	near, far := testlab.AnyKey(t, 1000), testlab.AnyKey(t, 1000)
	near.Put("app/t/metadata/00000-a.metadata.json", bareTable(1))
	near.Put("app/z", []byte("1"))
	from, to := open(t, near.Store, "app"), open(t, far.Store, "copy")
	with := func(o *mirror.Options) { o.Tables, o.Delete, o.MaxDeleteShare = relocating{from, to}, true, 100 }
	_, _, err := run(t, from, to, with)
	must(t, err)
	near.Remove("app/t/metadata/00000-a.metadata.json")
	r, _, err := run(t, from, to, with)
	if must(t, err); r.Deleted != 2 {
		t.Errorf("%d objects deleted", r.Deleted)
	}
	near.Put("app/t/metadata/v1.metadata.json", []byte(`{"camera":"x"}`))
	_, _, err = run(t, from, to, with)
	if must(t, err); string(far.Data("copy/t/metadata/v1.metadata.json")) != `{"camera":"x"}` {
		t.Errorf("the plain file is %q", far.Data("copy/t/metadata/v1.metadata.json"))
	}
}

func TestWhatIsRewrittenForATableIsComparedWithTheSource(t *testing.T) {
	t.Parallel()
	const key = "app/t/metadata/v1.metadata.json"
	// changed answers with other bytes of the same length, or shorter ones.
	changed := func(head func(http.Header), edit func(string) string) testlab.Answer {
		return func(w http.ResponseWriter, r *http.Request, up http.Handler) {
			whole := httptest.NewRecorder()
			up.ServeHTTP(whole, r)
			for name, values := range whole.Header() {
				w.Header()[name] = values
			}
			text := edit(whole.Body.String())
			w.Header().Set("Content-Length", fmt.Sprint(len(text)))
			if head != nil {
				head(w.Header())
			}
			w.WriteHeader(whole.Code)
			_, _ = w.Write([]byte(text))
		}
	}
	digit := func(s string) string {
		return strings.Replace(s, `"last-sequence-number":7`, `"last-sequence-number":8`, 1)
	}
	get := of(http.MethodGet, "/"+key)
	for name, c := range map[string]struct {
		script testlab.Script
		fine   bool
	}{
		"another digit at every reading": {testlab.Always(get, changed(nil, digit)), false},
		"another digit, and no ETag":     {testlab.Always(get, changed(func(h http.Header) { h.Del("Etag") }, digit)), false},
		"more bytes":                     {testlab.Always(get, changed(nil, func(s string) string { return strings.Replace(s, `"properties":{}`, `"properties":{ }`, 1) })), false},
		"another digit for a moment":     {testlab.Times(2, get, changed(nil, digit)), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near, far := testlab.AnyKey(t, 1000), testlab.AnyKey(t, 1000)
			near.Put(key, bareTable(7))
			near.Put("app/z", []byte("1"))
			from, to := open(t, testlab.FaultyS3(t, near.Store, c.script).Store, "app"), open(t, far.Store, "copy")
			r, _, err := run(t, from, to, func(o *mirror.Options) { o.Tables = relocating{from, to} })
			if (err == nil) != c.fine || !c.fine && r.FailedBy[fault.ChecksumMismatch] != 1 {
				t.Errorf("%v: failed by %v", err, r.FailedBy)
			}
			got := string(far.Data("copy/t/metadata/v1.metadata.json"))
			if c.fine != strings.Contains(got, `"last-sequence-number":7`) || strings.Contains(got, `"last-sequence-number":8`) {
				t.Errorf("the target has %q", got)
			}
		})
	}
}

func TestWhatIsNoFileOfATableIsCarriedFromItsDataFolder(t *testing.T) {
	t.Parallel()
	near, far := testlab.AnyKey(t, 1000), testlab.AnyKey(t, 1000)
	near.Put("app/t/metadata/00000-a.metadata.json", bareTable(1))
	for _, key := range []string{"data/important.csv", "data/sub/data/notes.txt", "data/orphan.parquet", "data/.orphan.parquet.crc", "data/_SUCCESS"} {
		near.Put("app/t/"+key, []byte(key))
	}
	from, to := open(t, near.Store, "app"), open(t, far.Store, "copy")
	with := func(o *mirror.Options) { o.Tables, o.Delete, o.MaxDeleteShare = relocating{from, to}, true, 100 }
	r, _, err := run(t, from, to, with)
	if must(t, err); r.LeftOut[fault.ObjectOrphan] != 3 {
		t.Errorf("left out: %v", r.LeftOut)
	}
	for key, want := range map[string]string{
		"data/important.csv": "data/important.csv", "data/sub/data/notes.txt": "data/sub/data/notes.txt", "data/orphan.parquet": "", "data/.orphan.parquet.crc": "", "data/_SUCCESS": "",
	} {
		if got := string(far.Data("copy/t/" + key)); got != want {
			t.Errorf("%s is %q at the target, want %q", key, got, want)
		}
	}
	near.Remove("app/t/data/important.csv")
	_, _, err = run(t, from, to, with)
	must(t, err)
	if got := far.Data("copy/t/data/important.csv"); got != nil {
		t.Errorf("what the source has no more is still %q", got)
	}
}
