package lake

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
)

// countedWire counts the requests on the wire, and refuses to write objects whose key ends in some way.
type countedWire struct {
	*testlab.Faulty
	refused atomic.Pointer[string]
}

func (w *countedWire) answer(r *http.Request) testlab.Answer {
	if end := w.refused.Load(); end != nil && r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, *end) {
		return testlab.Fail(http.StatusForbidden, "AccessDenied")
	}
	return nil
}

// countedLake is a lake at an S3 server whose requests are counted.
func countedLake(t *testing.T, format int) (*countedWire, func() *Lake) {
	t.Helper()
	wire := &countedWire{}
	wire.Faulty = testlab.FaultyS3(t, testlab.S3(t), wire.answer)
	b, err := bucket.Open(t.Context(), "s3://"+wire.Bucket+"/lake", bucket.Options{Endpoint: wire.Endpoint, Region: wire.Region,
		AccessKeyID: wire.AccessKey, SecretAccessKey: func() string { return wire.SecretKey }})
	if err != nil {
		t.Fatal(err)
	}
	return wire, func() *Lake {
		return testLake(t, t.TempDir(), func(o *Options) { o.Bucket, o.Location, o.Format = b, "s3://"+wire.Bucket+"/lake", format })
	}
}

// readsOf counts the requests that read objects of a table's data, by object and kind.
func readsOf(requests []string) map[string][]string {
	reads := map[string][]string{}
	for _, r := range requests {
		method, path, _ := strings.Cut(r, " ")
		path, _, _ = strings.Cut(path, "?")
		if strings.Contains(path, "/data/") && (method == http.MethodGet || method == http.MethodHead) {
			reads[path] = append(reads[path], method)
		}
	}
	return reads
}

func TestASmallFileIsReadByOneRequest(t *testing.T) {
	t.Parallel()
	for format := 2; format <= 3; format++ {
		t.Run(fmt.Sprint("v", format), func(t *testing.T) {
			t.Parallel()
			wire, lake := countedLake(t, format)
			spec := bothSpec()
			table := open(t, lake(), spec)
			const commits = 12
			for i := range commits { // each writes a file, and deletes a row of the file before, for which there is a vector in v3
				at := change.LSN(0x100 + 0x10*i)
				write(t, table, changes(t, spec, at, "ccu", fmt.Sprintf(`[{"id":%d,"name":"a"},{"id":%d,"name":"b"},{"id":%d,"name":"c"}]`, 2*i, 2*i+1, max(0, 2*i-1))), at+8)
			}
			seen := len(wire.Requests())
			read := func(what string, least int) {
				t.Helper()
				requests := wire.Requests()
				reads := readsOf(requests[seen:])
				seen = len(requests)
				if len(reads) < least {
					t.Errorf("%s reads %d objects, and at least %d were expected", what, len(reads), least)
				}
				for path, methods := range reads {
					if !slices.Equal(methods, []string{http.MethodGet}) {
						t.Errorf("%s reads %s by %v", what, path, methods)
					}
				}
			}
			again := open(t, lake(), spec) // without an index of its own
			write(t, again, changes(t, spec, 0x1000, "u", `[{"id":1,"name":"z"}]`), 0x1008)
			read("an index that is built", commits+1)
			if done, err := again.Maintain(t.Context(), MaintainOptions{Compact: true, Thorough: true}); err != nil || done.Compacted < 2*commits {
				t.Fatalf("maintained %+v, %v", done, err)
			}
			read("a compaction", 2*commits)
		})
	}
}

// sized is a data file of that name and of a size that may not be true.
func sized(t *testing.T, url string, rows, size int64) iceberg.DataFile {
	t.Helper()
	d, err := iceberg.NewDataFileBuilder(*iceberg.UnpartitionedSpec, iceberg.EntryContentData, url, iceberg.ParquetFile, nil, nil, nil, rows, size)
	if err != nil {
		t.Fatal(err)
	}
	return d.Build()
}

func TestASizeThatIsNotTrueChangesNothingOfWhatIsRead(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 3*smallFile/2)
	for i := range noise {
		noise[i] = 'a' + byte(rand.IntN(26))
	}
	for name, value := range map[string]string{"small": "v", "large": string(noise)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := testLake(t, t.TempDir(), nil)
			spec := historySpec()
			table := open(t, l, spec)
			write(t, table, changes(t, spec, 0x100, "c", fmt.Sprintf(`[{"id":1,"name":%q}]`, value)), 0x108)
			ice := table.history.ice
			live, _, err := ice.live(t.Context())
			if err != nil || len(live) != 1 {
				t.Fatalf("%d files, %v", len(live), err)
			}
			whole := live[0].File()
			if large := whole.FileSizeBytes() > smallFile; large != (name == "large") {
				t.Fatalf("it has %d bytes", whole.FileSizeBytes())
			}
			key := strings.TrimPrefix(whole.FilePath(), l.url(""))
			data, err := bucket.ReadAll(t.Context(), l.Bucket, key, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			files := map[string]string{"whole": whole.FilePath(), "missing": l.url(key + "x")}
			for as, content := range map[string][]byte{"cut": data[:len(data)/2], "empty": nil, "spoiled": bytes.ReplaceAll(data, []byte("PAR1"), []byte("PAR2"))} {
				if _, err := bucket.WriteAll(t.Context(), l.Bucket, key+as, content, bucket.WriteOptions{}); err != nil {
					t.Fatal(err)
				}
				files[as] = l.url(key + as)
			}
			schema, err := ice.fileSchema()
			if err != nil {
				t.Fatal(err)
			}
			read := func(url string, size int64) (n int, code fault.Code) {
				err := ice.scan(t.Context(), sized(t, url, 1, size), schema, 0, func(rec arrow.RecordBatch) error {
					n += int(rec.NumRows()) * len(rec.Column(rec.Schema().FieldIndices("name")[0]).ValueStr(0))
					return nil
				})
				if f := fault.Of(err); f != nil {
					code = f.Code
				} else if err != nil {
					t.Errorf("an error that is no fault: %v", err)
				}
				return n, code
			}
			want := map[string]fault.Code{"whole": "", "missing": fault.ObjectMissing, "cut": fault.LakeUnreadable, "empty": fault.LakeUnreadable, "spoiled": fault.LakeUnreadable}
			for as, url := range files {
				for _, size := range []int64{1, int64(len(data)) - 1, int64(len(data)), int64(len(data)) + 1, smallFile, smallFile + 1, 1 << 40} {
					n, code := read(url, size)
					if rows := as == "whole"; code != want[as] || rows != (n == len(value)) {
						t.Errorf("%s, of which the manifest says %d bytes: %d bytes of values, %q", as, size, n, code)
					}
				}
			}
		})
	}
}
