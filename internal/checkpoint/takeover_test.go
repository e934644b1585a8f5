package checkpoint_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/bucket/buckettest"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/checkpoint"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
)

// takeOver lets another process take the pipeline over, as if the lease had been given back.
func takeOver(t testing.TB, b bucket.Bucket) *checkpoint.Store {
	t.Helper()
	data, err := bucket.ReadAll(t.Context(), b, "p/lease.json", 1<<20)
	must(t, err)
	_, err = bucket.WriteAll(t.Context(), b, "p/lease.json", []byte(strings.Replace(string(data), `"version": 1,`, `"version": 1, "released": true,`, 1)), bucket.WriteOptions{})
	must(t, err)
	return open(t, b, checkpoint.Options{Host: "another"})
}

func TestATakeoverEndsWhatWaits(t *testing.T) {
	onEveryKind(t, func(t *testing.T, b bucket.Bucket) {
		a := open(t, b, checkpoint.Options{})
		ours, done := a.WhileOurs(t.Context())
		defer done()
		must(t, ours.Err())
		c := takeOver(t, b)
		within := time.After(10 * time.Second)
		select {
		case <-ours.Done():
		case <-within:
			t.Fatal("what waits for something else is not told that the pipeline is another's")
		}
		if err := context.Cause(ours); !fault.Is(err, fault.PipelineFenced) || !strings.Contains(err.Error(), "another") {
			t.Errorf("the cause: %v", err)
		}
		for what, err := range map[string]error{
			"Confirm": a.Confirm(t.Context()), "Save": a.Save(t.Context(), checkpoint.State{Position: 9}), "Lost": a.Lost(t.Context()), "Valid": a.Valid(),
		} {
			if !fault.Is(err, fault.PipelineFenced) {
				t.Errorf("%s: %v", what, err)
			}
		}
		late, done := a.WhileOurs(t.Context())
		defer done()
		waitFor(t, func() bool { return late.Err() != nil })
		must(t, c.Save(t.Context(), checkpoint.State{Position: 2}))
	})
}

// A takeover that only the state tells of, because the lease has not been renewed since, is found by the write itself.
func TestATakeoverIsFoundByTheNextSave(t *testing.T) {
	onEveryKind(t, func(t *testing.T, b bucket.Bucket) {
		a := open(t, b, checkpoint.Options{TTL: time.Hour})
		takeOver(t, b)
		if err := a.Save(t.Context(), checkpoint.State{Position: 9}); !fault.Is(err, fault.PipelineFenced) {
			t.Errorf("%v", err)
		}
	})
}

func TestASaveThatIsInterruptedAtAnyStepNamesNoOtherWriter(t *testing.T) {
	onEveryKind(t, func(t *testing.T, b bucket.Bucket) {
		a := open(t, b, checkpoint.Options{TTL: time.Hour})
		for n, over := 1, false; !over; n += 1 + n/8 {
			ctx := buckettest.NewDying(t.Context(), n)
			err := a.Save(ctx, checkpoint.State{Position: change.LSN(n)})
			over = !ctx.Ended()
			ctx.End()
			if err != nil && !fault.Is(err, fault.Interrupted) || over && err != nil {
				t.Fatalf("interrupted at step %d: %v", n, err)
			}
			if s, _, e := checkpoint.Read(t.Context(), b, "p"); e != nil || err == nil && s.Position != change.LSN(n) {
				t.Fatalf("interrupted at step %d: %+v, %v", n, s, e)
			}
		}
		must(t, a.Lost(t.Context()))
		must(t, a.Save(t.Context(), checkpoint.State{Position: 1}))
	})
}

func TestAPipelineThatIsOpenedAndInterruptedAtAnyStepTakesNothing(t *testing.T) {
	everywhere(t, func(t *testing.T, b bucket.Bucket) {
		for n, over := 1, false; !over; n += 1 + n/8 {
			ctx := buckettest.NewDying(t.Context(), n)
			s, err := checkpoint.Open(ctx, b, "p", checkpoint.Options{TTL: time.Hour, Self: "us-"})
			over = !ctx.Ended()
			ctx.End()
			if err == nil {
				s.Close(t.Context())
			} else if !fault.Is(err, fault.Interrupted) || over {
				t.Fatalf("interrupted at step %d: %v", n, err)
			}
			if _, err := checkpoint.Ask(ctx, b, "p", checkpoint.Request{Action: checkpoint.Pause}); !fault.Is(err, fault.Interrupted) {
				t.Fatalf("a request of a context that has ended: %v", err)
			}
		}
	})
}

