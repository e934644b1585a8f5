package checkpoint_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/checkpoint"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
	"github.com/leatdata/leat/internal/testlab/gcslab"
)

func TestMain(m *testing.M) { testlab.Main(m) }

const ttl = 2 * time.Second

// onEveryKind runs a test on each kind of bucket, and everywhere on those that differ in more than their protocol.
func onEveryKind(t *testing.T, f func(t *testing.T, b bucket.Bucket)) {
	everywhere(t, f)
	for name, place := range map[string]func(*testing.T) (string, bucket.Options){
		"azure": func(t *testing.T) (string, bucket.Options) {
			a := testlab.Azurite(t)
			return "azblob://" + a.Container, bucket.Options{Endpoint: a.Endpoint, AccessKeyID: a.Account, SecretAccessKey: func() string { return a.Key }}
		},
		"gcs": func(t *testing.T) (string, bucket.Options) {
			g := gcslab.Start(t)
			return "gs://" + g.Bucket, bucket.Options{Endpoint: g.Endpoint}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, o := place(t)
			b, err := bucket.Open(t.Context(), url, o)
			must(t, err)
			t.Cleanup(func() { b.Close() })
			f(t, b)
		})
	}
}

func everywhere(t *testing.T, f func(t *testing.T, b bucket.Bucket)) {
	t.Parallel()
	s3 := func(s testlab.Store) (string, bucket.Options) {
		return "s3://" + s.Bucket + "/lake", bucket.Options{
			Endpoint: s.Endpoint, Region: s.Region, CAFile: s.CA, AccessKeyID: s.AccessKey, SecretAccessKey: func() string { return s.SecretKey },
		}
	}
	for name, place := range map[string]func(*testing.T) (string, bucket.Options){
		"memory": func(*testing.T) (string, bucket.Options) { return "mem://", bucket.Options{} },
		"folder": func(t *testing.T) (string, bucket.Options) { return t.TempDir(), bucket.Options{} },
		"s3":     func(t *testing.T) (string, bucket.Options) { return s3(testlab.S3(t)) },
		"ceph":   func(t *testing.T) (string, bucket.Options) { return s3(testlab.Ceph(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, o := place(t)
			b, err := bucket.Open(t.Context(), url, o)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { b.Close() })
			f(t, b)
		})
	}
}

func open(t testing.TB, b bucket.Bucket, o checkpoint.Options) *checkpoint.Store {
	t.Helper()
	if o.TTL == 0 {
		o.TTL = ttl
	}
	s, err := checkpoint.Open(t.Context(), b, "p", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(context.Background()) })
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhatWasSavedIsReadByTheNextOwner(t *testing.T) {
	everywhere(t, func(t *testing.T, b bucket.Bucket) {
		a := open(t, b, checkpoint.Options{})
		if a.Epoch() != 1 || a.State().Position != 0 {
			t.Fatalf("epoch %d, %+v", a.Epoch(), a.State())
		}
		for p := range change.LSN(5) {
			must(t, a.Save(t.Context(), checkpoint.State{Position: p, Tables: map[string]checkpoint.TableState{"public.a": {Phase: checkpoint.Copying, Since: 7}}}))
		}
		a.Close(t.Context())
		if err := a.Save(t.Context(), checkpoint.State{}); !fault.Is(err, fault.PipelineFenced) {
			t.Errorf("a closed one saves: %v", err)
		}
		c := open(t, b, checkpoint.Options{})
		if got := c.State(); c.Epoch() != 2 || got.Position != 4 || got.Tables["public.a"].Since != 7 {
			t.Errorf("epoch %d, %+v", c.Epoch(), got)
		}
		s, l, err := checkpoint.Read(t.Context(), b, "p/")
		if err != nil || s.Position != 4 || l.Epoch != 2 || l.Host == "" || l.Released || l.Modified.IsZero() {
			t.Errorf("%+v %+v %v", s, l, err)
		}
	})
}

