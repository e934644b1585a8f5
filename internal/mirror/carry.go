package mirror

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// side is one of the two buckets.
type side struct {
	bucket  bucket.Bucket
	carrier bucket.Carrier // nil where the kind is none
}

func newSide(b bucket.Bucket) side {
	c, ok := bucket.CarrierOf(b)
	if !ok {
		return side{bucket: b}
	}
	return side{c, c} // keys are the servers' business: those that our own writers would not choose are carried too
}

// onePart is up to which size an object is carried in one request.
const onePart = 16 << 20

// carry brings one object over, unless the far side has it.
func (r *run) carry(ctx context.Context, j job) error {
	if !j.sure {
		v, err := r.compare(ctx, j.object, j.far)
		if err != nil {
			return j.gone(err)
		}
		if j.attempts == 0 {
			r.tally.compared(j.object, v)
		}
		if v.Same != "" || r.o.DryRun {
			return nil
		}
	}
	return j.gone(r.bring(ctx, j.object))
}

// gone takes the end of an object for its end: it was deleted at the source since it was listed. What something else needs must
// not be gone.
func (j job) gone(err error) error {
	if !j.needed && fault.Is(err, fault.ObjectMissing) {
		return nil
	}
	return err
}

// bring carries an object in the way that suits it.
func (r *run) bring(ctx context.Context, o bucket.Object) error {
	switch {
	case r.from.carrier == nil || r.to.carrier == nil:
		return r.bringStream(ctx, o)
	case r.server && o.Size <= mostCopied:
		return r.bringByServer(ctx, o)
	case o.Size <= onePart && partsOf(o.ETag) == 0:
		return r.bringWhole(ctx, o)
	}
	return r.bringParts(ctx, o)
}

// mostCopied is what S3 copies in one request
// (docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html).
const mostCopied = 5 << 30

// mostPooled is up to which size a buffer serves one object after another.
const mostPooled = 256 << 10

func (r *run) bringWhole(ctx context.Context, o bucket.Object) error {
	if err := r.memory.take(ctx, o.Size); err != nil {
		return err
	}
	defer r.memory.give(o.Size)
	c, body, err := r.from.carrier.Fetch(ctx, o.Key, "")
	if err != nil {
		return err
	}
	defer body.Close()
	if c.Size > onePart || c.Size < 0 {
		return r.changed(o.Key)
	}
	buffer := r.buffers.Get().(*[]byte)
	defer r.buffers.Put(buffer)
	if int64(cap(*buffer)) < c.Size {
		*buffer = make([]byte, c.Size)
	}
	data := (*buffer)[:c.Size]
	if c.Size > mostPooled {
		*buffer = nil // a large one would stay with a small object
	}
	if _, err := io.ReadFull(r.paced(ctx, body), data); err != nil {
		return r.cut(ctx, err, o.Key)
	}
	sum := md5.Sum(data)
	own := hex.EncodeToString(sum[:])
	if hashed(c.Object) && own != md5ETag(c.ETag) {
		return r.mismatch(o.Key, "its source's ETag is %s and the bytes that came have %s", md5ETag(c.ETag), own)
	}
	if err := checkSums(c, bytes.NewReader(data)); err != nil {
		return r.mismatch(o.Key, "%s", err.Error())
	}
	if c.Tagged {
		if c.Tags, err = r.from.carrier.Tags(ctx, c.Key); err != nil {
			return err
		}
	}
	if !hashed(c.Object) {
		c.Object = withOrigin(c.Object)
	}
	hash := sha256.Sum256(data)
	etag, encryption, err := r.to.carrier.Deliver(ctx, c, data, hash)
	if err != nil {
		return err
	}
	if tag := md5ETag(etag); tag != "" && !opaque(encryption) && tag != own {
		return r.mismatch(o.Key, "the far side's ETag is %s and the bytes that were sent have %s", tag, own)
	}
	r.sums.put(o.Key, hash)
	r.tally.carried(o.Key, c.Size)
	return nil
}

// askTags asks for tags. Not every server tells in the answer to a HEAD that there are some; keys may lack the right to ask.
func (r *run) askTags(ctx context.Context, c bucket.Cargo) (string, error) {
	tags, err := r.from.carrier.Tags(ctx, c.Key)
	if !c.Tagged && (fault.Is(err, fault.BucketRights) || fault.Is(err, fault.BucketUnsupported)) {
		return "", nil
	}
	return tags, err
}

// keepTags sees to tags that a server has taken with an upload in parts or a copy, and forgotten.
func (r *run) keepTags(ctx context.Context, c bucket.Cargo) error {
	if c.Tags == "" {
		return nil
	}
	tags, err := r.to.carrier.Tags(ctx, c.Key)
	if err == nil && tags != c.Tags {
		err = r.to.carrier.Tag(ctx, c.Key, c.Tags)
	}
	return err
}

