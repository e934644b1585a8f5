package mirror

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/scratch"
)

// transfer is a large object on its way, part by part.
type transfer struct {
	run     *run
	c       bucket.Cargo // as the source has it
	out     bucket.Cargo // as it is to be written
	id      string       // of the upload
	size    int64        // bytes of a part
	count   int
	have    map[int]bucket.Part // parts that a killed run has sent
	known   bool                // the parts are those of the source, so its ETag can be computed from them
	guessed bool                // by their number and the first one's size at most: they may be others after all
	parts   []bucket.Part
	sums    []([md5.Size]byte)
	inTurn  *turns // hashes the whole, in order; nil where nothing is to be compared with it
	looked  bool   // the object itself told that it was completed
}

// bringParts carries an object in parts, in those of its source where these are known: then the far side's ETag is the source's.
func (r *run) bringParts(ctx context.Context, o bucket.Object, exact bool) error {
	c, err := r.from.carrier.Describe(ctx, o.Key)
	if err != nil {
		return err
	}
	if err := r.asListed(o, c.Object, exact); err != nil {
		return err
	}
	if _, err = r.asListedNow(ctx, o, &c); err != nil {
		return err
	}
	if wholly(c.Object) {
		return r.bringWhole(ctx, c.Object, exact)
	}
	if c.Size < 0 || c.Size > mostParts*largestPart {
		return fault.New(fault.BucketFailed, r.where(o.Key), "its source says that it has %d bytes, which no object of S3 can have", c.Size)
	}
	if c.Tags, err = r.askTags(ctx, c); err != nil {
		return err
	}
	t := &transfer{run: r, c: c}
	t.size, t.known = partSize(c)
	// The first part's size is that of all but the last one, in the work of most clients. Of two parts it is certain.
	t.guessed = t.known && (c.PartSize == 0 || partsOf(c.ETag) > 2)
	t.count = int((c.Size + t.size - 1) / t.size)
	t.parts, t.sums = make([]bucket.Part, t.count), make([][md5.Size]byte, t.count)
	t.c.Object = withOrigin(c.Object, true)
	if t.out, err = r.fitted(ctx, t.c); err != nil {
		return err
	}
	if err := t.begin(ctx); err != nil {
		return err
	}
	// Of a dump's files the manifest tells the SHA-256. Where parts are there already, they are not read for it: see proveDump.
	if named := dateFolder.MatchString(o.Key); !t.known || len(t.have) == 0 && named {
		t.inTurn = newTurns(wholeSums(c, named))
	}
	etag, err := t.send(ctx)
	if err != nil {
		return err
	}
	if as, err := t.asBegun(ctx); !as || err != nil {
		if err == nil {
			err = r.bringParts(ctx, o, exact) // by an upload of its own
		}
		return err
	}
	return t.finished(ctx, etag)
}

// partSize is the size of the parts to send: the source's, where it is known or can be told from its ETag.
func partSize(c bucket.Cargo) (size int64, known bool) {
	n := partsOf(c.ETag)
	fits := func(size int64) bool {
		return size >= leastPart && size <= mostPart && int((c.Size+size-1)/size) == n
	}
	if n > 0 && !opaque(c.Encryption) {
		if c.PartSize > 0 {
			if fits(c.PartSize) {
				return c.PartSize, true
			}
		} else {
			for _, mib := range usualParts {
				if fits(mib << 20) {
					return mib << 20, true
				}
			}
		}
	}
	size = onePart
	for c.Size > size*mostParts {
		size = min(2*size, largestPart)
	}
	return size, false
}

// usualParts are the part sizes of the clients in use, in MiB, the commonest first: AWS's own and leat, MinIO's client, the SDKs, s5cmd.
var usualParts = []int64{8, 16, 5, 64, 50, 10, 15, 32, 25, 20, 40, 48, 6, 7, 9, 12, 24}

const (
	leastPart = 5 << 20
	mostPart  = 64 << 20 // what is held in memory
	// S3's own limits (docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html).
	mostParts   = 10_000
	largestPart = 5 << 30
)

// partsOf is the number of parts that an ETag tells, 0 for none.
func partsOf(etag string) int {
	_, n, found := strings.Cut(plainETag(etag), "-")
	count, err := strconv.Atoi(n)
	if !found || err != nil {
		return 0
	}
	return count
}

