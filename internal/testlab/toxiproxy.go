package testlab

import (
	"errors"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	toxics "github.com/Shopify/toxiproxy/v2/client"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// Toxiproxy returns a TCP proxy before upstream ("host:port") that the test can spoil: its Listen is the
// address to connect to, AddToxic adds latency, cuts and limits, Disable refuses connections. It goes with
// the test. One trap: the toxic "timeout" ends when upstream closes, so it is no hang before a server that does.
func Toxiproxy(t testing.TB, upstream string) *toxics.Proxy {
	t.Helper()
	control, err := startToxiproxy()
	need(t, err)
	create := func() (*toxics.Proxy, error) {
		return toxics.NewClient(control).CreateProxy(unique(t, "_"), "127.0.0.1:0", upstream)
	}
	proxy, err := create()
	if errors.Is(err, io.EOF) { // the server closed the connection, which had been idle, just as it was used again
		proxy, err = create()
	}
	need(t, err)
	t.Cleanup(func() {
		if err := proxy.Delete(); err != nil {
			t.Logf("the proxy stays: %v", err)
		}
	})
	return proxy
}

// startToxiproxy returns the address of a control server, one for each proxy: where one gets stuck, its server answers nothing more. The
// library offers no way to stop it; it ends with the process.
func startToxiproxy() (string, error) {
	port, err := freePort()
	if err != nil {
		return "", err
	}
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	go server.Listen("127.0.0.1", strconv.Itoa(port))
	return address(port), listens(address(port))
}

// listens waits until something accepts connections at the address.
func listens(address string) error {
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-tick.C:
		case <-deadline:
			return err
		}
	}
}
