package mirror

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// sideWide says whether an error may be about a whole side. It may also be about one object: a gateway that rewrites one key breaks the
// signature of that one alone.
func sideWide(err error) bool {
	return fault.Is(err, fault.BucketAuth) || fault.Is(err, fault.BucketMissing) || fault.Is(err, fault.BucketFull)
}

// ends says whether an error ends the run: a side fails for plain requests too, and not for one object alone, or the two places are one.
func (r *run) ends(ctx context.Context, err error) bool {
	return ctx.Err() != nil || fault.Is(err, fault.MirrorRefused) || sideWide(err) && r.plainly(ctx, fault.Is(err, fault.BucketFull)) != nil
}

// plainTries is how often a plain request is sent before a side counts as one that fails.
const plainTries = 4

// plainly sends the plainest request to each side, a listing, and on demand writes a few bytes at the target.
func (r *run) plainly(ctx context.Context, write bool) error {
	requests := []func(context.Context) error{r.from.lists, r.to.lists}
	if write {
		requests = append(requests, r.to.writes)
	}
	for _, request := range requests {
		err := request(ctx)
		for try := 1; try < plainTries && fault.Retryable(err) && ctx.Err() == nil; try++ {
			if late := r.pause(ctx, job{attempts: try}, err); late != nil {
				return late
			}
			err = request(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lists asks for the beginning of a listing.
func (s side) lists(ctx context.Context) error {
	if s.carrier != nil {
		return s.carrier.Answers(ctx)
	}
	for _, err := range s.bucket.List(ctx, "") {
		return err
	}
	return nil
}

// writes tries to write where the report comes to lie.
func (s side) writes(ctx context.Context) error {
	key := reportFolder + "probe-" + strings.ToLower(rand.Text()[:12])
	if _, err := bucket.WriteAll(ctx, s.bucket, key, []byte("leat tries whether it can write here\n"), bucket.WriteOptions{}); err != nil {
		return err
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	_ = s.bucket.Delete(late, key) // without the right it stays: a few bytes that say what they are
	return nil
}