// begin takes up the upload of a killed run, or begins one. Whatever else was begun for the key is given up.
func (t *transfer) begin(ctx context.Context) error {
	far := t.run.to.carrier
	t.have = map[int]bucket.Part{}
	begun, err := far.Unfinished(ctx, t.c.Key)
	if err != nil && !fault.Is(err, fault.BucketRights) && !fault.Is(err, fault.BucketUnsupported) {
		return err
	}
	for _, u := range begun {
		if t.id == "" && t.usable(u.Parts) {
			t.id = u.ID
			for _, p := range u.Parts {
				t.have[p.Number] = p
			}
			continue
		}
		if err := far.Cancel(ctx, t.c.Key, u.ID); err != nil {
			return err
		}
	}
	if t.id == "" {
		err = t.run.withClass(t.out, func(c bucket.Cargo) (err error) {
			t.out = c
			t.id, err = far.Begin(ctx, c)
			return err
		})
	}
	return err
}

// each says whether the hash of each part counts. Where the source tells one of the whole that alone does: hashing everything twice takes
// more of the processor than all else, and a part that changes on its way to the far side is refused there by its SHA-256.
func (t *transfer) each() bool { return t.known || t.inTurn == nil || !t.inTurn.told() }

// usable says whether parts that were sent are in our sizes. Whether they are right is known by their ETags.
func (t *transfer) usable(parts []bucket.Part) bool {
	if len(parts) == 0 {
		return false
	}
	for _, p := range parts {
		if p.Number < 1 || p.Number > t.count || p.Size != t.length(p.Number) || md5ETag(p.ETag) == "" {
			return false
		}
	}
	return true
}

// length is the size of a part, which are numbered from 1.
func (t *transfer) length(number int) int64 {
	return min(t.size, t.c.Size-int64(number-1)*t.size)
}

