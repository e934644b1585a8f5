package mirror

import (
	"context"
	"strings"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// Way is what two objects were compared by.
type Way string

// The ways, best first.
const (
	WayETag     Way = "etag"
	WayChecksum Way = "checksum"
	WayOrigin   Way = "origin"
	WayManifest Way = "manifest"
	WayTime     Way = "time"
)

// Reason is why an object is carried.
type Reason string

// The reasons.
const (
	ReasonMissing  Reason = "missing"
	ReasonSize     Reason = "size"
	ReasonETag     Reason = "etag"
	ReasonSum      Reason = "checksum"
	ReasonOrigin   Reason = "origin"
	ReasonManifest Reason = "manifest"
	ReasonTime     Reason = "time"
)

// Verdict is the outcome of a comparison: one of the two is set.
type Verdict struct {
	Same   Way
	Differ Reason
}

// originKey is in the metadata of far objects whose ETag cannot be the source's: the ETag that the source had.
const originKey = "leat-origin"

// compare says whether the far object is the near one. Only where the listings do not say enough are the objects themselves asked.
func (r *run) compare(ctx context.Context, near bucket.Object, far *bucket.Object) (Verdict, error) {
	switch {
	case far == nil:
		return Verdict{Differ: ReasonMissing}, nil
	case near.Size != far.Size:
		return Verdict{Differ: ReasonSize}, nil
	case sameETag(near, *far):
		return Verdict{Same: WayETag}, nil
	case r.from.carrier == nil || r.to.carrier == nil:
		return r.compareByOrigin(ctx, near, *far)
	}
	there, err := r.to.carrier.Describe(ctx, near.Key)
	if fault.Is(err, fault.ObjectMissing) {
		return Verdict{Differ: ReasonMissing}, nil
	}
	if err != nil {
		return Verdict{}, err
	}
	if v, known := byOrigin(near, there.Metadata); known {
		return v, nil
	}
	here, err := r.from.carrier.Describe(ctx, near.Key)
	if err != nil {
		return Verdict{}, err
	}
	for name, sum := range here.Sums {
		if other, ok := there.Sums[name]; ok {
			if sum == other {
				return Verdict{Same: WayChecksum}, nil
			}
			return Verdict{Differ: ReasonSum}, nil
		}
	}
	if hashed(here.Object) && hashed(there.Object) {
		return Verdict{Differ: ReasonETag}, nil
	}
	other := *far
	near.Sums, other.Sums = here.Sums, there.Sums
	return r.byManifest(ctx, near, other)
}

// compareByOrigin is for kinds whose objects tell nothing but metadata.
func (r *run) compareByOrigin(ctx context.Context, near, far bucket.Object) (Verdict, error) {
	there, err := r.to.bucket.Stat(ctx, near.Key)
	if fault.Is(err, fault.ObjectMissing) {
		return Verdict{Differ: ReasonMissing}, nil
	}
	if err != nil {
		return Verdict{}, err
	}
	if v, known := byOrigin(near, there.Metadata); known {
		return v, nil
	}
	return r.byManifest(ctx, near, far)
}

// byManifest compares by what the manifests of dumps say of their files, or the one side's manifest and the other's server, and by time where
// they say nothing. The far side's manifest may have come without a look at the files, by another program: that they are the same counts
// only where the time does not speak against it.
func (r *run) byManifest(ctx context.Context, near, far bucket.Object) (Verdict, error) {
	here, there := kept(near), kept(far)
	proved := there != ""
	var err error
	if here == "" {
		if here, err = r.from.dumps.sumOf(ctx, near); err != nil {
			return Verdict{}, err
		}
	}
	if here != "" && there == "" {
		if there, err = r.to.dumps.sumOf(ctx, far); err != nil {
			return Verdict{}, err
		}
	}
	switch {
	case here == "" || there == "":
		return r.byTime(near, far), nil
	case here != there:
		return Verdict{Differ: ReasonManifest}, nil
	}
	if v := r.byTime(near, far); v.Differ != "" && !proved {
		return v, nil
	}
	return Verdict{Same: WayManifest}, nil
}

func byOrigin(near bucket.Object, metadata map[string]string) (Verdict, bool) {
	origin := metadata[originKey]
	switch {
	case origin == "" || near.ETag == "":
		return Verdict{}, false
	case origin == plainETag(near.ETag):
		return Verdict{Same: WayOrigin}, true
	}
	return Verdict{Differ: ReasonOrigin}, true
}

// clockGrain is how far the difference of two servers' clocks may be off: they say whole seconds.
const clockGrain = 2 * time.Second

// byTime compares times of two clocks: those of servers are set right by what each says the time is.
func (r *run) byTime(near, far bucket.Object) Verdict {
	apart := bucket.Ahead(r.to.bucket) - bucket.Ahead(r.from.bucket)
	if apart.Abs() <= clockGrain {
		apart = 0
	}
	if far.Modified.Add(-apart).Before(near.Modified) {
		return Verdict{Differ: ReasonTime}
	}
	return Verdict{Same: WayTime}
}

// sameETag says whether two objects have one ETag; where there is none nothing is said.
func sameETag(a, b bucket.Object) bool {
	return a.ETag != "" && plainETag(a.ETag) == plainETag(b.ETag)
}

func plainETag(etag string) string { return strings.Trim(strings.TrimPrefix(etag, "W/"), `"`) }

// hashed says whether an ETag is the MD5 of the content: 32 digits, and not of an object whose key is the server's or the owner's.
func hashed(o bucket.Object) bool { return md5ETag(o.ETag) != "" && !opaque(o.Encryption) }

// opaque encryptions give ETags that say nothing of the content
// (docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html).
func opaque(encryption string) bool { return encryption != "" && encryption != "AES256" }

// md5ETag is the ETag if it can be an MD5, else empty.
func md5ETag(etag string) string {
	e := plainETag(etag)
	if len(e) != 32 || strings.Trim(e, "0123456789abcdef") != "" {
		return ""
	}
	return e
}
