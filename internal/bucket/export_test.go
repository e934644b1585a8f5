package bucket

import (
	"bytes"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// PartBuffers says how many part buffers of an S3 bucket are in use, and the most that ever were.
func PartBuffers(b Bucket) (held, peak int) {
	buffers := &b.(*front).Bucket.(*s3Bucket).buffers
	buffers.mu.Lock()
	defer buffers.mu.Unlock()
	return buffers.held, buffers.peak
}

// PartSizes yields the sizes in bytes of all the parts that one upload may have.
func PartSizes(first int64) []int {
	u := &partUpload{sending: sending{partSize: first}}
	sizes := make([]int, maxParts)
	for u.number = range sizes {
		sizes[u.number] = u.size()
	}
	return sizes
}

// Break makes a bucket panic in the middle of the requests that match, as a fault of ours would. It has sent none yet.
func Break(b Bucket, when func(*http.Request) bool) {
	var wire *watchdog
	switch kind := b.(*front).Bucket.(type) {
	case *s3Bucket:
		wire = kind.wire
	case *gcsBucket:
		wire = kind.wire
	case *azureBucket:
		wire = kind.wire
	}
	wire.base.Proxy = func(r *http.Request) (*url.URL, error) {
		if when(r) {
			panic("broken by the test")
		}
		return nil, nil
	}
}

// EndPause lets an S3 bucket read its credentials again, however short ago it did.
func EndPause(b Bucket) {
	keys := b.(*front).Bucket.(*s3Bucket).keys
	keys.mu.Lock()
	defer keys.mu.Unlock()
	keys.tried = time.Time{}
}

// Listed is an object of a page as ReadPage reads it.
type Listed struct {
	Key, ETag string
	Size      int64
	Modified  time.Time
}

// ReadPage reads the answer to ListObjectsV2: see s3Page.
func ReadPage(text []byte) (objects []Listed, truncated, token string, encoded bool, err error) {
	var p s3Page
	err = p.read(bytes.Clone(text))
	for _, it := range p.items {
		objects = append(objects, Listed{string(it.key), string(it.etag), it.size, it.modified})
	}
	return objects, p.truncated, p.token, p.encoded, err
}

// UnescapeQuery is url.QueryUnescape in place.
func UnescapeQuery(text []byte) ([]byte, bool) { return unescapeQuery(text) }

// Sign signs a request as the lean requests are; see s3Signer.
func Sign(req *http.Request, region string, c aws.Credentials, sum string, at time.Time) {
	(&s3Signer{region: region}).sign(req, c, sum, at)
}

// OtherSpellings are those under which a name is looked up: see otherSpellings.
func OtherSpellings(name string) []string { return otherSpellings(name) }
