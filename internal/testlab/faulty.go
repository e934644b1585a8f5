package testlab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Faulty is an S3 store behind an HTTP proxy that answers by a script.
type Faulty struct {
	Store // its Endpoint is the proxy's

	mu       sync.Mutex
	requests []string
}

// Script decides what happens to a request. Requests come in parallel.
type Script func(*http.Request) Answer

// Answer is what happens to one request. nil passes it on.
type Answer func(w http.ResponseWriter, r *http.Request, upstream http.Handler)

// FaultyS3 puts a proxy before a store. Signatures stay valid: they cover the host that the client asked for,
// and the proxy passes it on as it came.
func FaultyS3(t testing.TB, s Store, script Script) *Faulty {
	t.Helper()
	target, err := url.Parse(s.Endpoint)
	need(t, err)
	f := &Faulty{Store: s}
	transport := s.transport()
	upstream := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = target.Scheme, target.Host, r.In.Host
		},
		Transport: transport,
		// The client went away, or the test spoils things on purpose.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.note(r)
		if answer := script(r); answer != nil {
			answer(w, r, upstream)
			return
		}
		upstream.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		proxy.CloseClientConnections()
		proxy.Close()
	})
	f.Endpoint = proxy.URL
	return f
}

func (f *Faulty) note(r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, r.Method+" "+r.URL.RequestURI())
}

// Requests lists what came, in order, as "PUT /bucket/key?partNumber=1&uploadId=…".
func (f *Faulty) Requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.requests)
}

// Times gives the answer to the first n requests that match, and passes the others on.
func Times(n int, match func(*http.Request) bool, answer Answer) Script {
	var mu sync.Mutex
	return func(r *http.Request) Answer {
		mu.Lock()
		defer mu.Unlock()
		if n == 0 || !match(r) {
			return nil
		}
		n--
		return answer
	}
}

// Always gives the answer to every request that matches.
func Always(match func(*http.Request) bool, answer Answer) Script { return Times(-1, match, answer) }

// Fail answers with an S3 error, such as 503 "SlowDown" or 403 "ExpiredToken", without asking the store.
func Fail(status int, code string) Answer {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		_, _ = io.Copy(io.Discard, r.Body)
		body := fmt.Sprintf("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code><Message>said by the lab</Message><RequestId>lab</RequestId></Error>", code)
		w.Header().Set("Content-Type", "application/xml")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// Reset cuts the connection without an answer and without asking the store.
func Reset(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }

// LoseReply lets the store do what it is asked and cuts the connection instead of telling: the client cannot
// know whether it happened.
func LoseReply(_ http.ResponseWriter, r *http.Request, upstream http.Handler) {
	upstream.ServeHTTP(httptest.NewRecorder(), r)
	panic(http.ErrAbortHandler)
}

// Hang answers nothing until the client gives up or the test ends.
func Hang(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
	// The server notices a client that leaves only after it has read the body.
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}

// HangAfter lets the store do what it is asked and answers nothing until the client gives up or the test ends.
func HangAfter(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
	upstream.ServeHTTP(httptest.NewRecorder(), r)
	Hang(w, r, upstream)
}

// Late answers nothing until the client gives up, and lets the store do then what nobody waits for any more.
func Late(_ http.ResponseWriter, r *http.Request, upstream http.Handler) {
	body, err := io.ReadAll(r.Body)
	<-r.Context().Done()
	if err == nil {
		r = r.Clone(context.WithoutCancel(r.Context()))
		r.Body = io.NopCloser(bytes.NewReader(body))
		upstream.ServeHTTP(httptest.NewRecorder(), r)
	}
	panic(http.ErrAbortHandler)
}

// StallReply passes the first n bytes of the store's answer on and nothing more until the client gives up or the test ends.
func StallReply(n int) Answer {
	return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
		reply := httptest.NewRecorder()
		upstream.ServeHTTP(reply, r)
		copyHead(w, reply)
		body := reply.Body.Bytes()
		_, _ = w.Write(body[:min(n, len(body))])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
}

// CutReply passes the first n bytes of the store's answer on and then cuts the connection.
func CutReply(n int) Answer {
	return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
		reply := httptest.NewRecorder()
		upstream.ServeHTTP(reply, r)
		copyHead(w, reply)
		body := reply.Body.Bytes()
		_, _ = w.Write(body[:min(n, len(body))])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

// Slow passes the request and the answer on at most at the given speed each way.
func Slow(bytesPerSecond int) Answer {
	return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
		in := &slowReader{r: r.Body, step: max(1, bytesPerSecond/20), gone: r.Context().Done()}
		r.Body = struct {
			io.Reader
			io.Closer
		}{in, r.Body}
		reply := httptest.NewRecorder()
		upstream.ServeHTTP(reply, r)
		copyHead(w, reply)
		out := &slowReader{r: bytes.NewReader(reply.Body.Bytes()), step: in.step, gone: in.gone}
		buffer := make([]byte, in.step)
		for {
			n, err := out.Read(buffer)
			if _, failed := w.Write(buffer[:n]); failed != nil || err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
		}
	}
}

func copyHead(w http.ResponseWriter, reply *httptest.ResponseRecorder) {
	for name, values := range reply.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(reply.Code)
}

// slowReader gives one step of bytes every 50 ms.
type slowReader struct {
	r    io.Reader
	step int
	gone <-chan struct{}
}

func (s *slowReader) Read(p []byte) (int, error) {
	select {
	case <-time.After(50 * time.Millisecond):
	case <-s.gone:
		return 0, io.ErrUnexpectedEOF
	}
	return s.r.Read(p[:min(len(p), s.step)])
}