func TestASecondOneIsRefusedWhileTheFirstLives(t *testing.T) {
	everywhere(t, func(t *testing.T, b bucket.Bucket) {
		a := open(t, b, checkpoint.Options{Host: "here"})
		for _, patience := range []time.Duration{0, 10 * ttl} {
			start := time.Now()
			_, err := checkpoint.Open(t.Context(), b, "p", checkpoint.Options{TTL: ttl, Patience: patience})
			if !fault.Is(err, fault.PipelineBusy) || !strings.Contains(err.Error(), "here") {
				t.Fatalf("%v", err)
			}
			if time.Since(start) > 2*ttl {
				t.Errorf("a living owner was doubted for %s", time.Since(start))
			}
		}
		must(t, a.Save(t.Context(), checkpoint.State{Position: 1}))
	})
}

func TestOfManyThatStartAtOnceOneRuns(t *testing.T) {
	everywhere(t, func(t *testing.T, b bucket.Bucket) {
		var won atomic.Int32
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				s, err := checkpoint.Open(t.Context(), b, "p", checkpoint.Options{TTL: time.Minute})
				switch {
				case err == nil:
					won.Add(1)
					t.Cleanup(func() { s.Close(context.Background()) })
				case !fault.Is(err, fault.PipelineBusy) && !fault.Retryable(err):
					t.Errorf("%v", err)
				}
			})
		}
		all.Wait()
		if won.Load() != 1 {
			t.Errorf("%d own the pipeline", won.Load())
		}
	})
}

// frozen is a bucket whose owner has been stopped, as SIGSTOP or a network split would: its writes do not arrive for a while.
type frozen struct {
	bucket.Bucket
	until atomic.Pointer[chan struct{}]
}

func (f *frozen) Create(ctx context.Context, key string, o bucket.WriteOptions) (bucket.Upload, error) {
	if gate := f.until.Load(); gate != nil {
		select {
		case <-*gate:
		case <-ctx.Done():
			return nil, fault.Wrap(context.Cause(ctx), fault.Interrupted, key, "stopped") // as a store says it
		}
	}
	return f.Bucket.Create(ctx, key, o)
}

