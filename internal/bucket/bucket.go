package bucket

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/leatdata/leat/internal/fault"
)

// Bucket is a place for objects, rooted at the path of its URL: keys are relative to it and
// '/'-separated. All methods may be called from several goroutines at once.
//
// Errors are faults: bucket-missing, bucket-rights, bucket-auth, bucket-busy, bucket-full,
// bucket-unreachable, bucket-failed, object-missing, interrupted when the context ended, and
// usage-invalid for a key that no kind can hold (see [Open]).
type Bucket interface {
	// Create begins an object. Nothing is visible under the key until Commit, and what was
	// there before stays whole until then. ctx bounds the whole upload, not this call only.
	Create(ctx context.Context, key string, opts WriteOptions) (Upload, error)
	// Open reads length bytes from offset; a length below zero reads to the end. A range that
	// reaches past the end is cut there. The reader picks up a broken connection where it
	// stopped, as long as the object is still the same.
	Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	// Stat says what is known about an object, or object-missing.
	Stat(ctx context.Context, key string) (Object, error)
	// List yields the objects whose keys begin with prefix, in byte order of keys. The prefix
	// is a plain string prefix. Encryption, ContentType and Metadata are left empty. After an error the
	// sequence ends.
	List(ctx context.Context, prefix string) iter.Seq2[Object, error]
	// Delete removes objects. One that is not there is no error.
	Delete(ctx context.Context, keys ...string) error
	// Sweep removes what uploads left that began before the given time and were never finished,
	// and returns how many there were.
	Sweep(ctx context.Context, prefix string, begunBefore time.Time) (int, error)
	// Properties says what is known about the place, without asking it.
	Properties() Properties
	// Close lets go of connections. Uploads and readers must have ended.
	Close() error
}

// Upload is an object that is being written. It belongs to one goroutine; to stop it from
// elsewhere, cancel the context given to Create. One of Commit and Abort must be called.
type Upload interface {
	// Write takes bytes. It blocks while the server is slower than the caller. An error of an
	// earlier part shows here or in Commit.
	io.Writer
	// Commit makes the object visible, whole. After an error nothing new is visible and Abort
	// has been done. The Object may lack Modified: not every server tells it.
	Commit(ctx context.Context) (Object, error)
	// Abort gives the upload up. It may be called again, does nothing after Commit, and works
	// although the context has ended.
	Abort()
}

// WriteOptions say how an object is to be written.
type WriteOptions struct {
	ContentType string
	// Metadata is kept beside the object. Keys begin with a lower-case letter and go on with
	// those, digits and '-'; values are printable ASCII: that is what every kind can hold.
	Metadata map[string]string
	// Lazy lets Commit return before the object would outlast a power cut: until a commit without Lazy
	// on the same Bucket has returned, a cut may lose or tear it. Thousands of files are then
	// brought to the disk together. Only a folder knows the difference.
	Lazy bool
	// IfAbsent writes only if no object has the key: object-exists otherwise.
	IfAbsent bool
	// IfMatch writes only if the object's ETag is still this one: object-exists otherwise.
	IfMatch string
}

func (o WriteOptions) conditional() bool { return o.IfAbsent || o.IfMatch != "" }

// Object is what is known about an object.
type Object struct {
	Key  string
	Size int64 // bytes
	// ETag changes whenever the object is written anew. It says nothing else: on some kinds it
	// is a hash of the content, on others it is not.
	ETag     string
	Modified time.Time
	// Encryption names the server's encryption at rest as the server tells it: "AES256",
	// "aws:kms", "" where it says nothing.
	Encryption string
	// Untold is set by List alone: the server has this object under another key, which its listing cannot say.
	Untold bool
	// ContentType, Metadata and Sums are told by Stat alone.
	ContentType string
	Metadata    map[string]string
	// Sums of the whole content that the server keeps, by algorithm in small letters (crc64nvme, sha256, md5, …), in base64.
	Sums map[string]string
}

// Kind names a kind of bucket.
type Kind string

// The kinds.
const (
	KindS3     Kind = "s3"
	KindGCS    Kind = "gs"
	KindAzure  Kind = "azblob"
	KindFolder Kind = "file"
	KindMemory Kind = "mem"
)

// Support says whether a server can do a thing.
type Support string

// The answers. The empty one means that nobody has tried yet; see [Probe].
const (
	Unknown     Support = ""
	Supported   Support = "yes"
	Unsupported Support = "no"
)

// Properties is what is known about a place. It never holds a secret.
type Properties struct {
	Kind      Kind
	URL       string // as given, without anything secret
	Endpoint  string // of a server that is not the kind's usual one
	Region    string
	PathStyle bool
	// Encryption is what is asked for on each write: "", "AES256" or "aws:kms".
	Encryption string
	// Checksums says what protects the bytes on their way to the server; see [Options.Checksums].
	Checksums string
	// ConditionalPut: IfAbsent and IfMatch hold for objects of up to one part.
	ConditionalPut Support
	// ConditionalMultipart: they hold for larger objects too.
	ConditionalMultipart Support
}

// Probe finds out by trying what the server can do, writes and removes scratch objects for it
// where that is needed, and returns the properties with the answers.
func Probe(ctx context.Context, b Bucket) (Properties, error) {
	if p, ok := b.(interface{ probe(context.Context) error }); ok {
		if err := p.probe(ctx); err != nil {
			return b.Properties(), err
		}
	}
	return b.Properties(), nil
}

// WriteAll writes data as one object.
func WriteAll(ctx context.Context, b Bucket, key string, data []byte, opts WriteOptions) (Object, error) {
	u, err := b.Create(ctx, key, opts)
	if err != nil {
		return Object{}, err
	}
	defer u.Abort()
	if _, err := u.Write(data); err != nil {
		return Object{}, err
	}
	return u.Commit(ctx)
}

// ReadAll reads a whole object. One of more than limit bytes is bucket-failed: whoever reads
// into memory must know how much that may be.
func ReadAll(ctx context.Context, b Bucket, key string, limit int64) ([]byte, error) {
	r, err := b.Open(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var data bytes.Buffer
	if _, err := io.Copy(&data, io.LimitReader(r, limit+1)); err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	if int64(data.Len()) > limit {
		return nil, fault.New(fault.BucketFailed, b.Properties().URL+"/"+key,
			"the object has more than the %d bytes it may have", limit)
	}
	return data.Bytes(), nil
}
