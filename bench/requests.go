//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

// requestTables is how many tables change all the time while requests are counted.
const requestTables = 10

// runRequests counts what a commit of a table asks of an S3 server, and what a run at rest asks.
func runRequests(ctx context.Context, b *bench) error {
	const database = "requests"
	if err := b.script(ctx, database, fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%d LOOP
		EXECUTE format('CREATE TABLE r%%s (id int PRIMARY KEY, v text)', i);
		EXECUTE format('INSERT INTO r%%s SELECT n, ''before'' FROM generate_series(1, 1000) n', i);
		END LOOP; END $$`, requestTables)); err != nil {
		return err
	}
	defer func() { _ = b.forget(context.WithoutCancel(ctx), database) }() // the cluster goes with the bench
	g, err := startGateway()
	if err != nil {
		return err
	}
	defer g.stop()
	b.report.more = append(b.report.more, "| requests of a commit of a table | PUT | of the pipeline's state and lease | GET | HEAD | DELETE | LIST | KiB sent | commits | at rest, a minute, 10 tables |",
		"| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
	for _, form := range []string{"history", "current"} {
		if err := b.countForm(ctx, database, form, g); err != nil {
			return fmt.Errorf("%s: %w", form, err)
		}
	}
	return nil
}

func (b *bench) countForm(ctx context.Context, database, form string, g *gateway) error {
	long := max(10*time.Second, time.Duration(60*b.scale*float64(time.Second)))
	progress("requests of %d tables that change, %s, for %s", requestTables, form, long)
	c, err := countRequests(g.Endpoint)
	if err != nil {
		return err
	}
	defer c.close()
	name := database + "_" + form
	p, err := b.startLive(ctx, database, []string{b.leat, "run", "--quiet", "--to", g.URL + "/" + form, "--work-dir", b.scratch + "/" + name, "--name", name,
		"--table", "public.r*", "--keep", form, "--commit-interval", "1s"}, append(g.Env, "AWS_ENDPOINT_URL="+c.endpoint)...)
	if err != nil {
		return err
	}
	change := func(i int) string {
		return fmt.Sprintf("UPDATE r%d SET v = 'after %d' WHERE id = %d", i%requestTables+1, i, i/requestTables%1000+1)
	}
	busy, rest, err := b.countBusyAndRest(ctx, database, c, long, change)
	_, stopErr := p.stop()
	if err := errors.Join(err, stopErr); err != nil {
		return err
	}
	commits := float64(busy.commits)
	if commits == 0 {
		return errors.New("nothing was committed")
	}
	each := func(kind string) float64 { return float64(busy.kinds[kind]) / commits }
	b.report.more = append(b.report.more, fmt.Sprintf("| %s | %.2f | %.2f | %.2f | %.2f | %.2f | %.2f | %.1f | %d | %.0f |", form, each("PUT"), float64(busy.own)/commits, each("GET"), each("HEAD"), each("DELETE"),
		each("LIST"), float64(busy.sent)/commits/1024, busy.commits, float64(rest.all())*60/restFor.Seconds()))
	b.report.reach("leat run, "+form+": PUT a commit and table", "requests", fmt.Sprintf("%.2f", each("PUT")), "5", each("PUT") <= 5)
	b.report.reach("leat run, "+form+": GET and HEAD a commit and table", "requests", fmt.Sprintf("%.2f", each("GET")+each("HEAD")), "2", each("GET")+each("HEAD") <= 2)
	return nil
}

// restFor is how long nothing changes while the requests of a run at rest are counted.
const restFor = 20 * time.Second

// countBusyAndRest counts while tables change, after the copy and the first commits, and then while nothing does.
func (b *bench) countBusyAndRest(ctx context.Context, database string, c *counter, long time.Duration, change func(int) string) (busy, rest counts, err error) {
	if _, err := b.offer(ctx, database, 100, 10*time.Second, change); err != nil {
		return busy, rest, err
	}
	c.take()
	if _, err := b.offer(ctx, database, 100, long, change); err != nil {
		return busy, rest, err
	}
	busy = c.take()
	for _, wait := range []time.Duration{5 * time.Second, restFor} { // the last commits do not count
		c.take()
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return busy, rest, ctx.Err()
		}
	}
	return busy, c.take(), nil
}

// counts are the requests of a while.
type counts struct {
	kinds   map[string]int
	own     int   // of the PUTs, those of the pipeline's state
	sent    int64 // bytes of bodies
	commits int   // versions of metadata written
}

func (c counts) all() (n int) {
	for _, k := range c.kinds {
		n += k
	}
	return n
}

// counter is a proxy before an S3 server that counts what goes through.
type counter struct {
	endpoint string
	server   *http.Server
	mu       sync.Mutex
	now      counts
}

func countRequests(upstream string) (*counter, error) {
	to, err := url.Parse(upstream)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &counter{endpoint: "http://" + l.Addr().String(), now: counts{kinds: map[string]int{}}}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host // it is signed
	}}
	c.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.count(r)
		proxy.ServeHTTP(w, r)
	})}
	go func() { _ = c.server.Serve(l) }() // ends with Close
	return c, nil
}

func (c *counter) close() { _ = c.server.Close() } // there is nothing to lose

func (c *counter) count(r *http.Request) {
	kind := r.Method
	switch q := r.URL.Query(); {
	case kind == http.MethodGet && q.Has("list-type"):
		kind = "LIST"
	case kind == http.MethodPost && q.Has("delete"):
		kind = "DELETE"
	case kind == http.MethodPost:
		kind = "PUT" // of an upload in parts, at the price of a PUT
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now.kinds[kind]++
	if kind == http.MethodPut {
		if strings.Contains(r.URL.Path, "/_leat/") {
			c.now.own++
		}
		if strings.HasSuffix(r.URL.Path, ".metadata.json") {
			c.now.commits++
		}
		r.Body = &meteredBody{r.Body, c}
	}
}

// take gives the counts since the last time.
func (c *counter) take() counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.now
	c.now = counts{kinds: map[string]int{}}
	return was
}

// meteredBody counts the bytes of a body.
type meteredBody struct {
	io.ReadCloser
	c *counter
}

func (m *meteredBody) Read(p []byte) (int, error) {
	n, err := m.ReadCloser.Read(p)
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	m.c.now.sent += int64(n)
	return n, err
}
