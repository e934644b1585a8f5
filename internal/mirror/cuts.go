package mirror

import (
	"context"
	"crypto/md5"
	"fmt"
	"hash"
	"slices"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// cut says how an object is divided into parts: the size of each.
type cut []int64

// evenly cuts an object into parts of one size; the last one may be smaller.
func evenly(whole, size int64) cut {
	c := make(cut, 0, (whole+size-1)/size)
	for ; whole > size; whole -= size {
		c = append(c, size)
	}
	return append(c, whole)
}

func (c cut) bytes() (sum int64) {
	for _, size := range c {
		sum += size
	}
	return sum
}

// largeParts are sizes beyond the usual ones, in MiB, of parts that are not held in memory.
var largeParts = []int64{80, 96, 100, 128, 200, 250, 256, 500, 512, 1000, 1024, 2048, 4096, 5000, 5120}

// likelyCuts are the ways in which an object of that many parts may have been cut, the likeliest first, by what the
// source said of its first part. Certain: it is the only one.
func likelyCuts(c bucket.Cargo) (cuts []cut, certain bool) {
	n := partsOf(c.ETag)
	fits := func(size int64) bool { return size > 0 && (c.Size+size-1)/size == int64(n) }
	switch {
	case n == 0 || n > mostParts || c.Size == 0 || opaque(c.Encryption):
		return nil, false
	case n == 1:
		return []cut{{c.Size}}, true
	case n == 2 && c.PartSize > 0:
		return []cut{{c.PartSize, c.Size - c.PartSize}}, true
	case c.PartSize > 0:
		if fits(c.PartSize) {
			cuts = []cut{evenly(c.Size, c.PartSize)}
		}
		return cuts, false
	}
	for _, mib := range slices.Concat(usualParts, largeParts) {
		if fits(mib << 20) {
			cuts = append(cuts, evenly(c.Size, mib<<20))
		}
	}
	return cuts, false
}

// cuts asks the source how it has cut an object. Where it does not tell, all likely ways are tried.
func (r *run) cuts(ctx context.Context, c bucket.Cargo) (cuts []cut, certain bool, err error) {
	cuts, certain = likelyCuts(c)
	if n := partsOf(c.ETag); !certain && n > 0 && n <= mostParts && c.Size > 0 && !opaque(c.Encryption) {
		sizes, err := r.from.carrier.PartSizes(ctx, c.Object, n)
		if fault.Is(err, fault.ObjectExists) {
			return nil, false, r.changed(c.Key)
		}
		if err != nil {
			return nil, false, err
		}
		if told := cut(sizes); told.bytes() == c.Size {
			return []cut{told}, true, nil
		}
	}
	return cuts, certain, nil
}

// inParts is the hash that servers make the ETag of an object in parts of: the MD5 of the MD5s of its parts.
type inParts struct {
	cut       cut
	part, all hash.Hash
	number    int   // of the part that is being hashed, from 0
	left      int64 // bytes of it
}

func newInParts(c cut) *inParts { return &inParts{cut: c, part: md5.New(), all: md5.New(), left: c[0]} }

// Write never fails. What comes behind the last part counts to it.
func (h *inParts) Write(p []byte) (int, error) {
	written := len(p)
	for len(p) > 0 {
		now := int64(len(p))
		if h.number < len(h.cut)-1 {
			now = min(now, h.left)
		}
		_, _ = h.part.Write(p[:now]) // it never fails
		p, h.left = p[now:], h.left-now
		if h.left == 0 && h.number < len(h.cut)-1 {
			h.all.Write(h.part.Sum(nil))
			h.part.Reset()
			h.number++
			h.left = h.cut[h.number]
		}
	}
	return written, nil
}

// etag ends the hash.
func (h *inParts) etag() string {
	h.all.Write(h.part.Sum(nil))
	return fmt.Sprintf("%x-%d", h.all.Sum(nil), len(h.cut))
}

// again is what an object must come to when it is read once more, because the first reading could not be compared
// with what the source says.
type again struct {
	etag    string
	ways    []*inParts
	certain bool
}

func (r *run) onceMore(ctx context.Context, c bucket.Cargo) (again, error) {
	cuts, certain, err := r.cuts(ctx, c)
	a := again{etag: plainETag(c.ETag), certain: certain}
	for _, c := range cuts {
		a.ways = append(a.ways, newInParts(c))
	}
	return a, err
}

// right is an error when the bytes that came do not have the source's ETag although it is known how the source has
// cut the object.
func (a *again) right() error {
	own := ""
	for _, way := range a.ways {
		if own = way.etag(); own == a.etag {
			return nil
		}
	}
	if a.certain {
		return otherETag(a.etag, own)
	}
	return nil
}

func otherETag(source, own string) error {
	return fmt.Errorf("its source's ETag is %s and the bytes that came have %s", source, own)
}

func (a *again) Write(p []byte) (int, error) {
	for _, way := range a.ways {
		_, _ = way.Write(p) // it never fails
	}
	return len(p), nil
}
