package mirror

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// bringStream carries between kinds of which one is no S3 bucket: in one piece, in order.
func (r *run) bringStream(ctx context.Context, o bucket.Object, exact bool) error {
	cargo, err := r.describe(ctx, o.Key)
	if err != nil {
		return err
	}
	if err := r.asListed(o, cargo.Object, exact); err != nil {
		return err
	}
	if _, err = r.asListedNow(ctx, o, &cargo); err != nil {
		return err
	}
	kept, lost := withOrigin(cargo.Object, true).Metadata, false
	if r.to.carrier == nil {
		kept, lost = keepable(kept)
	}
	opts := bucket.WriteOptions{ContentType: cargo.Object.ContentType, Metadata: kept}
	out, err := r.to.bucket.Create(ctx, o.Key, opts)
	if err != nil {
		return err
	}
	defer out.Abort()
	sum, err := r.stream(ctx, cargo, out)
	if err != nil {
		return err
	}
	if _, err := out.Commit(ctx); err != nil {
		return err
	}
	if err := r.came(ctx, o.Key, missedElsewhere(cargo, lost, r.o.Now())); err != nil {
		return err
	}
	r.sums.put(o.Key, sum)
	r.tally.carried(o.Key, cargo.Size)
	return nil
}

// stream copies an object's bytes and compares them with all that the source says of them. It returns their SHA-256.
func (r *run) stream(ctx context.Context, c bucket.Cargo, out io.Writer) (sum [sha256.Size]byte, err error) {
	told := r.toldSums(c)
	whole := sha256.New()
	into := []io.Writer{out, whole}
	for _, s := range told {
		into = append(into, s.hash)
	}
	cuts, certain := likelyCuts(c)
	var guess *inParts
	if len(cuts) > 0 {
		guess = newInParts(cuts[0])
		into = append(into, guess)
	}
	var plain hash.Hash // some servers that encrypt make their ETags of the plain bytes all the same
	if r.from.carrier != nil && len(told) == 0 && md5ETag(c.ETag) != "" {
		plain = md5.New()
		into = append(into, plain)
	}
	if err := r.readThrough(ctx, c, into...); err != nil {
		return sum, err
	}
	sum = [sha256.Size]byte(whole.Sum(nil))
	for _, s := range told {
		if err := s.right(); err != nil {
			return sum, r.mismatch(c.Key, "%s", err.Error())
		}
	}
	switch {
	case guess != nil && certain:
		if own := guess.etag(); own != plainETag(c.ETag) {
			return sum, r.mismatch(c.Key, "%s", otherETag(plainETag(c.ETag), own))
		}
		return sum, nil
	case guess != nil && guess.etag() == plainETag(c.ETag), len(told) > 0, c.Size == 0,
		plain != nil && hex.EncodeToString(plain.Sum(nil)) == md5ETag(c.ETag):
		return sum, nil
	}
	return sum, r.streamTwice(ctx, c, sum)
}

// toldSums are the hashes of the whole that the source tells.
func (r *run) toldSums(c bucket.Cargo) []expectedSum {
	if r.from.carrier == nil { // its ETags are no hashes
		c.ETag = ""
	}
	return wholeSums(c, false)
}

// readThrough reads an object from its beginning to its end.
func (r *run) readThrough(ctx context.Context, c bucket.Cargo, into ...io.Writer) error {
	in, err := r.from.bucket.Open(ctx, c.Key, 0, -1)
	if err != nil {
		return err
	}
	defer in.Close()
	n, err := io.Copy(io.MultiWriter(into...), r.paced(ctx, in))
	if err != nil {
		return r.cut(ctx, err, c.Key)
	}
	if n != c.Size {
		return r.mismatch(c.Key, "it has %d bytes and %d came", c.Size, n)
	}
	return r.unchanged(ctx, c)
}

// unchanged is an error when a file was written while it was read. A server's objects are read as they were when the
// reading began.
func (r *run) unchanged(ctx context.Context, c bucket.Cargo) error {
	if r.from.bucket.Properties().Kind != bucket.KindFolder {
		return nil
	}
	now, err := r.from.bucket.Stat(ctx, c.Key)
	if err != nil {
		return err
	}
	if now.ETag != c.ETag {
		return r.changed(c.Key)
	}
	return nil
}

// streamTwice is for an object of which nothing tells yet whether it came right: what comes a second time must
// be the same, and have the source's ETag where it is known how that is made. A file is not read twice: it would come
// from memory.
func (r *run) streamTwice(ctx context.Context, c bucket.Cargo, first [sha256.Size]byte) error {
	if kind := r.from.bucket.Properties().Kind; kind == bucket.KindFolder || kind == bucket.KindMemory {
		return nil
	}
	more, err := r.onceMore(ctx, c)
	if err != nil {
		return err
	}
	second := sha256.New()
	if err := r.readThrough(ctx, c, second, &more); err != nil {
		return err
	}
	if !bytes.Equal(second.Sum(nil), first[:]) {
		return r.mismatch(c.Key, "it came differently when it was read again")
	}
	if err := more.right(); err != nil {
		return fault.Mended(r.mismatch(c.Key, "%s", err.Error()), betweenHint)
	}
	return nil
}
