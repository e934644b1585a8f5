package dump

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
)

// kept is an upload that keeps what is written, or fails at its nth byte. It stands for a wire, not for a bucket:
// what is tested is what reaches it, and in which order.
type kept struct {
	bytes.Buffer
	failAt int // 0 is never
	err    error
}

func (k *kept) Write(p []byte) (int, error) {
	if k.failAt > 0 && k.Len()+len(p) >= k.failAt {
		return 0, k.err
	}
	return k.Buffer.Write(p)
}

func (k *kept) Commit(context.Context) (bucket.Object, error) { return bucket.Object{}, nil }
func (k *kept) Abort()                                        {}

// ahead is what a unit may hold in these tests: little, so that units wait for each other all the time.
const ahead = 4 << 10

func joinedOver(k *kept) *joined {
	j := newJoined(&sink{key: "k", upload: k, hash: sha256.New()})
	j.ahead = ahead
	return j
}

// inOrder hands the units out as readAll does: each to the next free of a few workers.
func inOrder(units, workers int, do func(unit int)) {
	queue := make(chan int)
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for u := range queue {
				do(u)
			}
		})
	}
	for u := range units {
		queue <- u
	}
	close(queue)
	all.Wait()
}

func randomUnits(dice *rand.Rand) (units [][]byte, whole []byte) {
	for range 1 + dice.IntN(40) {
		size := dice.IntN(100)
		switch dice.IntN(10) {
		case 0:
			size = 0
		case 1:
			size = dice.IntN(4 * ahead) // more than may be ahead
		}
		u := make([]byte, size)
		for i := range u {
			u[i] = byte(dice.Uint32())
		}
		units, whole = append(units, u), append(whole, u...)
	}
	return units, whole
}

// sendSome writes data in pieces of random size.
func sendSome(t *testing.T, w io.Writer, dice *rand.Rand, data []byte) (sent int) {
	for sent < len(data) {
		n, err := w.Write(data[sent:][:1+dice.IntN(len(data)-sent)])
		if err != nil {
			t.Error(err)
			return sent
		}
		sent += n
		runtime.Gosched()
	}
	return sent
}

func TestJoinedPartsComeOutAsTheyWouldOneAfterTheOther(t *testing.T) {
	t.Parallel()
	for range 200 {
		seed := rand.Uint64()
		dice := rand.New(rand.NewPCG(seed, 0))
		units, whole := randomUnits(dice)
		k := &kept{}
		j := joinedOver(k)
		workers := 1 + dice.IntN(8)
		inOrder(len(units), workers, func(u int) {
			mine := rand.New(rand.NewPCG(seed, uint64(u)))
			part := j.writer(t.Context(), u)
			sent := sendSome(t, part, mine, units[u][:mine.IntN(len(units[u])+1)])
			if mine.IntN(2) == 0 && part.retract() { // the connection was cut: once more from the start
				part, sent = j.writer(t.Context(), u), 0
			}
			sendSome(t, part, mine, units[u][sent:])
			if err := part.end(); err != nil {
				t.Error(err)
			}
		})
		if !bytes.Equal(k.Bytes(), whole) {
			t.Errorf("seed %d: %d units with %d workers give %d other bytes than their %d", seed, len(units), workers, k.Len(), len(whole))
		}
	}
}

func TestAFailingObjectFailsEveryWriter(t *testing.T) {
	t.Parallel()
	full := errors.New("full")
	k := &kept{failAt: 1000, err: full}
	j := joinedOver(k)
	inOrder(50, 8, func(u int) {
		part := j.writer(t.Context(), u)
		_, err := part.Write(make([]byte, 100))
		if err == nil {
			err = part.end()
		}
		if err != nil && !errors.Is(err, full) {
			t.Errorf("unit %d: %v", u, err)
		}
		if err != nil && part.retract() {
			t.Errorf("unit %d may be tried again although the object failed", u)
		}
	})
	if _, err := j.writer(t.Context(), 50).Write([]byte("x")); !errors.Is(err, full) {
		t.Errorf("after the failure a writer hears %v", err)
	}
}

func TestACancelledContextEndsAllWriters(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	j := joinedOver(&kept{})
	j.writer(ctx, 0) // its turn never ends
	enough := make([]byte, ahead)
	var waiting, all sync.WaitGroup
	why := errors.New("the dump was ended")
	for u := 1; u <= 4; u++ {
		part := j.writer(ctx, u)
		if _, err := part.Write(enough); err != nil {
			t.Fatal(err)
		}
		waiting.Add(1)
		all.Go(func() {
			waiting.Done()
			if _, err := part.Write(enough); !errors.Is(err, why) {
				t.Errorf("a writer ends with %v", err)
			}
		})
	}
	waiting.Wait()
	cancel(why)
	all.Wait()
}

// TestWhatIsHeldIsBounded: whoever is ahead of its turn takes no more than its share.
func TestWhatIsHeldIsBounded(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	j := joinedOver(&kept{})
	j.writer(ctx, 0)
	const writers, piece = 4, 300
	var all sync.WaitGroup
	for u := 1; u <= writers; u++ {
		part := j.writer(ctx, u)
		all.Go(func() {
			for { // until the context ends the wait
				if _, err := part.Write(make([]byte, piece)); err != nil {
					return
				}
			}
		})
	}
	held := func() (most, full int) {
		j.mu.Lock()
		defer j.mu.Unlock()
		for _, p := range j.parts {
			most = max(most, len(p.held))
			if len(p.held)+piece > ahead {
				full++
			}
		}
		return most, full
	}
	for {
		most, full := held()
		if most > ahead {
			t.Errorf("one writer holds %d bytes", most)
			break
		}
		if full == writers {
			break
		}
		runtime.Gosched()
	}
	cancel()
	all.Wait()
	if most, _ := held(); most > ahead {
		t.Errorf("one writer holds %d bytes", most)
	}
}
