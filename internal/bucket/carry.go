package bucket

import (
	"context"
	"crypto/sha256"
	"io"
)

// Cargo is an object with all that is kept beside its bytes, as it goes from one bucket to another. Written is what stands in it.
type Cargo struct {
	Object
	ContentType, CacheControl, ContentEncoding, ContentDisposition, ContentLanguage, Expires string

	WebsiteRedirect string // where a website sends who asks for the object
	StorageClass    string // "" is the usual one
	Lock            Lock
	Illegible       bool // there is metadata that the server cannot say

	Tags     string // as a query, each byte that needs it as %XX; "" for none
	Tagged   bool   // there are tags, which the server does not tell with the object
	PartSize int64  // bytes of the first part; 0 where the server does not tell
}

// Part is a part of an upload that is not finished.
type Part struct {
	Number int
	Size   int64
	ETag   string
}

// Unfinished is an upload in parts that was begun and not ended.
type Unfinished struct {
	ID    string
	Parts []Part
}

// Carrier is a Bucket that can hand objects on with all that is kept beside them. Each call is one attempt: whoever carries
// many objects decides when one is tried again. Keys may be any that the server has.
type Carrier interface {
	Bucket
	// Answers sends the plainest request that there is, for a listing of one key, and says what became of it.
	Answers(ctx context.Context) error
	// Fetch reads an object. With an ETag it must still be the current one: object-exists otherwise.
	Fetch(ctx context.Context, key, etag string) (Cargo, io.ReadCloser, error)
	// FetchRange reads some bytes of an object that still has the ETag.
	FetchRange(ctx context.Context, key, etag string, offset, length int64) (io.ReadCloser, error)
	// Describe says all that is known about an object, also the size of its parts.
	Describe(ctx context.Context, key string) (Cargo, error)
	// PartSizes are the bytes of each of an object's parts, of which there are count; nil where the server does not tell.
	PartSizes(ctx context.Context, o Object, count int) ([]int64, error)
	// Restore asks for an archived object, for so many days; tier is the server's word for how fast. Asked for already is no error.
	Restore(ctx context.Context, key string, days int, tier string) error
	// Tags of an object, as a query.
	Tags(ctx context.Context, key string) (string, error)
	// Tag sets the tags of an object, as a query.
	Tag(ctx context.Context, key, tags string) error
	// Private says whether nothing beside the bucket's owner has a right on an object by its list of grants. Servers without such lists say yes.
	Private(ctx context.Context, key string) (bool, error)
	// Locks says whether the bucket has Object Lock.
	Locks(ctx context.Context) (bool, error)
	// Lock locks an object that is there.
	Lock(ctx context.Context, key string, l Lock) error
	// Deliver writes an object in one request, whose body the server checks by its SHA-256, sum. It returns the ETag and, where the server
	// encrypts, how.
	Deliver(ctx context.Context, c Cargo, data []byte, sum [sha256.Size]byte) (etag, encryption string, err error)
	// Begin begins an upload in parts.
	Begin(ctx context.Context, c Cargo) (id string, err error)
	// Unfinished are the uploads of a key that were begun, the latest first.
	Unfinished(ctx context.Context, key string) ([]Unfinished, error)
	// Send sends a part, which the server checks by its SHA-256. Object-missing: the upload was ended by another process.
	Send(ctx context.Context, key, id string, number int, data []byte) (etag string, err error)
	// Complete makes an object of the parts. Object-missing: as for Send.
	Complete(ctx context.Context, key, id string, parts []Part) (etag string, err error)
	// Cancel gives an upload up.
	Cancel(ctx context.Context, key, id string) error
	// Reaches says whether the other bucket lies on the same server, under the same keys, so that Copy works.
	Reaches(other Carrier) bool
	// Copy has the server copy an object of the other bucket, which still has the ETag: whole up to 5 GiB. With metadata in the cargo
	// that and the headers are the copy's; without it has those of its source. Tags go along.
	Copy(ctx context.Context, from Carrier, c Cargo) (etag string, err error)
}

// CarrierOf returns the bucket as a Carrier, if its kind is one.
func CarrierOf(b Bucket) (Carrier, bool) {
	if f, ok := b.(*front); ok {
		b = f.Bucket
	}
	c, ok := b.(Carrier)
	return c, ok
}
