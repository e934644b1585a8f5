package mirror

import (
	"sync"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// tally counts what happens and tells the watcher.
type tally struct {
	mu     sync.Mutex
	report Report
	unheld int64 // plain objects that failed because of their keys alone: nothing at the target can need them
	watch  Watcher
}

func (t *tally) begin(from, to string, o Options) {
	t.watch = o.Watch
	t.report = Report{
		FormatVersion: reportVersion, From: from, To: to, Started: o.Now().UTC(), Same: map[Way]int64{}, Reasons: map[Reason]int{},
		SetAside: []Dead{}, FailedBy: map[fault.Code]int64{}, LeftOut: map[fault.Code]int64{}, NotCarried: map[Attribute]int64{}, DryRun: o.DryRun,
	}
}

func (t *tally) end(now time.Time) Report {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report.Finished = now.UTC()
	return t.report
}

func (t *tally) add(change func(r *Report)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change(&t.report)
}

func (t *tally) object(o bucket.Object) {
	t.add(func(r *Report) { r.Objects++; r.Bytes += o.Size })
}

func (t *tally) compared(o bucket.Object, v Verdict) {
	t.add(func(r *Report) {
		if v.Same != "" {
			r.Same[v.Same]++
		} else {
			r.Reasons[v.Differ]++
		}
	})
	t.watch.Seen(o, v)
}

func (t *tally) moved(bytes int64) { t.watch.Moved(bytes) }

func (t *tally) carried(key string, bytes int64) {
	t.add(func(r *Report) { r.Carried.Objects++; r.Carried.Bytes += bytes })
	t.watch.Carried(key, bytes, "carried")
}

func (t *tally) copied(key string, bytes int64) {
	t.add(func(r *Report) { r.Copied.Objects++; r.Copied.Bytes += bytes })
	t.watch.Moved(bytes)
	t.watch.Carried(key, bytes, "copied by the server")
}

func (t *tally) deleted(key string) {
	t.add(func(r *Report) { r.Deleted++ })
	t.watch.Deleted(key)
}

func (t *tally) again(key string, err error, wait time.Duration) {
	t.add(func(r *Report) { r.Retries++ })
	t.watch.Again(key, err, wait)
}

func (t *tally) setAside(key string, err error) {
	code := codeOf(err)
	t.add(func(r *Report) {
		r.Failed++
		r.FailedBy[code]++
		if len(r.SetAside) < mostDead {
			r.SetAside = append(r.SetAside, Dead{key, KeyBytes(key), code, err.Error()})
		}
	})
	t.watch.SetAside(key, err)
}

// setUnheld is setAside for an object that nothing else names; one whose key cannot be kept holds up no deletion.
func (t *tally) setUnheld(key string, err error) {
	if fault.Is(err, fault.KeyRefused) {
		t.mu.Lock()
		t.unheld++
		t.mu.Unlock()
	}
	t.setAside(key, err)
}

// holdsUp says whether something failed that what the target shows may need, beside those that failed because of what is deleted.
func (t *tally) holdsUp(freed int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.report.Failed > t.unheld+freed
}

func (t *tally) leftOut(key string, err error) {
	t.add(func(r *Report) { r.LeftOut[codeOf(err)]++ })
	t.watch.LeftOut(key, err)
}

func (t *tally) notCarried(attributes []Attribute) {
	if len(attributes) == 0 {
		return
	}
	t.add(func(r *Report) {
		for _, a := range attributes {
			r.NotCarried[a]++
		}
	})
}
