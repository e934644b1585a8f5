package crash_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/testlab"
)

// Requests of a dump. A file is what is neither mark nor manifest.

func aFile(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, ".parquet") }

func puts(r *http.Request) bool { return aFile(r) && r.Method == http.MethodPut }

func parts(r *http.Request) bool { return puts(r) && r.URL.Query().Has("partNumber") }

func wholePuts(r *http.Request) bool { return puts(r) && !r.URL.Query().Has("partNumber") }

func begins(r *http.Request) bool {
	return aFile(r) && r.Method == http.MethodPost && r.URL.Query().Has("uploads")
}

func completes(r *http.Request) bool {
	return aFile(r) && r.Method == http.MethodPost && r.URL.Query().Has("uploadId")
}

func theManifest(r *http.Request) bool {
	return r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, manifestName)
}

// quick are bucket options that do not wait long between attempts.
var quick = bucket.Options{Backoff: 20 * time.Millisecond, Grace: 2 * time.Second}

func TestAStoreThatFailsForAMomentIsTriedAgain(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	want := warehouse(t, db)
	source := reach(t, db.URL)
	cases := []struct {
		name   string
		script testlab.Script
	}{
		{"a burst of 500 on parts", testlab.Times(5, parts, testlab.Fail(500, "InternalError"))},
		{"a burst of 503 on parts", testlab.Times(5, parts, testlab.Fail(503, "SlowDown"))},
		{"503 where an upload begins", testlab.Times(3, begins, testlab.Fail(503, "SlowDown"))},
		{"500 where an upload ends", testlab.Times(3, completes, testlab.Fail(500, "InternalError"))},
		{"503 on small files", testlab.Times(3, wholePuts, testlab.Fail(503, "ServiceUnavailable"))},
		{"503 on the manifest", testlab.Times(3, theManifest, testlab.Fail(503, "SlowDown"))},
		{"connections reset", testlab.Times(4, puts, testlab.Reset)},
		{"the answer to a part is lost", testlab.Times(1, parts, testlab.LoseReply)},
		{"the answer to a completed upload is lost", testlab.Times(1, completes, testlab.LoseReply)},
		{"the answer to a small file is lost", testlab.Times(1, wholePuts, testlab.LoseReply)},
		{"the answer to the manifest is lost", testlab.Times(1, theManifest, testlab.LoseReply)},
		{"a slow reader", testlab.Times(2, parts, testlab.Slow(8<<20))},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			store := testlab.S3(t)
			var hits atomic.Int32
			proxy := testlab.FaultyS3(t, store, func(r *http.Request) testlab.Answer {
				answer := c.script(r)
				if answer != nil {
					hits.Add(1)
				}
				return answer
			})
			if _, err := dump.Run(t.Context(), source, s3Place{proxy.Store}.open(t, quick), options(format.Parquet, dump.LayoutRun)); err != nil {
				t.Fatal(err)
			}
			judgeClean(t, s3Place{store}, want)
			if hits.Load() == 0 {
				t.Errorf("nothing was spoiled: %q", proxy.Requests())
			}
		})
	}
}

func TestAStoreThatFailsForEverIsAClearErrorAndNothingIsVisible(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	warehouse(t, db)
	source := reach(t, db.URL)
	cases := []struct {
		name   string
		script testlab.Script
		code   fault.Code
		says   string
	}{
		{"busy", testlab.Always(puts, testlab.Fail(503, "SlowDown")), fault.BucketBusy, "SlowDown"},
		{"failing where uploads end", testlab.Always(completes, testlab.Fail(500, "InternalError")), fault.BucketBusy, "InternalError"},
		{"failing at the manifest", testlab.Always(theManifest, testlab.Fail(500, "InternalError")), fault.BucketBusy, "manifest.json"},
		{"expired token", testlab.Always(puts, testlab.Fail(403, "ExpiredToken")), fault.BucketAuth, "ExpiredToken"},
		{"no right to write", testlab.Always(puts, testlab.Fail(403, "AccessDenied")), fault.BucketRights, "s3:PutObject"},
		{"no right to write manifests", testlab.Always(theManifest, testlab.Fail(403, "AccessDenied")), fault.BucketRights, "s3:PutObject"},
		{"quota used up", testlab.Always(puts, testlab.Fail(403, "QuotaExceeded")), fault.BucketFull, "QuotaExceeded"},
		{"every answer lost", testlab.Always(puts, testlab.Reset), fault.BucketUnreachable, "cannot be reached"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			store := testlab.S3(t)
			proxy := testlab.FaultyS3(t, store, c.script)
			few := quick
			few.MaxRetries = 2
			_, err := dump.Run(t.Context(), source, s3Place{proxy.Store}.open(t, few), options(format.Parquet, dump.LayoutRun))
			wants(t, err, c.code, c.says, store.Bucket)
			nothing(t, s3Place{store})
		})
	}
}

// TestWhatALostStoreKeepsIsSweptLater: from one moment on nothing at all succeeds, so nothing can be cleared away.
func TestWhatALostStoreKeepsIsSweptLater(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	want := warehouse(t, db)
	source := reach(t, db.URL)
	store := testlab.S3(t)
	var lost atomic.Bool
	proxy := testlab.FaultyS3(t, store, func(r *http.Request) testlab.Answer {
		if completes(r) {
			lost.Store(true)
			return testlab.LoseReply // it is done, and nobody hears of it
		}
		if lost.Load() {
			return testlab.Fail(403, "ExpiredToken")
		}
		return nil
	})
	few := quick
	few.MaxRetries = 1
	_, err := dump.Run(t.Context(), source, s3Place{proxy.Store}.open(t, few), options(format.Parquet, dump.LayoutRun))
	if fault.ExitOf(err) != fault.ExitTarget {
		t.Errorf("want an error of the store, got %v", err)
	}
	at := s3Place{store}
	if v := judge(t, at, want); len(v.manifests) > 0 || len(v.marks) != 1 {
		t.Errorf("want a mark and no manifest, found %+v", v)
	}
	s := &scenario{bucket: at.open(t, quick)}
	s.clockMoves(t)
	recovered(t, source, s.bucket, options(format.Parquet, dump.LayoutRun))
	judgeClean(t, at, want)
}

// TestAWriteWhoseAnswerIsLostForEverIsTakenBack: the store did it, then was away until leat gave up, and came back
// for the clearing: leat has no note of what it must clear.
func TestAWriteWhoseAnswerIsLostForEverIsTakenBack(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	warehouse(t, db)
	source := reach(t, db.URL)
	aManifest := func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, manifestName) }
	cases := []struct {
		name        string
		write, like func(*http.Request) bool
	}{{"a file", completes, aFile}, {"the manifest", theManifest, aManifest}}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			store := testlab.S3(t)
			var lost atomic.Bool
			proxy := testlab.FaultyS3(t, store, func(r *http.Request) testlab.Answer {
				switch {
				case c.write(r) && !lost.Swap(true):
					return testlab.LoseReply
				case lost.Load() && c.like(r) && r.Method != http.MethodDelete:
					return testlab.Reset
				}
				return nil
			})
			few := quick
			few.MaxRetries = 1
			_, err := dump.Run(t.Context(), source, s3Place{proxy.Store}.open(t, few), options(format.Parquet, dump.LayoutRun))
			if err == nil {
				t.Error("a dump succeeds although an object's fate is unknown")
			}
			nothing(t, s3Place{store})
		})
	}
}