// send sends what is missing, several parts at once, and completes the object.
func (t *transfer) send(ctx context.Context) (etag string, err error) {
	var g errgroup.Group // those on their way come to their end although one has failed
	g.SetLimit(partsAtOnce)
	var once sync.Once
	var first error // what the others may end with is that one has failed
	failed := make(chan struct{})
	for number := 1; number <= t.count && !closed(failed); number++ {
		if err := t.run.memory.take(ctx, t.size); err != nil {
			break
		}
		g.Go(func() error {
			defer t.run.memory.give(t.size)
			if closed(failed) {
				return nil
			}
			err := t.run.guarded(t.c.Key, func() error { return t.part(ctx, number) })
			if err != nil {
				once.Do(func() { first = err; close(failed) })
				if t.inTurn != nil {
					t.inTurn.stop()
				}
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return "", t.unsent(ctx, first)
	}
	if err := ctx.Err(); err != nil {
		return "", t.run.cut(ctx, err, t.c.Key)
	}
	if err := t.right(ctx); err != nil {
		_ = t.run.to.carrier.Cancel(ctx, t.c.Key, t.id) // what was sent is wrong, or the source has changed
		return "", err
	}
	return t.complete(ctx)
}

// complete makes an object of the parts. Where the server may have done that and its answer did not come, the object itself tells.
func (t *transfer) complete(ctx context.Context) (etag string, err error) {
	far := t.run.to.carrier
	etag, err = far.Complete(ctx, t.c.Key, t.id, t.parts)
	gone := fault.Is(err, fault.ObjectMissing)
	if gone || fault.Retryable(err) && ctx.Err() == nil {
		there, looked := far.Describe(ctx, t.c.Key)
		if made := etagOf(t.parts); looked == nil && made != "" && plainETag(there.ETag) == made {
			t.looked = true
			return there.ETag, nil
		}
	}
	if gone {
		err = t.run.uploadGone(t.c.Key, err)
	}
	return etag, err
}

// etagOf is the ETag of an object of parts whose ETags are their MD5s; empty where one is none.
func etagOf(parts []bucket.Part) string {
	all := md5.New()
	for _, p := range parts {
		sum, err := hex.DecodeString(md5ETag(p.ETag))
		if err != nil || len(sum) == 0 {
			return ""
		}
		all.Write(sum)
	}
	return fmt.Sprintf("%x-%d", all.Sum(nil), len(parts))
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// partly is the error of a part that was tried as often as may be. So many parts are at the target then, with which the next attempt goes on.
type partly struct {
	error
	parts int
}

func (p *partly) Unwrap() error { return p.error }

// unsent judges the error of a part. The parts that were sent stay for the next attempt, unless there were none.
func (t *transfer) unsent(ctx context.Context, err error) error {
	there := 0
	for _, p := range t.parts {
		if p.ETag != "" {
			there++
		}
	}
	if p := (*partly)(nil); errors.As(err, &p) {
		p.parts = there
	} else if there == 0 {
		_ = t.run.to.carrier.Cancel(ctx, t.c.Key, t.id)
	}
	return err
}

// uploadGone is for an upload that another process ended, or the bucket's rules: the object can be begun again.
func (r *run) uploadGone(key string, err error) error {
	return fault.Wrap(err, fault.BucketBusy, r.to.bucket.Properties().URL+"/"+key, "the upload that was begun is not there any more")
}

// patient repeats a request for one part as often as an object may be tried: one that fails costs no other.
func (t *transfer) patient(ctx context.Context, request func() error) error {
	for attempts := 1; ; attempts++ {
		err := request()
		switch {
		case err == nil || ctx.Err() != nil || !fault.Retryable(err):
			return err
		case attempts >= t.run.o.Attempts:
			return &partly{error: err}
		}
		if late := t.run.pause(ctx, job{object: t.c.Object, attempts: attempts}, err); late != nil {
			return err
		}
	}
}

// partsAtOnce is how many parts of one object are on their way.
const partsAtOnce = 4

// part carries one part. One that a killed run has sent is not read again where the whole can be checked without.
func (t *transfer) part(ctx context.Context, number int) error {
	have, sent := t.have[number]
	if sent && t.known {
		sum, err := hex.DecodeString(md5ETag(have.ETag))
		if err == nil {
			copy(t.sums[number-1][:], sum)
			t.parts[number-1] = have
			return nil
		}
	}
	data, err := t.read(ctx, number)
	if err != nil {
		return err
	}
	defer t.run.free(data)
	if t.each() || sent {
		t.sums[number-1] = md5.Sum(data)
	}
	if t.inTurn != nil {
		if err := t.inTurn.write(ctx, number, data); err != nil {
			return err
		}
	}
	own := hex.EncodeToString(t.sums[number-1][:])
	if sent && md5ETag(have.ETag) == own {
		t.parts[number-1] = have
		return nil
	}
	etag := ""
	err = t.patient(ctx, func() (err error) {
		etag, err = t.run.to.carrier.Send(ctx, t.c.Key, t.id, number, data)
		return err
	})
	switch {
	case fault.Is(err, fault.ObjectMissing):
		return t.run.uploadGone(t.c.Key, err)
	case err != nil:
		return err
	}
	t.parts[number-1] = bucket.Part{Number: number, Size: int64(len(data)), ETag: etag}
	return nil
}

func (t *transfer) read(ctx context.Context, number int) (data []byte, err error) {
	err = t.patient(ctx, func() (err error) {
		data, err = t.readOnce(ctx, number)
		return err
	})
	if fault.Is(err, fault.ObjectExists) {
		err = t.run.changed(t.c.Key)
	}
	return data, err
}

func (t *transfer) readOnce(ctx context.Context, number int) ([]byte, error) {
	length := t.length(number)
	body, err := t.run.from.carrier.FetchRange(ctx, t.c.Key, t.c.ETag, int64(number-1)*t.size, length)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data := t.run.room(length)
	if _, err := io.ReadFull(t.run.paced(ctx, body), data); err != nil {
		t.run.free(data)
		return nil, t.run.cut(ctx, err, t.c.Key)
	}
	return data, nil
}

// room is a buffer for a part. Parts of objects of many terabytes are larger than memory for a few of them.
func (r *run) room(bytes int64) []byte {
	if bytes >= scratch.Large {
		return scratch.Make(int(bytes))
	}
	if used, _ := r.parts.Get().(*[]byte); used != nil && int64(cap(*used)) >= bytes {
		return (*used)[:bytes]
	}
	return make([]byte, bytes)
}

func (r *run) free(data []byte) {
	switch {
	case cap(data) >= scratch.Large:
		scratch.Free(data)
	case data != nil:
		r.parts.Put(&data)
	}
}

// right checks what was read against all that the source says of the whole.
func (t *transfer) right(ctx context.Context) error {
	if own := t.etag(); t.known && own != plainETag(t.c.ETag) {
		if !t.guessed {
			return t.run.mismatch(t.c.Key, "its source's ETag is %s and the bytes that came have %s", plainETag(t.c.ETag), own)
		}
		if err := t.readTwice(ctx); err != nil {
			return err
		}
	}
	if t.inTurn == nil {
		return nil
	}
	if err := t.inTurn.right(); err != nil {
		return t.run.mismatch(t.c.Key, "%s", err.Error())
	}
	if !t.known && !t.inTurn.told() {
		return t.readTwice(ctx)
	}
	return nil
}

// etag is the one that a server gives to these parts: the MD5 of their MD5s, and their number.
func (t *transfer) etag() string {
	all := md5.New()
	for _, s := range t.sums {
		all.Write(s[:])
	}
	return fmt.Sprintf("%x-%d", all.Sum(nil), t.count)
}

// readTwice is for an object of which nothing tells yet whether it came right: what comes a second time must be the same, and have the
// source's ETag where it is known how that is made.
func (t *transfer) readTwice(ctx context.Context) error {
	more, err := t.run.onceMore(ctx, t.c)
	if err != nil {
		return err
	}
	inTurn := newTurns(nil, &more)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(partsAtOnce)
	for number := 1; number <= t.count && gctx.Err() == nil; number++ {
		if err := t.run.memory.take(gctx, t.size); err != nil {
			break
		}
		g.Go(func() error {
			defer t.run.memory.give(t.size)
			err := t.run.guarded(t.c.Key, func() error { return t.partAgain(gctx, number, inTurn) })
			if err != nil {
				inTurn.stop()
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return t.run.cut(ctx, ctx.Err(), t.c.Key)
	}
	if err := more.right(); err != nil {
		return fault.Mended(t.run.mismatch(t.c.Key, "%s", err.Error()), betweenHint)
	}
	return nil
}

// partAgain reads a part once more.
func (t *transfer) partAgain(ctx context.Context, number int, inTurn *turns) error {
	data, err := t.read(ctx, number)
	if err != nil {
		return err
	}
	defer t.run.free(data)
	if md5.Sum(data) != t.sums[number-1] {
		return t.run.mismatch(t.c.Key, "part %d came differently when it was read again", number)
	}
	return inTurn.write(ctx, number, data)
}

func (t *transfer) finished(ctx context.Context, etag string) error {
	if t.each() && partsOf(etag) == t.count && plainETag(etag) != t.etag() {
		there, err := t.run.to.carrier.Describe(ctx, t.c.Key)
		if err != nil {
			return err
		}
		if !opaque(there.Encryption) {
			return t.run.mismatch(t.c.Key, "the far side's ETag is %s and the parts that were sent have %s", plainETag(etag), t.etag())
		}
	}
	if err := t.run.ended(ctx, t.c, t.out); err != nil {
		return err
	}
	if t.inTurn != nil {
		t.inTurn.note(t.run.sums, t.c.Key)
	}
	t.run.tally.carried(t.c.Key, t.c.Size)
	return nil
}

// asBegun says whether an object has beside its bytes what its source has: the upload of a killed run tells what was so when it began, and an object
// that was looked for may be an earlier one.
func (t *transfer) asBegun(ctx context.Context) (bool, error) {
	if len(t.have) == 0 && !t.looked {
		return true, nil
	}
	there, err := t.run.to.carrier.Describe(ctx, t.c.Key)
	if err != nil {
		return false, err
	}
	tags, err := t.run.to.carrier.Tags(ctx, t.c.Key)
	if err != nil && !fault.Is(err, fault.BucketRights) && !fault.Is(err, fault.BucketUnsupported) {
		return false, err
	}
	if t.c.ContentType == "" {
		there.ContentType = "" // a server's own choice
	}
	headers := func(c bucket.Cargo) [7]string {
		return [...]string{c.ContentType, c.CacheControl, c.ContentEncoding, c.ContentDisposition, c.ContentLanguage, c.Expires, c.WebsiteRedirect}
	}
	if t.out.StorageClass != "" && classOf(there) != t.out.StorageClass {
		return false, nil
	}
	return headers(there) == headers(t.c) && maps.Equal(there.Metadata, t.c.Metadata) && (t.c.Tags != "" || tags == ""), nil
}

// turns hashes parts in their order, although they come in another.
type turns struct {
	mu      sync.Mutex
	moved   *sync.Cond
	next    int
	stopped bool
	hashes  []expectedSum
	out     io.Writer // all hashes
}

// expectedSum is a hash of the whole and what it must come to; empty where it is only noted.
type expectedSum struct {
	name string
	hash hash.Hash
	want string
}

func newTurns(hashes []expectedSum, more ...io.Writer) *turns {
	for _, h := range hashes {
		more = append(more, h.hash)
	}
	t := &turns{next: 1, hashes: hashes, out: io.MultiWriter(more...)}
	t.moved = sync.NewCond(&t.mu)
	return t
}

// write waits until the parts before have been hashed. No part waits for one that was not begun: they are begun in order.
func (t *turns) write(ctx context.Context, number int, data []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.next != number && !t.stopped {
		t.moved.Wait()
	}
	if t.stopped {
		return fault.New(fault.Interrupted, "", "another part failed").Because(context.Cause(ctx))
	}
	_, _ = t.out.Write(data) // hashes never fail
	t.next++
	t.moved.Broadcast()
	return nil
}

func (t *turns) stop() {
	t.mu.Lock()
	t.stopped = true
	t.moved.Broadcast()
	t.mu.Unlock()
}
