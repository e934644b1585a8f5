package bucket

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/leatdata/leat/internal/fault"
)

// checker collects findings about a bucket.
type checker struct {
	ctx      context.Context
	bucket   Bucket
	now      func() time.Time
	key      string
	findings []fault.Finding
}

// Check tries, on scratch objects that it removes again, everything that leat does with a bucket, and
// reports what it may not or cannot. Rights are found by trying, because a policy says only what it says.
func Check(ctx context.Context, b Bucket, now func() time.Time) ([]fault.Finding, error) {
	var nonce [8]byte
	_, _ = rand.Read(nonce[:]) // never fails, says crypto/rand
	c := &checker{ctx: ctx, bucket: b, now: now, key: ".leat/check-" + hex.EncodeToString(nonce[:])}
	if !c.small() {
		return c.findings, nil
	}
	c.list()
	c.multipart()
	c.remove()
	c.conditional()
	return c.findings, nil
}

func (c *checker) add(code string, severity fault.Severity, mend, format string, args ...any) {
	c.findings = append(c.findings, fault.Finding{Code: code, Severity: severity, Where: c.bucket.Properties().URL, What: fmt.Sprintf(format, args...), Mend: mend})
}

// failed reports an error under a code, with the mend that the error brings.
func (c *checker) failed(code, doing string, err error) bool {
	if err == nil {
		return false
	}
	mend := ""
	if f := fault.Of(err); f != nil {
		mend = f.HowToMend()
	}
	c.add(code, fault.SeverityError, mend, "%s: %s", doing, err)
	return true
}

// small writes, looks at and reads back one object.
func (c *checker) small() bool {
	content := []byte("leat check: this object may be deleted\n")
	before := c.now()
	_, err := WriteAll(c.ctx, c.bucket, c.key, content, WriteOptions{ContentType: "text/plain"})
	if c.failed("bucket-write", "cannot write an object", err) {
		return false
	}
	c.add("bucket-write", fault.SeverityOK, "", "objects can be written")
	obj, err := c.bucket.Stat(c.ctx, c.key)
	if c.failed("bucket-stat", "cannot look at an object", err) {
		return true
	}
	// Stores keep whole seconds.
	c.findings = append(c.findings, fault.ClockFinding("clock-bucket", c.bucket.Properties().URL, before.Truncate(time.Second), c.now(), obj.Modified))
	c.encryption(obj)
	data, err := ReadAll(c.ctx, c.bucket, c.key, 1<<10)
	switch {
	case c.failed("bucket-read", "cannot read an object", err):
	case !bytes.Equal(data, content):
		c.add("bucket-read", fault.SeverityError, "Look for a proxy or gateway that changes content.", "an object came back with other bytes")
	default:
		c.add("bucket-read", fault.SeverityOK, "", "objects can be read")
	}
	return true
}

func (c *checker) encryption(obj Object) {
	switch asked := c.bucket.Properties().Encryption; {
	case asked != "" && obj.Encryption != asked:
		c.add("bucket-encryption", fault.SeverityError, "Use a server that encrypts, encrypt its disks, or set to.encryption to none.",
			"%s was asked for, the server accepted it and tells of %s", asked, orNone(obj.Encryption))
	case obj.Encryption != "":
		c.add("bucket-encryption", fault.SeverityOK, "", "objects are encrypted at rest (%s)", obj.Encryption)
	case c.bucket.Properties().Kind == KindS3:
		c.add("bucket-encryption", fault.SeverityWarn, "Set to.encryption to AES256, or give the bucket a default encryption.", "the server tells of no encryption at rest")
	}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func (c *checker) list() {
	for obj, err := range c.bucket.List(c.ctx, c.key) {
		if c.failed("bucket-list", "cannot list objects", err) {
			return
		}
		if obj.Key == c.key {
			c.add("bucket-list", fault.SeverityOK, "", "objects can be listed")
			return
		}
	}
	c.add("bucket-list", fault.SeverityError, "Use a store whose listings are consistent.", "an object that was just written is not in the list")
}

// multipart begins an upload of more than one part and gives it up: nothing is to be seen of it.
func (c *checker) multipart() {
	up, err := c.bucket.Create(c.ctx, c.key+".multipart", WriteOptions{})
	if c.failed("bucket-multipart", "cannot begin a large object", err) {
		return
	}
	defer up.Abort()
	const more = 9 << 20 // than one part of the default size
	if _, err := up.Write(make([]byte, more)); c.failed("bucket-multipart", "cannot write a large object", err) {
		return
	}
	_, err = up.Commit(c.ctx)
	if !c.failed("bucket-multipart", "cannot write a large object", err) {
		c.add("bucket-multipart", fault.SeverityOK, "", "large objects can be written")
	}
}

func (c *checker) remove() {
	err := c.bucket.Delete(c.ctx, c.key, c.key+".multipart")
	if !c.failed("bucket-delete", "cannot delete objects (two are left behind: "+c.key+"*)", err) {
		c.add("bucket-delete", fault.SeverityOK, "", "objects can be deleted")
	}
	if _, err := c.bucket.Sweep(c.ctx, c.key, c.now().Add(-time.Hour)); err != nil {
		c.failed("bucket-sweep", "cannot look for unfinished uploads", err)
	}
}

func (c *checker) conditional() {
	p, err := Probe(c.ctx, c.bucket)
	if err != nil {
		c.failed("bucket-conditional", "cannot try conditional writes", err)
		return
	}
	switch p.ConditionalPut {
	case Supported:
		c.add("bucket-conditional", fault.SeverityOK, "", "conditional writes hold")
	case Unsupported:
		c.add("bucket-conditional", fault.SeverityInfo, "leat dump does not need them.", "the server has no conditional writes")
	}
}
