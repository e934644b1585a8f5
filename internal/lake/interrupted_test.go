package lake

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/bucket/buckettest"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
)

// A commit that is interrupted may have taken place or not. It never says that another process was there, or that the table is gone.
func TestACommitThatIsInterruptedAtAnyStepNamesNoOtherWriter(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(*testing.T) *Lake{
		"file": func(t *testing.T) *Lake { return testLake(t, t.TempDir(), nil) },
		"sqlite": func(t *testing.T) *Lake {
			dir := t.TempDir()
			return testLake(t, dir, func(o *Options) { o.Catalog = CatalogOptions{Kind: "sqlite", URI: dir + "/catalog.db"} })
		},
		"postgres": func(t *testing.T) *Lake {
			db := testlab.Postgres(t)
			return testLake(t, t.TempDir(), func(o *Options) { o.Catalog = CatalogOptions{Kind: "postgres", URI: db.URL} })
		},
		"rest": func(t *testing.T) *Lake { _, _, lake := onNessie(t); return lake() },
		"hive": func(t *testing.T) *Lake {
			testlab.Hive(t)
			return testLake(t, t.TempDir(), func(o *Options) {
				o.NamespacePrefix, o.Catalog = "interrupted_", CatalogOptions{Kind: "hive", URI: "thrift://" + testlab.Hive(t).Address}
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			interrupts(t, open(t))
		})
	}
}

// commitSome makes so many commits of a row each, from a round on.
func commitSome(t *testing.T, l *Lake, spec Spec, round, n int) {
	t.Helper()
	table := open(t, l, spec)
	for i := range n {
		at := lsn(0x100 * (round + i))
		write(t, table, changes(t, spec, at, "c", `[{"id":1}]`), at+8)
	}
	if err := table.Close(); err != nil {
		t.Fatal(err)
	}
}

// Upkeep that is interrupted, and a commit after it, say so and nothing else; the next process goes on.
func TestUpkeepThatIsInterruptedAtAnyStepSaysSo(t *testing.T) {
	t.Parallel()
	l, spec := testLake(t, t.TempDir(), nil), bothSpec()
	all := MaintainOptions{Compact: true, Thorough: true, MergeDeletes: 1, MergeManifests: true, Snapshots: Retention{Keep: 1}}
	round := 1
	for n, over := 1, false; !over; n += 1 + n/4 {
		commitSome(t, l, spec, round, 3)
		round += 3
		table := open(t, l, spec)
		ctx := buckettest.NewDying(t.Context(), n)
		_, err := table.Maintain(ctx, all)
		over = !ctx.Ended()
		ctx.End()
		if err != nil && !fault.Is(err, fault.Interrupted) || over && err != nil {
			t.Fatalf("interrupted at step %d: %v", n, err)
		}
		if _, again := table.Maintain(t.Context(), all); again != nil && (err == nil || !fault.Is(again, fault.Interrupted)) {
			t.Fatalf("after an interruption at step %d: %v", n, again)
		}
		if err := table.Close(); err != nil {
			t.Fatal(err)
		}
	}
	commitSome(t, l, spec, round, 1)
}

func interrupts(t *testing.T, l *Lake) {
	t.Helper()
	spec := historySpec()
	commitSome(t, l, spec, 1, leastManifests-4)
	round := leastManifests
	for n, over := 1, false; !over; n += 1 + n/4 {
		opening := buckettest.NewDying(t.Context(), n)
		early, err := l.Table(opening, spec)
		if err == nil {
			early.Close()
		} else if !fault.Is(err, fault.Interrupted) {
			t.Fatalf("opened and interrupted at step %d: %v", n, err)
		}
		opening.End()
		table, at := open(t, l, spec), lsn(0x100*round)
		round++
		put(t, table, changes(t, spec, at, "c", `[{"id":1}]`))
		ctx := buckettest.NewDying(t.Context(), n)
		_, err = table.Commit(ctx, at+8, time.Now())
		over = !ctx.Ended()
		ctx.End()
		if err != nil && !fault.Is(err, fault.Interrupted) || over && err != nil {
			t.Fatalf("committed and interrupted at step %d: %v", n, err)
		}
		if again := open(t, l, spec); err == nil && again.Position() != at+8 {
			t.Fatalf("committed and interrupted at step %d: it stands at %s, want %s", n, again.Position(), at+8)
		}
	}
}

// Each request of a commit fails in each way, while no other process is there.
func TestACommitToAStoreThatFailsNamesNoOtherWriter(t *testing.T) {
	t.Parallel()
	s, spec := testlab.S3(t), historySpec()
	var fails atomic.Pointer[testlab.Script]
	lab := testlab.FaultyS3(t, s, func(r *http.Request) testlab.Answer {
		if script := fails.Load(); script != nil && strings.Contains(r.URL.Path, "/metadata/v") {
			return (*script)(r)
		}
		return nil
	})
	b, err := bucket.Open(t.Context(), "s3://"+s.Bucket, bucket.Options{
		Endpoint: lab.Endpoint, Region: s.Region, CAFile: s.CA, AccessKeyID: s.AccessKey, SecretAccessKey: func() string { return s.SecretKey },
		MaxRetries: -1, Grace: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	l := testLake(t, t.TempDir(), func(o *Options) { o.Bucket, o.Location = b, "s3://"+s.Bucket })
	round := 1
	for name, script := range map[string]testlab.Script{
		"500": testlab.Always(func(r *http.Request) bool { return true }, testlab.Fail(500, "InternalError")),
		"412 and no look": func(r *http.Request) testlab.Answer {
			return map[string]testlab.Answer{"PUT": testlab.Fail(412, "PreconditionFailed"), "HEAD": testlab.Fail(503, "SlowDown")}[r.Method]
		},
		"412 and no second look": func(r *http.Request) testlab.Answer {
			return map[string]testlab.Answer{"PUT": testlab.Fail(412, "PreconditionFailed"), "GET": testlab.Reset}[r.Method]
		},
		"a lost answer and no look": func(r *http.Request) testlab.Answer {
			return map[string]testlab.Answer{"PUT": testlab.LoseReply, "HEAD": testlab.Reset}[r.Method]
		},
		"the written one not seen": func(r *http.Request) testlab.Answer {
			return map[string]testlab.Answer{"PUT": testlab.LoseReply, "HEAD": testlab.Fail(403, "AccessDenied")}[r.Method]
		},
	} {
		table, at := open(t, l, spec), lsn(0x100*round)
		round++
		put(t, table, changes(t, spec, at, "c", `[{"id":1}]`))
		fails.Store(&script)
		_, err := table.Commit(t.Context(), at+8, time.Now())
		fails.Store(nil)
		if err == nil || fault.Is(err, fault.LakeConflict) || fault.Is(err, fault.LakeMissing) || fault.Is(err, fault.PipelineFenced) || fault.Is(err, fault.ObjectExists) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
