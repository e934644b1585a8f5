package mirror

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
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
	dumps   *dumps
}

func newSide(b bucket.Bucket) side {
	c, ok := bucket.CarrierOf(b)
	if !ok {
		return side{bucket: b, dumps: &dumps{bucket: b}}
	}
	return side{c, c, &dumps{bucket: c}} // keys are the servers' business: those that our own writers would not choose are carried too
}

// onePart is up to which size an object is carried in one request.
const onePart = 16 << 20

// carry brings one object over, unless the far side has it.
func (r *run) carry(ctx context.Context, j job) error {
	err := r.attempt(ctx, j)
	switch {
	case err == nil:
		return nil
	case !j.needed && codeOf(err) == fault.ObjectMissing:
		return r.gone(ctx, j.object.Key, err)
	case fault.Is(err, fault.ObjectArchived):
		return r.archived(ctx, j, err)
	}
	return err
}

func (r *run) attempt(ctx context.Context, j job) (err error) {
	o := j.object
	if err := r.held(ctx, o.Key); err != nil {
		return err
	}
	if j.attempts > 0 && !j.exact { // it may have failed because it changed since it was listed
		if o, err = r.listedNow(ctx, o.Key); err != nil {
			return err
		}
	}
	if j.lock {
		return r.follow(ctx, o)
	}
	if !j.sure {
		v, err := r.compare(ctx, o, j.far)
		if err != nil {
			return err
		}
		if j.attempts == 0 {
			r.tally.compared(o, v)
		}
		if v.Same != "" {
			return r.follow(ctx, o)
		}
		if r.o.DryRun {
			return nil
		}
	}
	if j.far != nil {
		if err := r.isBeside(ctx, o.Key); err != nil {
			return err
		}
		if err := r.veils.lift(ctx, r.to, r.o.Filter.names, o.Key); err != nil {
			return err
		}
	}
	return r.bring(ctx, o, j.exact)
}

// held is an error for a key that the target would take for another one, which may lie outside of its path. A dry run does not try what it does.
func (r *run) held(ctx context.Context, key string) error {
	if r.o.DryRun && r.to.carrier != nil {
		return nil
	}
	return bucket.Holds(ctx, r.to.bucket, key)
}

// gone takes the end of an object for its end: it was deleted at the source since it was listed. Only the source's listing is believed in
// that: a 404 may be the far side's, or that of something between.
func (r *run) gone(ctx context.Context, key string, missing error) error {
	switch _, err := r.inListing(ctx, key); {
	case err == nil:
		return fault.Wrap(missing, fault.BucketBusy, r.where(key), "a server says that it is not there, and the source lists it")
	case codeOf(err) != fault.ObjectMissing:
		return err
	}
	r.tally.add(func(report *Report) { report.Gone++ })
	return nil //nolint:nilerr // that it is not listed is the answer
}

// bring carries an object in the way that suits it; exact only as it was listed.
func (r *run) bring(ctx context.Context, o bucket.Object, exact bool) error {
	switch {
	case r.from.carrier == nil || r.to.carrier == nil:
		return r.bringStream(ctx, o, exact)
	case r.server && o.Size <= mostCopied:
		return r.bringByServer(ctx, o, exact)
	case wholly(o):
		return r.bringWhole(ctx, o, exact)
	}
	return r.bringParts(ctx, o, exact)
}

// wholly says whether an object is carried in one request: also one without bytes that was sent in parts, of which there are none now.
func wholly(o bucket.Object) bool { return o.Size == 0 || o.Size <= onePart && partsOf(o.ETag) == 0 }

// asListed is an error when an object that counts only as it was listed is another one now.
func (r *run) asListed(listed, now bucket.Object, exact bool) error {
	if !exact || plainETag(listed.ETag) == plainETag(now.ETag) {
		return nil
	}
	return r.another(now.Key)
}

func (r *run) another(key string) error {
	return fault.New(fault.ObjectExists, r.where(key), "it was written anew since it was listed").WithMend("Run the mirror again: it takes the new one.")
}

// mostCopied is what S3 copies in one request
// (docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html).
const mostCopied = 5 << 30

// mostPooled is up to which size a buffer serves one object after another.
const mostPooled = 256 << 10