func TestAnOwnerThatSleptIsFenced(t *testing.T) {
	everywhere(t, func(t *testing.T, b bucket.Bucket) {
		ice := &frozen{Bucket: b}
		a := open(t, ice, checkpoint.Options{Host: "sleeper"})
		must(t, a.Save(t.Context(), checkpoint.State{Position: 1}))
		gate := make(chan struct{})
		ice.until.Store(&gate)
		c := open(t, b, checkpoint.Options{Patience: 10 * ttl})
		if c.Epoch() != 2 || c.State().Position != 1 {
			t.Fatalf("epoch %d, %+v", c.Epoch(), c.State())
		}
		if err := a.Valid(); !fault.Is(err, fault.PipelineFenced) {
			t.Errorf("the sleeper still believes in its lease when another has it: %v", err)
		}
		must(t, c.Save(t.Context(), checkpoint.State{Position: 2}))
		close(gate)
		for range 3 {
			if err := a.Save(t.Context(), checkpoint.State{Position: 9}); !fault.Is(err, fault.PipelineFenced) || fault.Retryable(err) {
				t.Fatalf("%v", err)
			}
		}
		must(t, c.Save(t.Context(), checkpoint.State{Position: 3}))
		s, _, err := checkpoint.Read(t.Context(), b, "p")
		if err != nil || s.Position != 3 || s.Epoch != 2 {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

// A write that is already on its way when the lease changes hands is refused by the store itself.
func TestASaveUnderWayWhenTheOwnerChangesIsFenced(t *testing.T) {
	everywhere(t, func(t *testing.T, b bucket.Bucket) {
		ice := &frozen{Bucket: b}
		a := open(t, ice, checkpoint.Options{TTL: time.Minute})
		must(t, a.Save(t.Context(), checkpoint.State{Position: 1}))
		gate := make(chan struct{})
		ice.until.Store(&gate)
		saved := make(chan error)
		go func() { saved <- a.Save(t.Context(), checkpoint.State{Position: 9}) }()
		// Somebody knows better than we that the first one is dead.
		data, err := bucket.ReadAll(t.Context(), b, "p/lease.json", 1<<20)
		must(t, err)
		_, err = bucket.WriteAll(t.Context(), b, "p/lease.json", []byte(strings.Replace(string(data), `"version": 1,`, `"version": 1, "released": true,`, 1)), bucket.WriteOptions{})
		must(t, err)
		c := open(t, b, checkpoint.Options{})
		close(gate)
		if err := <-saved; !fault.Is(err, fault.PipelineFenced) {
			t.Errorf("%v", err)
		}
		must(t, c.Save(t.Context(), checkpoint.State{Position: 2}))
	})
}

func TestAnOwnerThatWasCutOffForAMomentGoesOn(t *testing.T) {
	everywhere(t, func(t *testing.T, b bucket.Bucket) {
		ice := &frozen{Bucket: b}
		a := open(t, ice, checkpoint.Options{})
		gate := make(chan struct{})
		ice.until.Store(&gate)
		waitFor(t, func() bool { return a.Valid() != nil })
		// Nobody has ended anything: what follows is another attempt, not the end.
		if err := a.Save(t.Context(), checkpoint.State{Position: 1}); !fault.Is(err, fault.BucketUnreachable) || !fault.Retryable(err) || fault.Is(err, fault.Interrupted) {
			t.Errorf("a store that does not answer: %v", err)
		}
		ended, end := context.WithCancel(t.Context())
		end()
		if err := a.Save(ended, checkpoint.State{Position: 1}); !fault.Is(err, fault.Interrupted) {
			t.Errorf("one that was ended: %v", err)
		}
		close(gate)
		must(t, a.Save(t.Context(), checkpoint.State{Position: 1}))
		must(t, a.Valid())
	})
}

// slow is a store that does what it is asked, and answers when nobody waits any more.
type slow struct {
	bucket.Bucket
	is atomic.Bool
}

func (s *slow) Create(ctx context.Context, key string, o bucket.WriteOptions) (bucket.Upload, error) {
	u, err := s.Bucket.Create(ctx, key, o)
	if err == nil && s.is.Load() {
		u = slowUpload{u, ctx}
	}
	return u, err
}

type slowUpload struct {
	bucket.Upload
	asked context.Context
}

func (u slowUpload) Commit(ctx context.Context) (bucket.Object, error) {
	o, err := u.Upload.Commit(ctx)
	<-u.asked.Done()
	return o, err
}

func TestALeaseWhoseRenewalsTakeTooLongIsNotTakenForAnothers(t *testing.T) {
	everywhere(t, func(t *testing.T, b bucket.Bucket) {
		store := &slow{Bucket: b}
		a := open(t, store, checkpoint.Options{})
		store.is.Store(true)
		waitFor(t, func() bool { return a.Valid() != nil })
		if err := a.Save(t.Context(), checkpoint.State{Position: 1}); !fault.Is(err, fault.BucketUnreachable) || !fault.Retryable(err) {
			t.Errorf("nobody has taken it over: %v", err)
		}
		store.is.Store(false)
		must(t, a.Save(t.Context(), checkpoint.State{Position: 1}))
	})
}

func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it does not happen")
		}
	}
}

// shut is a store that writes nothing for a while.
type shut struct {
	bucket.Bucket
	is atomic.Bool
}

func (s *shut) Create(ctx context.Context, key string, o bucket.WriteOptions) (bucket.Upload, error) {
	if s.is.Load() {
		return nil, fault.New(fault.BucketUnreachable, key, "it is shut")
	}
	return s.Bucket.Create(ctx, key, o)
}

// An attempt that could not give its lease back is no reason to refuse the next one of the same process, nor to wait.
func TestTheLeaseOfAnEarlierAttemptIsFree(t *testing.T) {
	everywhere(t, func(t *testing.T, b bucket.Bucket) {
		store := &shut{Bucket: b}
		first, err := checkpoint.Open(t.Context(), store, "p", checkpoint.Options{TTL: time.Hour, Self: "us-"})
		must(t, err)
		store.is.Store(true)
		first.Close(t.Context()) // it is not given back
		if _, err := checkpoint.Open(t.Context(), b, "p", checkpoint.Options{TTL: time.Hour, Self: "them-"}); !fault.Is(err, fault.PipelineBusy) {
			t.Errorf("another process: %v", err)
		}
		again := open(t, b, checkpoint.Options{TTL: time.Hour, Self: "us-"})
		if again.Epoch() != 2 {
			t.Errorf("epoch %d", again.Epoch())
		}
		store.is.Store(false)
		if err := first.Save(t.Context(), checkpoint.State{Position: 9}); !fault.Is(err, fault.PipelineFenced) {
			t.Errorf("the earlier one still saves: %v", err)
		}
		must(t, again.Save(t.Context(), checkpoint.State{Position: 1}))
	})
}

// A pipeline that was killed starts again at once on the same machine: the kernel knows that the process is gone.
func TestAKilledOwnersLeaseIsFreeAtOnceOnItsMachine(t *testing.T) {
	t.Parallel()
	b := memory(t)
	open(t, b, checkpoint.Options{TTL: time.Hour})
	data, err := bucket.ReadAll(t.Context(), b, "p/lease.json", 1<<20)
	must(t, err)
	lease := string(data)
	for was, start := range map[string]string{fmt.Sprintf(`"pid": %d`, os.Getpid()): `"pid": 4194304`} { // above any PID there can be
		lease = strings.ReplaceAll(lease, was, start)
	}
	if lease == string(data) {
		t.Fatal(lease)
	}
	_, err = bucket.WriteAll(t.Context(), b, "p/lease.json", []byte(lease), bucket.WriteOptions{})
	must(t, err)
	if c := open(t, b, checkpoint.Options{}); c.Epoch() != 2 {
		t.Errorf("epoch %d", c.Epoch())
	}
}

func memory(t testing.TB) bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(t.Context(), "mem://", bucket.Options{})
	must(t, err)
	return b
}

