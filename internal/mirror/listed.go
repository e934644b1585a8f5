package mirror

import (
	"context"
	"fmt"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// betweenHint is for objects that come otherwise than the source has them.
const betweenHint = "Look for a proxy, cache or gateway before the source that packs, unpacks or changes what passes; it must hand objects on as they are."

// inListing is an object as the source lists it now; object-missing where it does not.
func (r *run) inListing(ctx context.Context, key string) (bucket.Object, error) {
	for o, err := range r.from.bucket.List(ctx, key) {
		if err != nil || o.Key == key {
			return o, err
		}
		break // in their order, the key itself would have been the first that begins with it
	}
	return bucket.Object{}, fault.New(fault.ObjectMissing, r.where(key), "the source does not list it any more")
}

// listedNow is an object as the source has it now. Of a server the listing tells it: headers of other answers may be changed on the way.
func (r *run) listedNow(ctx context.Context, key string) (bucket.Object, error) {
	if r.from.carrier == nil {
		return r.from.bucket.Stat(ctx, key)
	}
	return r.inListing(ctx, key)
}

// asListedNow makes sure that an answer is about the object that was listed: a proxy, cache or gateway between may change bytes, and headers
// with them. An object that was written again since is the one that the source lists now, which it returns. What the answer does not
// say is taken from the listing.
func (r *run) asListedNow(ctx context.Context, listed bucket.Object, c *bucket.Cargo) (bucket.Object, error) {
	if contradiction(listed, *c) != "" {
		var err error
		if listed, err = r.listedNow(ctx, listed.Key); err != nil {
			return listed, err
		}
		if why := contradiction(listed, *c); why != "" {
			return listed, fault.Mended(r.mismatch(listed.Key, "%s", why), betweenHint)
		}
	}
	if c.ETag == "" || plainETag(c.ETag) == plainETag(listed.ETag) {
		c.ETag = listed.ETag // as the server writes it, and not as something between does
	}
	if c.Size < 0 {
		c.Size = listed.Size
	}
	return listed, nil
}

// contradiction says in what an answer differs from a listing; "" where it does not.
func contradiction(listed bucket.Object, c bucket.Cargo) string {
	packed := ""
	if c.ContentEncoding != "" {
		packed = " (Content-Encoding " + c.ContentEncoding + ")"
	}
	switch {
	case listed.ETag == "" && (c.ETag == "" || c.Size < 0):
		return "the answer has no ETag or no length" + packed
	case c.Size >= 0 && c.Size != listed.Size:
		return fmt.Sprintf("its listing tells of %d bytes and the answer of %d%s", listed.Size, c.Size, packed)
	case c.ETag != "" && telling(listed.ETag) && plainETag(c.ETag) != plainETag(listed.ETag):
		return fmt.Sprintf("its listing's ETag is %s and the answer's is %s%s", plainETag(listed.ETag), plainETag(c.ETag), packed)
	}
	return ""
}

// telling says whether an ETag is one that listings and other answers have alike: MinIO's listings have longer ones of encrypted objects.
func telling(etag string) bool { return md5ETag(etag) != "" || partsOf(etag) > 0 }