func (r *run) bringWhole(ctx context.Context, o bucket.Object, exact bool) error {
	if err := r.memory.take(ctx, o.Size); err != nil {
		return err
	}
	defer r.memory.give(o.Size)
	match := ""
	if exact {
		match = o.ETag
	}
	c, body, err := r.from.carrier.Fetch(ctx, o.Key, match)
	if exact && fault.Is(err, fault.ObjectExists) {
		return r.another(o.Key)
	}
	if err != nil {
		return err
	}
	defer body.Close()
	endless, taken := c.Size < 0, max(o.Size, 0)
	if o, err = r.asListedNow(ctx, o, &c); err != nil {
		return err
	}
	if c.Size > taken || c.Size > onePart { // more than memory was taken for
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
	n, err := io.ReadFull(r.paced(ctx, body), data)
	switch {
	case endless && (errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)):
		return r.mismatch(o.Key, "its listing tells of %d bytes and %d came", c.Size, n)
	case err != nil:
		return r.cut(ctx, err, o.Key)
	case endless:
		if more, _ := io.CopyN(io.Discard, body, 1); more > 0 {
			return r.mismatch(o.Key, "its listing tells of %d bytes and more came", c.Size)
		}
	}
	own, err := r.cameRight(ctx, c, data)
	if err != nil {
		return err
	}
	if c.Tagged {
		if c.Tags, err = r.from.carrier.Tags(ctx, c.Key); err != nil {
			return err
		}
	}
	hash := sha256.Sum256(data)
	out, err := r.fitted(ctx, c)
	if err != nil {
		return err
	}
	if err := r.withClass(out, func(c bucket.Cargo) error { out = c; return r.deliver(ctx, c, data, hash, own) }); err != nil {
		return err
	}
	if err := r.ended(ctx, c, out); err != nil {
		return err
	}
	r.sums.put(o.Key, hash)
	r.tally.carried(o.Key, c.Size)
	return nil
}

// cameRight compares a small object's bytes with all that the source says of them, and returns their MD5. Where the source says nothing
// that they could be compared with, they are read once more and must be the same.
func (r *run) cameRight(ctx context.Context, c bucket.Cargo, data []byte) (own string, err error) {
	sum := md5.Sum(data)
	own = hex.EncodeToString(sum[:])
	same := own == md5ETag(c.ETag) // also of some servers that encrypt
	if hashed(c.Object) && !same {
		return own, r.mismatch(c.Key, "its source's ETag is %s and the bytes that came have %s", md5ETag(c.ETag), own)
	}
	if err := checkSums(c, bytes.NewReader(data)); err != nil {
		return own, r.mismatch(c.Key, "%s", err.Error())
	}
	if _, told := sumOf(c); same || told || len(data) == 0 {
		return own, nil
	}
	return own, r.cameAgain(ctx, c, data)
}

// cameAgain reads a small object once more, as it was when it was read first.
func (r *run) cameAgain(ctx context.Context, c bucket.Cargo, data []byte) error {
	_, body, err := r.from.carrier.Fetch(ctx, c.Key, c.ETag)
	if fault.Is(err, fault.ObjectExists) {
		return r.changed(c.Key)
	}
	if err != nil {
		return err
	}
	defer body.Close()
	rest := &rest{data}
	if _, err := io.Copy(rest, io.LimitReader(r.paced(ctx, body), int64(len(data))+1)); err != nil && !errors.Is(err, errOther) {
		return r.cut(ctx, err, c.Key)
	} else if err != nil || len(rest.of) > 0 {
		return fault.Mended(r.mismatch(c.Key, "it came differently when it was read again"), betweenHint)
	}
	return nil
}

// rest takes bytes that are those it has left.
type rest struct{ of []byte }

var errOther = errors.New("other bytes than before")

func (r *rest) Write(p []byte) (int, error) {
	if !bytes.HasPrefix(r.of, p) {
		return 0, errOther
	}
	r.of = r.of[len(p):]
	return len(p), nil
}