func TestAStateOfANewerLeatIsLeftAlone(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`{"version": 2}`, `{"version": 0}`, `nonsense`, ``, `{"version": 1, "position": 7}`} {
		b := memory(t)
		_, err := bucket.WriteAll(t.Context(), b, "p/state.json", []byte(text), bucket.WriteOptions{})
		must(t, err)
		if _, err := checkpoint.Open(t.Context(), b, "p", checkpoint.Options{}); !fault.Is(err, fault.StateUnusable) {
			t.Errorf("%s: %v", text, err)
		}
		for o := range b.List(t.Context(), "") {
			if o.Key != "p/state.json" {
				t.Errorf("%s was written", o.Key)
			}
		}
	}
}

func TestALeaseThatSomebodyRemovedDoesNotResetTheEpoch(t *testing.T) {
	t.Parallel()
	b := memory(t)
	for range 3 {
		open(t, b, checkpoint.Options{}).Close(t.Context())
	}
	must(t, b.Delete(t.Context(), "p/lease.json"))
	if s := open(t, b, checkpoint.Options{}); s.Epoch() != 4 {
		t.Errorf("epoch %d", s.Epoch())
	}
}

// lossy is a bucket whose answers are lost now and then, after the write has been done.
type lossy struct {
	bucket.Bucket
	n atomic.Int32
}

type lossyUpload struct {
	bucket.Upload
	lose bool
}