// withOrigin notes the source's ETag, where the far side's will be another one.
func withOrigin(o bucket.Object) bucket.Object {
	o.Metadata = maps.Clone(o.Metadata)
	if o.Metadata == nil {
		o.Metadata = map[string]string{}
	}
	if o.ETag != "" {
		o.Metadata[originKey] = plainETag(o.ETag)
	}
	return o
}

// bringByServer has the server copy an object by itself.
func (r *run) bringByServer(ctx context.Context, o bucket.Object) error {
	c := bucket.Cargo{Object: o}
	if md5ETag(o.ETag) == "" { // the copy has another ETag
		var err error
		if c, err = r.from.carrier.Describe(ctx, o.Key); err != nil {
			return err
		}
		if c.Tags, err = r.askTags(ctx, c); err != nil {
			return err
		}
		c.Object = withOrigin(c.Object)
	}
	etag, err := r.to.carrier.Copy(ctx, r.from.carrier, c)
	if fault.Is(err, fault.ObjectExists) {
		return r.changed(o.Key)
	}
	if err != nil {
		return err
	}
	if err := r.keepTags(ctx, c); err != nil {
		return err
	}
	if was, is := md5ETag(o.ETag), md5ETag(etag); was != "" && is != "" && was != is {
		there, err := r.to.carrier.Describe(ctx, o.Key)
		if err != nil {
			return err
		}
		if !opaque(there.Encryption) {
			return r.mismatch(o.Key, "its source's ETag is %s and its copy's is %s", was, is)
		}
	}
	r.tally.copied(o.Key, o.Size)
	return nil
}

// bringStream is for kinds of which only bytes, type and metadata are known.
func (r *run) bringStream(ctx context.Context, o bucket.Object) error {
	about, err := r.from.bucket.Stat(ctx, o.Key)
	if err != nil {
		return err
	}
	in, err := r.from.bucket.Open(ctx, o.Key, 0, -1)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := r.to.bucket.Create(ctx, o.Key, bucket.WriteOptions{ContentType: about.ContentType, Metadata: withOrigin(about).Metadata})
	if err != nil {
		return err
	}
	defer out.Abort()
	hash, sum := sha256.New(), md5.New()
	n, err := io.Copy(io.MultiWriter(out, hash, sum), r.paced(ctx, in))
	if err != nil {
		return r.cut(ctx, err, o.Key)
	}
	if n != about.Size {
		return r.mismatch(o.Key, "it has %d bytes and %d came", about.Size, n)
	}
	own := hex.EncodeToString(sum.Sum(nil))
	if r.from.carrier != nil && hashed(about) && md5ETag(about.ETag) != own {
		return r.mismatch(o.Key, "its source's ETag is %s and the bytes that came have %s", md5ETag(about.ETag), own)
	}
	if _, err := out.Commit(ctx); err != nil {
		return err
	}
	r.sums.put(o.Key, [32]byte(hash.Sum(nil)))
	r.tally.carried(o.Key, n)
	return nil
}

func (r *run) where(key string) string { return r.from.bucket.Properties().URL + "/" + key }

// changed is for an object that was written anew since it was listed: it is tried again as it is now.
func (r *run) changed(key string) error {
	return fault.New(fault.BucketBusy, r.where(key), "the object changed while it was carried")
}

func (r *run) mismatch(key, format string, args ...any) error {
	return fault.New(fault.ChecksumMismatch, r.where(key), "%s", fmt.Sprintf(format, args...))
}

// cut judges the end of a body that came too early.
func (r *run) cut(ctx context.Context, err error, key string) error {
	if ctx.Err() != nil {
		return fault.Wrap(context.Cause(ctx), fault.Interrupted, r.where(key), "the mirror was ended")
	}
	if fault.Of(err) != nil {
		return err
	}
	return fault.Wrap(err, fault.BucketUnreachable, r.where(key), "the object's bytes ended too early")
}

// paced keeps a reader to the rate and tells the watcher of its bytes.
func (r *run) paced(ctx context.Context, in io.Reader) io.Reader { return &pacedReader{ctx, r, in} }

type pacedReader struct {
	ctx context.Context
	run *run
	in  io.Reader
}

func (p *pacedReader) Read(b []byte) (int, error) {
	if p.run.rate != nil {
		b = b[:min(len(b), p.run.rate.Burst())]
	}
	n, err := p.in.Read(b)
	if n > 0 {
		p.run.tally.moved(int64(n))
		if p.run.rate != nil {
			if late := p.run.rate.WaitN(p.ctx, n); late != nil {
				return n, late
			}
		}
	}
	return n, err
}
