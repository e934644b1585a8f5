package testlab

import (
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
	return ToxiproxyAt(t, "127.0.0.1:0", upstream)
}

// ToxiproxyAt is Toxiproxy at an address, and spoiled before anybody can connect. A busy proxy is better replaced than spoiled: a toxic that
// comes to a connection whose other end has gone just now waits for ever, and the proxy with it.
func ToxiproxyAt(t testing.TB, listen, upstream string, spoiled ...toxics.Toxic) *toxics.Proxy {
	t.Helper()
	control, err := startToxiproxy()
	need(t, err)
	proxy := toxics.NewClient(control).NewProxy()
	proxy.Name, proxy.Listen, proxy.Upstream = unique(t, "_"), listen, upstream
	need(t, proxy.Save()) // it does not listen yet
	for _, x := range spoiled {
		_, err := proxy.AddToxic(x.Name, x.Type, x.Stream, 1, x.Attributes)
		need(t, err)
	}
	need(t, proxy.Enable())
	t.Cleanup(func() { _ = proxy.Delete() }) // or it was replaced
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