func (l *lossy) Create(ctx context.Context, key string, o bucket.WriteOptions) (bucket.Upload, error) {
	u, err := l.Bucket.Create(ctx, key, o)
	return lossyUpload{u, l.n.Add(1)%2 == 0 || strings.Contains(key, "/clock-")}, err
}

func (l lossyUpload) Commit(ctx context.Context) (bucket.Object, error) {
	o, err := l.Upload.Commit(ctx)
	if l.lose && err == nil {
		return bucket.Object{}, fault.New(fault.BucketUnreachable, o.Key, "the answer was lost")
	}
	return o, err
}

func TestALostAnswerIsResolvedByLooking(t *testing.T) {
	everywhere(t, func(t *testing.T, b bucket.Bucket) {
		for range 2 {
			s := open(t, &lossy{Bucket: b}, checkpoint.Options{TTL: 300 * time.Millisecond, Patience: 30 * time.Second})
			for p := range change.LSN(10) {
				must(t, s.Save(t.Context(), checkpoint.State{Position: p}))
			}
			s.Close(t.Context())
		}
	})
}

// plain is a store without conditional writes.
type plain struct{ bucket.Bucket }

func (p plain) Properties() bucket.Properties {
	o := p.Bucket.Properties()
	o.ConditionalPut = bucket.Unsupported
	return o
}

func (p plain) Create(ctx context.Context, key string, o bucket.WriteOptions) (bucket.Upload, error) {
	if o.IfAbsent || o.IfMatch != "" {
		return nil, fault.New(fault.BucketUnsupported, key, "no conditional writes")
	}
	return p.Bucket.Create(ctx, key, o)
}

func TestWithoutConditionalWritesTheLastOfTwoWins(t *testing.T) {
	t.Parallel()
	b := plain{memory(t)}
	var won atomic.Int32
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			s, err := checkpoint.Open(t.Context(), b, "p", checkpoint.Options{TTL: ttl, Settle: 300 * time.Millisecond})
			if err == nil {
				won.Add(1)
				must(t, s.Save(t.Context(), checkpoint.State{Position: 1}))
				t.Cleanup(func() { s.Close(context.Background()) })
			} else if !fault.Is(err, fault.PipelineBusy) {
				t.Errorf("%v", err)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Errorf("%d own the pipeline", won.Load())
	}
	if _, err := checkpoint.Ask(t.Context(), b, "p", checkpoint.Request{Action: checkpoint.Pause}); err != nil {
		t.Error(err)
	}
}

func TestRequestsReachThePipelineOnce(t *testing.T) {
	everywhere(t, func(t *testing.T, b bucket.Bucket) {
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				_, err := checkpoint.Ask(t.Context(), b, "p", checkpoint.Request{Action: checkpoint.Resync, Tables: []string{fmt.Sprint(i)}})
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		s := open(t, b, checkpoint.Options{})
		asked, keep, err := s.Requests(t.Context())
		if err != nil || len(asked) != 4 || len(keep) != 0 {
			t.Fatalf("%v %v %v", asked, keep, err)
		}
		var done []string
		for _, r := range asked[:3] {
			done = append(done, r.ID)
		}
		must(t, s.Save(t.Context(), checkpoint.State{Control: checkpoint.Control{Done: done}}))
		left, keep, err := s.Requests(t.Context())
		if err != nil || len(left) != 1 || left[0].ID != asked[3].ID || len(keep) != 3 {
			t.Errorf("%v %v %v", left, keep, err)
		}
		paused, err := checkpoint.Ask(t.Context(), b, "p", checkpoint.Request{Action: checkpoint.Pause})
		must(t, err)
		left, keep, err = s.Requests(t.Context())
		if err != nil || len(left) != 2 || left[1].ID != paused.ID || len(keep) != 0 {
			t.Errorf("%v %v %v", left, keep, err)
		}
	})
}