// storm is a store that fails as it is told.
func storm(t *testing.T, fails *atomic.Pointer[testlab.Script]) bucket.Bucket {
	t.Helper()
	s := testlab.S3(t)
	lab := testlab.FaultyS3(t, s, func(r *http.Request) testlab.Answer {
		if script := fails.Load(); script != nil {
			return (*script)(r)
		}
		return nil
	})
	b, err := bucket.Open(t.Context(), "s3://"+s.Bucket+"/lake", bucket.Options{
		Endpoint: lab.Endpoint, Region: s.Region, CAFile: s.CA, AccessKeyID: s.AccessKey, SecretAccessKey: func() string { return s.SecretKey },
		MaxRetries: -1, Grace: time.Second,
	})
	must(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

// Each request of a save, of a renewal and of taking a pipeline over fails in each way. No other process is there, so none may be named.
func TestAStoreThatFailsAtAnyRequestNamesNoOtherWriter(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]testlab.Answer{
		"500": testlab.Fail(500, "InternalError"), "403": testlab.Fail(403, "AccessDenied"), "409": testlab.Fail(409, "UnknownConflict"),
		"412": testlab.Fail(412, "PreconditionFailed"), "reset": testlab.Reset, "a lost answer": testlab.LoseReply,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var fails atomic.Pointer[testlab.Script]
			b := storm(t, &fails)
			a := open(t, b, checkpoint.Options{TTL: time.Hour})
			must(t, a.Save(t.Context(), checkpoint.State{Position: 1}))
			for _, from := range []int{0, 1, 2, 3} { // this request, and from it on all
				for _, writes := range []bool{true, false} {
					var n atomic.Int32
					script := testlab.Script(func(r *http.Request) testlab.Answer {
						if at := int(n.Add(1)) - 1; at < from || writes && r.Method != http.MethodPut {
							return nil
						}
						return answer
					})
					fails.Store(&script)
					err := a.Save(t.Context(), checkpoint.State{Position: 2})
					fails.Store(nil)
					if fault.Is(err, fault.PipelineFenced) || fault.Is(err, fault.ObjectExists) || fault.Is(err, fault.ObjectMissing) || fault.Is(err, fault.StateUnusable) {
						t.Fatalf("from request %d on (writes only: %v): %v", from, writes, err)
					}
					must(t, a.Lost(t.Context()))
					must(t, a.Save(t.Context(), checkpoint.State{Position: 3}))
				}
			}
		})
	}
}

// The store says that another version is there, and then does not show it.
func TestARefusalThatCannotBeLookedAtNamesNoOtherWriter(t *testing.T) {
	t.Parallel()
	var fails atomic.Pointer[testlab.Script]
	b := storm(t, &fails)
	a := open(t, b, checkpoint.Options{TTL: time.Hour})
	script := testlab.Script(func(r *http.Request) testlab.Answer {
		return map[string]testlab.Answer{http.MethodPut: testlab.Fail(412, "PreconditionFailed"), http.MethodGet: testlab.Fail(503, "SlowDown")}[r.Method]
	})
	fails.Store(&script)
	if err := a.Save(t.Context(), checkpoint.State{Position: 2}); !fault.Is(err, fault.BucketBusy) {
		t.Errorf("%v", err)
	}
	fails.Store(nil)
	must(t, a.Save(t.Context(), checkpoint.State{Position: 3}))
}

func TestAStoreThatRefusesForEverIsNotAskedWithoutPause(t *testing.T) {
	t.Parallel()
	var fails atomic.Pointer[testlab.Script]
	b := storm(t, &fails)
	a := open(t, b, checkpoint.Options{})
	var asked atomic.Int32
	refuse := testlab.Script(func(r *http.Request) testlab.Answer {
		asked.Add(1)
		if r.Method == http.MethodPut {
			return testlab.Fail(412, "PreconditionFailed")
		}
		return nil
	})
	fails.Store(&refuse)
	waitFor(t, func() bool { return a.Valid() != nil })
	asked.Store(0)
	if err := a.Confirm(t.Context()); !fault.Is(err, fault.BucketBusy) {
		t.Errorf("a lease that cannot be renewed: %v", err)
	}
	if n := asked.Load(); n > 40 {
		t.Errorf("the store was asked %d times", n)
	}
	must(t, func() error { fails.Store(nil); return a.Confirm(t.Context()) }())
	a.Close(t.Context()) // it would ask too
	asked.Store(0)
	fails.Store(&refuse)
	if _, err := checkpoint.Ask(t.Context(), b, "p", checkpoint.Request{Action: checkpoint.Pause}); !fault.Is(err, fault.BucketBusy) {
		t.Errorf("a request that cannot be left: %v", err)
	}
	if n := asked.Load(); n > 300 {
		t.Errorf("the store was asked %d times", n)
	}
}

func TestAStoreThatCannotBeTriedIsNotTakenForOneWithoutConditions(t *testing.T) {
	t.Parallel()
	var fails atomic.Pointer[testlab.Script]
	b := storm(t, &fails)
	script := testlab.Always(func(r *http.Request) bool { return strings.Contains(r.URL.Path, ".leat-probe-") }, testlab.Fail(503, "SlowDown"))
	fails.Store(&script)
	if _, err := checkpoint.Open(t.Context(), b, "p", checkpoint.Options{}); !fault.Is(err, fault.BucketBusy) {
		t.Errorf("%v", err)
	}
}

func TestAStateThatWasRemovedIsNotAnothersWriting(t *testing.T) {
	everywhere(t, func(t *testing.T, b bucket.Bucket) {
		a := open(t, b, checkpoint.Options{TTL: time.Hour})
		must(t, b.Delete(t.Context(), "p/state.json"))
		if err := a.Save(t.Context(), checkpoint.State{Position: 1}); !fault.Is(err, fault.StateUnusable) {
			t.Errorf("%v", err)
		}
	})
}
