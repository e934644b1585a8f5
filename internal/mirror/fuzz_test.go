package mirror_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/mirror"
)

// FuzzWhatAMirrorReads mirrors a place in which every file that a mirror reads has the same content: manifests of dumps and of change files, a
// table's metadata, hints, and at the target the records of earlier runs.
func FuzzWhatAMirrorReads(f *testing.F) {
	for _, text := range []string{
		`{"format_version":1,"folder":"2020-01-01","tables":[{"files":[{"key":"2020-01-01/a","bytes":1,"rows":1,"sha256":"00"},{"key":"../x","bytes":9}]}]}`,
		`{"format_version":1,"number":1,"files":[{"key":"x/data/a","bytes":1},{"key":"/","bytes":0},{"key":"x/../../y","bytes":2}]}`,
		`{"format-version":2,"location":"mem://t","snapshots":[{"snapshot-id":1,"manifest-list":"mem:///t/metadata/list.avro"}]}`,
		`{"version":1,"from":"mem://","to":"mem://","files":"AAAAAAAAAAAAAAAAAAAAAA=="}`,
		`{"format_version":1,"from":"s3://other","objects":-1,"same":null}`, "1", "v1", "Obj\x01",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		from, to := memory(t), memory(t)
		defer from.Close()
		defer to.Close()
		for _, key := range []string{
			"2020-01-01/a", "2020-01-01/manifest.json", "x/data/a", "x/_manifests/000000000001.json", "x/_manifests/latest", "t/metadata/v1.metadata.json",
			"t/metadata/list.avro", "t/metadata/version-hint.text", "u/metadata/00001-a.gz.metadata.json", "u/data/d.parquet", "plain",
		} {
			_, err := bucket.WriteAll(t.Context(), from, key, data, bucket.WriteOptions{})
			must(t, err)
		}
		for _, key := range []string{".leat/relocated/t.json", ".leat/mirror/fuzz.json", ".leat/mirror/fuzz.mark", "t/metadata/v1.metadata.json", "2020-01-01/manifest.json", "gone"} {
			_, err := bucket.WriteAll(t.Context(), to, key, data, bucket.WriteOptions{})
			must(t, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		o := options(&watcher{})
		o.Name, o.WorkDir, o.Delete, o.Attempts, o.Tables = "fuzz", t.TempDir(), true, 1, relocating{from, to}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := mirror.Run(ctx, from, to, o)
		runtime.ReadMemStats(&after)
		if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 768 || ctx.Err() != nil {
			t.Errorf("%d bytes took %d MiB; %v", len(data), used, ctx.Err())
		}
		if err != nil && fault.Of(err) == nil || fault.Panicked(err) {
			t.Errorf("got %v", err)
		}
	})
}

func memory(t testing.TB) bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(context.Background(), "mem://", bucket.Options{})
	must(t, err)
	return b
}
