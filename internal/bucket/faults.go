package bucket

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"

	"github.com/leatdata/leat/internal/fault"
)

// holds says whether the condition of a write is met by what is there.
func (o WriteOptions) holds(found bool, etag string) bool {
	switch {
	case o.IfAbsent:
		return !found
	case o.IfMatch != "":
		return found && etag == o.IfMatch
	}
	return true
}

// conditionFailed is the error of a write whose condition was not met.
func conditionFailed(where string, opts WriteOptions) *fault.Fault {
	if opts.IfMatch != "" {
		return fault.New(fault.ObjectExists, where, "the object is no longer the one that was to be replaced")
	}
	return fault.New(fault.ObjectExists, where, "an object with this key exists already")
}

// writeFailed judges why a write failed from what the server's answer means by itself. Only a write on condition can find its condition
// unmet, and only one that replaces a version can miss it: any other refusal in these words has another reason.
func writeFailed(err error, where string, opts WriteOptions) error {
	switch f := fault.Of(err); {
	case f == nil:
		return err
	case f.Code == fault.ObjectExists && opts.conditional():
		return conditionFailed(where, opts).Because(f.Err)
	case f.Code == fault.ObjectExists, f.Code == fault.ObjectMissing && opts.IfMatch == "":
		return fault.New(fault.BucketFailed, where, "the object store refused the write").Because(f.Err)
	}
	return err
}

// interrupted is the error of what stopped because its context ended.
func interrupted(ctx context.Context, where string) error {
	why := context.Cause(ctx)
	if why == nil {
		why = context.DeadlineExceeded // it has not ended yet, but what is left cannot be enough
	}
	return fault.New(fault.Interrupted, where, "stopped").Because(why)
}

// cause carries an error of a library under a text of ours: theirs may hold URLs with signatures
// or tokens in their queries. errors.Is and errors.As still see the original.
type cause struct {
	text string
	err  error
}

func (c *cause) Error() string { return c.text }
func (c *cause) Unwrap() error { return c.err }

// networkFault judges what happened below HTTP. It returns nil if err is something else.
func networkFault(err error, where string) *fault.Fault {
	reason := networkReason(err)
	if reason == "" {
		return nil
	}
	f := fault.New(fault.BucketUnreachable, where, "the object store cannot be reached").
		Because(&cause{reason, err})
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return f.WithMend("Give the certificate of the server's authority as CA file.")
	}
	return f
}

// networkReason names the innermost network error, without the URL around it; "" for others.
func networkReason(err error) string {
	var (
		stall  *stallError
		dns    *net.DNSError
		op     *net.OpError
		cert   *tls.CertificateVerificationError
		record tls.RecordHeaderError
		alert  tls.AlertError
		web    *url.Error
		errno  syscall.Errno
		timed  net.Error
	)
	switch {
	case errors.As(err, &stall):
		return stall.Error()
	case errors.As(err, &dns):
		return dns.Error()
	case errors.As(err, &cert):
		return cert.Error()
	case errors.As(err, &record):
		return record.Msg
	case errors.As(err, &alert):
		return alert.Error()
	case errors.As(err, &op):
		return op.Error()
	case errors.As(err, &errno) && (errno == syscall.ECONNRESET || errno == syscall.EPIPE):
		return errno.Error()
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		return "the connection ended in the middle"
	case errors.As(err, &web):
		return networkOrOpaque(web.Err)
	case errors.As(err, &timed) && timed.Timeout():
		return "it took too long"
	}
	return ""
}

// networkOrOpaque names what failed inside an HTTP exchange that never got its answer.
func networkOrOpaque(err error) string {
	if reason := networkReason(err); reason != "" {
		return reason
	}
	// net/http has errors without a type, such as "server closed idle connection"; they hold
	// no URL.
	return strings.TrimPrefix(err.Error(), "net/http: ")
}

// plainStatus judges an HTTP status where the server gave no code that says more.
func plainStatus(status int) fault.Code {
	switch status {
	case 401:
		return fault.BucketAuth
	case 403:
		return fault.BucketRights
	case 404:
		return fault.ObjectMissing
	case 412:
		return fault.ObjectExists
	case 408, 409, 429, 500, 502, 503, 504:
		return fault.BucketBusy
	case 501, 405:
		return fault.BucketUnsupported
	case 507:
		return fault.BucketFull
	}
	return fault.BucketFailed
}

// whats are the sentences for codes, the same on every kind.
var whats = map[fault.Code]string{
	fault.BucketAuth:        "the object store refused the credentials",
	fault.BucketRights:      "the credentials lack the right to do this",
	fault.BucketMissing:     "the bucket does not exist",
	fault.BucketForeign:     "the bucket exists and belongs to somebody else",
	fault.ObjectMissing:     "there is no such object",
	fault.ObjectExists:      "an object with this key exists already",
	fault.BucketBusy:        "the object store kept failing or asked to slow down",
	fault.BucketFull:        "there is no room left",
	fault.BucketUnsupported: "the object store cannot do this",
	fault.ChecksumMismatch:  "the bytes changed on their way",
	fault.BucketFailed:      "the object store answered with an error",
	fault.ObjectArchived:    "the object lies in an archive",
	fault.KeyRefused:        "the object store cannot keep an object under this key",
}
