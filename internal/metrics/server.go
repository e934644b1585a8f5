package metrics

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/leatdata/leat/internal/fault"
)

// DefaultAddress is where the server listens unless it is told otherwise: for this machine only.
const DefaultAddress = "127.0.0.1:9187"

// ServerOptions say where and for whom the server answers.
type ServerOptions struct {
	Address string // host:port; DefaultAddress when empty, port 0 for any
	// Token is the bearer token that /metrics wants; "" lets everybody in, which only an address of this machine may.
	Token string
	// Ready says what stands in the way of readiness, or nil. May be nil itself.
	Ready func() error
	// Alive says why the process should be started again, or nil. May be nil itself.
	Alive func() error
}

// Server answers over HTTP: /metrics, /healthz (the process works), /readyz (it follows the log).
type Server struct {
	Address string // as it listens
	http    *http.Server
	ended   chan error
}

// Serve begins to listen. An address that others can reach without a token is config-invalid.
func (m *Metrics) Serve(o ServerOptions) (*Server, error) { return serve(m.registry, o) }

func serve(registry *prometheus.Registry, o ServerOptions) (*Server, error) {
	if o.Address == "" {
		o.Address = DefaultAddress
	}
	if o.Token == "" && !loopback(o.Address) {
		return nil, fault.New(fault.ConfigInvalid, o.Address, "other machines could read the metrics without a token").
			WithMend("Set a bearer token for the metrics, or listen on 127.0.0.1.")
	}
	listener, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, fault.Wrap(err, fault.ConfigInvalid, o.Address, "cannot listen for metrics")
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", authorized(o.Token, promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})))
	mux.Handle("GET /healthz", answer(o.Alive, o.Token))
	mux.Handle("GET /readyz", answer(o.Ready, o.Token))
	s := &Server{
		Address: listener.Addr().String(), ended: make(chan error, 1),
		http: &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10},
	}
	go func() { s.ended <- s.http.Serve(listener) }() // ends in Close
	return s, nil
}

// Close stops the server; requests under way have until ctx ends.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	if ended := <-s.ended; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}

// loopback says whether only this machine can reach the address. A name may mean anything, but "localhost" does not.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func authorized(token string, next http.Handler) http.Handler {
	if token == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !bears(r, token) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "a bearer token is wanted", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// bears compares in a time that tells nothing about the token, its length neither.
func bears(r *http.Request, token string) bool {
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(token))
	return ok && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// answer is what probes ask, without a token. The reason is told only to who may see the metrics.
func answer(ask func() error, token string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		var err error
		if ask != nil {
			err = ask()
		}
		reason := "ok"
		if err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			reason = "no"
			if token == "" || bears(r, token) {
				reason = fault.Printable(err.Error())
			}
		}
		_, _ = w.Write([]byte(reason + "\n")) // a client that went away needs no answer
	})
}