// deliver writes an object in one request; own is the MD5 of its bytes. Where the far side encrypts so that its ETags say nothing, which
// is first known by its answer, the object is written once more, with a note of its origin: else each run would have to ask for it.
func (r *run) deliver(ctx context.Context, c bucket.Cargo, data []byte, hash [sha256.Size]byte, own string) error {
	noted := !hashed(c.Object) || r.opaque.Load()
	out := c
	out.Object = withOrigin(c.Object, noted)
	etag, encryption, err := r.to.carrier.Deliver(ctx, out, data, hash)
	switch {
	case err != nil:
		return err
	case opaque(encryption) && !noted:
		r.opaque.Store(true)
		return r.deliver(ctx, c, data, hash, own)
	}
	if tag := md5ETag(etag); tag != "" && !opaque(encryption) && tag != own {
		return r.mismatch(c.Key, "the far side's ETag is %s and the bytes that were sent have %s", tag, own)
	}
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

// keepTags sees to tags that a server has taken with an object and forgotten, or understood otherwise. One that cannot be asked is not
// believed to have them.
func (r *run) keepTags(ctx context.Context, c bucket.Cargo) error {
	if c.Tags == "" {
		return nil
	}
	tags, err := r.to.carrier.Tags(ctx, c.Key)
	if err == nil && tags != c.Tags {
		err = r.to.carrier.Tag(ctx, c.Key, c.Tags)
	}
	if fault.Is(err, fault.BucketRights) || fault.Is(err, fault.BucketUnsupported) {
		r.tally.notCarried([]Attribute{AttributeTags})
		return nil
	}
	return err
}

// withOrigin notes the source's ETag where the far side's will be another one. A note that the object has from a mirror before this one
// is not handed on.
func withOrigin(o bucket.Object, noted bool) bucket.Object {
	o.Metadata = maps.Clone(o.Metadata)
	delete(o.Metadata, originKey)
	if noted && o.ETag != "" && metadataBytes(o.Metadata)+len(originKey)+len(plainETag(o.ETag)) <= mostMetadata {
		if o.Metadata == nil {
			o.Metadata = map[string]string{}
		}
		o.Metadata[originKey] = plainETag(o.ETag)
	}
	return o
}

// mostMetadata is how many bytes S3 takes of metadata (docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html): an object with as much goes without
// the note, and is compared by its time where nothing else tells.
const mostMetadata = 2 << 10

func metadataBytes(metadata map[string]string) (n int) {
	for k, v := range metadata {
		n += len(k) + len(v)
	}
	return n
}

// bringByServer has the server copy an object by itself.
func (r *run) bringByServer(ctx context.Context, o bucket.Object, exact bool) error {
	c, err := r.from.carrier.Describe(ctx, o.Key) // what does not go with a copy must be known
	if err != nil {
		return err
	}
	if err := r.asListed(o, c.Object, exact); err != nil {
		return err
	}
	source := c
	noted := md5ETag(o.ETag) == "" || r.opaque.Load() // the copy has another ETag
	if noted {
		if c.Tags, err = r.askTags(ctx, c); err != nil {
			return err
		}
		c.Object = withOrigin(c.Object, true)
	} else {
		tags := ""
		if c.Tagged { // a server may forget them
			if tags, err = r.askTags(ctx, c); err != nil {
				return err
			}
		}
		c = bucket.Cargo{Object: o, WebsiteRedirect: c.WebsiteRedirect, Tags: tags, StorageClass: c.StorageClass, Lock: c.Lock}
	}
	if c, err = r.fitted(ctx, c); err != nil {
		return err
	}
	etag := ""
	err = r.withClass(c, func(asked bucket.Cargo) (err error) {
		c = asked
		etag, err = r.to.carrier.Copy(ctx, r.from.carrier, asked)
		return err
	})
	switch {
	case fault.Is(err, fault.ObjectExists) && exact:
		return r.another(o.Key)
	case fault.Is(err, fault.ObjectExists):
		return r.changed(o.Key)
	case err != nil:
		return err
	}
	if was, is := md5ETag(o.ETag), md5ETag(etag); was != "" && is != "" && was != is {
		if err := r.bothClear(ctx, o.Key, was, is); err != nil {
			return err
		}
		if !noted { // see deliver
			r.opaque.Store(true)
			return r.bringByServer(ctx, o, exact)
		}
	}
	if err := r.ended(ctx, source, c); err != nil {
		return err
	}
	r.tally.copied(o.Key, o.Size)
	return nil
}

// bothClear is an error when neither an object nor its copy is encrypted so that their ETags may differ.
func (r *run) bothClear(ctx context.Context, key, was, is string) error {
	here, err := r.from.carrier.Describe(ctx, key)
	if err != nil {
		return err
	}
	there, err := r.to.carrier.Describe(ctx, key)
	if err != nil {
		return err
	}
	if !opaque(here.Encryption) && !opaque(there.Encryption) {
		return r.mismatch(key, "its source's ETag is %s and its copy's is %s", was, is)
	}
	return nil
}

// describe is what the source tells of an object, as far as its kind does.
func (r *run) describe(ctx context.Context, key string) (c bucket.Cargo, err error) {
	if r.from.carrier == nil {
		c.Object, err = r.from.bucket.Stat(ctx, key)
		return c, err
	}
	c, err = r.from.carrier.Describe(ctx, key)
	c.Object.ContentType = c.ContentType
	return c, err
}

func (r *run) where(key string) string { return r.from.bucket.Properties().URL + "/" + key }

// changed is for an object that was written anew while it was carried: it is tried again as it is then.
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
