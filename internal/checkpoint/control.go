package checkpoint

import (
	"context"
	"crypto/rand"
	"slices"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// Action is what somebody wants of a running pipeline.
type Action string

// The actions.
const (
	Pause  Action = "pause"
	Resume Action = "resume"
	Resync Action = "resync" // copy tables anew
)

// Request is an action that somebody asked for.
type Request struct {
	ID     string    `json:"id"` // made by Ask
	Action Action    `json:"action"`
	Tables []string  `json:"tables,omitempty"`
	All    bool      `json:"all,omitempty"` // every table
	By     string    `json:"by,omitempty"`
	At     time.Time `json:"at"` // by the clock of who asked: for people
}

type controls struct {
	Version  int       `json:"version"`
	Requests []Request `json:"requests"` // the oldest first
}

// Ask leaves a request for the pipeline, whether or not it runs, and returns it with its ID. Those that the pipeline has taken up
// are cleared away. Several may ask at once.
func Ask(ctx context.Context, b bucket.Bucket, prefix string, r Request) (Request, error) {
	prefix = folder(prefix)
	if r.ID == "" {
		r.ID = rand.Text()
	}
	conditions, err := conditional(ctx, b, prefix)
	if err != nil {
		return r, err
	}
	for attempt := range mostAttempts {
		if err := pauseBefore(ctx, attempt, prefix+controlKey); err != nil {
			return r, err
		}
		have, etag, err := readControls(ctx, b, prefix)
		if err != nil {
			return r, err
		}
		if slices.ContainsFunc(have.Requests, func(q Request) bool { return q.ID == r.ID }) {
			return r, nil // an answer that was lost: it had been written
		}
		s, _, err := readHead(ctx, b, prefix)
		if err != nil {
			return r, err
		}
		have.Requests = append(pending(have.Requests, s.Control.Done), r)
		o := only(etag)
		if !conditions {
			o = bucket.WriteOptions{}
		}
		_, err = write(ctx, b, prefix+controlKey, have, o)
		if err == nil || !fault.Is(err, fault.ObjectExists) {
			return r, err
		}
	}
	return r, fault.New(fault.BucketBusy, prefix+controlKey, "other requests were in the way at each of %d attempts", mostAttempts)
}

func readControls(ctx context.Context, b bucket.Bucket, prefix string) (controls, string, error) {
	o, err := read(ctx, b, prefix+controlKey)
	if err != nil || o.etag == "" {
		return controls{Version: Version}, "", err
	}
	var c controls
	err = decode(o.data, prefix+controlKey, &c)
	return c, o.etag, err
}

func pending(all []Request, done []string) []Request {
	return slices.DeleteFunc(slices.Clone(all), func(r Request) bool { return slices.Contains(done, r.ID) })
}

// Requests lists what has been asked for and not been taken up: what is in the saved State's Control.Done has been. It also
// returns which of Done must be kept, since Ask has cleared the others away.
func (s *Store) Requests(ctx context.Context) (open []Request, keep []string, err error) {
	c, _, err := readControls(ctx, s.bucket, s.prefix)
	if err != nil {
		return nil, nil, err
	}
	done := s.State().Control.Done
	for _, id := range done {
		if slices.ContainsFunc(c.Requests, func(r Request) bool { return r.ID == id }) {
			keep = append(keep, id)
		}
	}
	return pending(c.Requests, done), keep, nil
}
