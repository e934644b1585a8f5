package bucket

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/leatdata/leat/internal/fault"
)

// mostAnswer is how many bytes an answer may have that is no object: a page of a listing has some MiB at most.
const mostAnswer = 64 << 20

// bounded is the body of an answer that ends with an error where it has more bytes than it may have.
type bounded struct {
	io.ReadCloser
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left+1)])
	if b.left -= int64(n); b.left < 0 {
		return n - 1, errEndless
	}
	return n, err
}

var errEndless = errors.New("the answer has more bytes than any answer of its kind")

// stallError says that a request made no progress for too long.
type stallError struct{ after time.Duration }

func (e *stallError) Error() string   { return fmt.Sprintf("no progress for %s", e.after) }
func (e *stallError) Timeout() bool   { return true }
func (e *stallError) Temporary() bool { return true }

// newTransport makes the one HTTP transport of a bucket.
func newTransport(caFile, proxy string, stall time.Duration) (*watchdog, error) {
	trust, err := authorities(caFile)
	if err != nil {
		return nil, err
	}
	through := http.ProxyFromEnvironment
	if proxy != "" {
		at, err := url.Parse(proxy)
		if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" || at.User != nil {
			return nil, fault.New(fault.URLInvalid, "proxy", "it is not an address like http://host:port")
		}
		through = http.ProxyURL(at)
	}
	dialer := &net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}
	return &watchdog{stall: stall, base: &http.Transport{
		Proxy:                 through,
		DialContext:           dialer.DialContext,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: trust},
		TLSHandshakeTimeout:   15 * time.Second,
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       60 * time.Second,
		MaxIdleConns:          256,
		MaxIdleConnsPerHost:   64,
		// A small object with its headers in one go. Large ones pass the buffers by; there are hundreds of connections.
		WriteBufferSize: writeBuffer,
		ReadBufferSize:  16 << 10,
		// Objects are bytes: nobody may unpack a .gz on the way.
		DisableCompression: true,
	}}, nil
}

// writeBuffer is what a connection sends in one go, in bytes. oneWrite leaves room for headers in it.
const (
	writeBuffer = 16 << 10
	oneWrite    = writeBuffer - 2<<10
)

// authorities returns the system's certificate authorities and those of a PEM file; nil means the
// system's alone.
func authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fault.New(fault.ConfigInvalid, file, "the CA file cannot be read").Because(err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, fault.New(fault.ConfigInvalid, file, "the CA file holds no certificate in PEM form")
	}
	return pool, nil
}

// watchdog ends requests that make no progress: that read no byte of the request's body, get no
// answer, or yield no byte of the answer's body for the stall time. It bounds silence, not the
// length of a transfer.
type watchdog struct {
	base  *http.Transport
	stall time.Duration
	clock serverClock
}

func (w *watchdog) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(w.stall, func() { cancel(&stallError{w.stall}) })
	progress := func() { timer.Reset(w.stall) }

	guarded := req.WithContext(ctx)
	body := &requestBody{progress: progress, left: req.ContentLength, body: req.Body}
	if req.Body != nil && req.Body != http.NoBody {
		guarded.Body = body
		guarded.GetBody = nil
		if 0 < req.ContentLength && req.ContentLength <= oneWrite {
			if err := body.apart(guarded); err != nil {
				timer.Stop()
				cancel(nil)
				return nil, err
			}
		}
	}
	resp, err := w.base.RoundTrip(guarded)
	// The transport may still hold the body after it has returned; the buffer below it is about
	// to be used again.
	body.detach()
	if err != nil {
		timer.Stop()
		cancel(nil)
		return nil, err // after a stall it is the context's cause, our stallError
	}
	w.clock.told(resp.Header.Get("Date"))
	timer.Stop()
	resp.Body = &responseBody{ReadCloser: resp.Body, timer: timer, stall: w.stall, cancel: cancel}
	return resp, nil
}

// CloseIdleConnections lets [http.Client] close what is idle.
func (w *watchdog) CloseIdleConnections() { w.base.CloseIdleConnections() }

// requestBody hides all but Read and Close of the body below. That matters: smithy-go's body has a
// WriteTo that fails once the answer's headers have come, and net/http then closes the connection
// under an answer that is still being read (smithy-go 1.28, transport/http/internal/io/safe.go).
type requestBody struct {
	progress func()

	mu   sync.Mutex
	body io.ReadCloser
	left int64 // bytes still to come
	gone bool
}

func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone {
		if b.left <= 0 {
			return 0, io.EOF // all was read; the transport looks whether there is more
		}
		return 0, errDetached
	}
	b.progress()
	n, err := b.body.Read(p)
	b.left -= int64(n)
	return n, err
}

// apart gives a request a copy of its small body, of the kind that net/http sends in one go with the headers. Of all other kinds it
// cannot know that they do not block, and sends the headers first: one more packet, and for a small object much more work on both sides.
func (b *requestBody) apart(req *http.Request) error {
	data := make([]byte, req.ContentLength)
	if _, err := io.ReadFull(b, data); err != nil {
		return err
	}
	req.Body = io.NopCloser(bytes.NewReader(data))
	return nil
}

func (b *requestBody) Close() error {
	b.detach()
	return nil
}

// detach closes the body below; no byte of it is touched after.
func (b *requestBody) detach() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.gone && b.body != nil {
		b.body.Close()
	}
	b.gone = true
}

var errDetached = errors.New("the request's body was closed")

// responseBody watches each Read, and only those: a reader may take its time between them.
type responseBody struct {
	io.ReadCloser
	timer  *time.Timer
	stall  time.Duration
	cancel context.CancelCauseFunc
}

func (b *responseBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.stall)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	return n, err // after a stall it is the context's cause, our stallError
}

func (b *responseBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
