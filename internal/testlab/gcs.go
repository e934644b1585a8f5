package testlab

import (
	"testing"

	"github.com/fsouza/fake-gcs-server/fakestorage"
)

// Google is a fake GCS server with a bucket, both of the test's own.
type Google struct {
	Endpoint string // http://127.0.0.1:port
	Bucket   string
	Server   *fakestorage.Server // looks at objects past the code under test
}

// GCS starts a fake GCS server in this process, in memory, and stops it when the test ends.
func GCS(t testing.TB) Google {
	t.Helper()
	port, err := freePort()
	need(t, err)
	server, err := fakestorage.NewServerWithOptions(fakestorage.Options{
		Scheme: "http", Host: "127.0.0.1", Port: uint16(port),
		// Else downloads are served only to clients that ask for storage.googleapis.com.
		PublicHost: address(port), ExternalURL: "http://" + address(port),
	})
	need(t, err)
	t.Cleanup(server.Stop)
	g := Google{Endpoint: "http://" + address(port), Bucket: unique(t, "-"), Server: server}
	server.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: g.Bucket})
	return g
}

// Env is the store in the variable that Google's SDK reads, for a child process.
func (g Google) Env() []string {
	return []string{"STORAGE_EMULATOR_HOST=" + g.Endpoint[len("http://"):]}
}
