package gcslab

import (
	"crypto/rand"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/fsouza/fake-gcs-server/fakestorage"

	"github.com/leatdata/leat/internal/testlab"
)

// Store is a fake GCS server with a bucket, both of the test's own.
type Store struct {
	Endpoint string // http://127.0.0.1:port
	Bucket   string
	Server   *fakestorage.Server // looks at objects past the code under test
}

// Start starts a fake GCS server in this process, in memory, and stops it when the test ends.
func Start(t testing.TB) Store {
	t.Helper()
	address := testlab.FreeAddress(t)
	host, port := split(t, address)
	server, err := fakestorage.NewServerWithOptions(fakestorage.Options{
		Scheme: "http", Host: host, Port: port,
		// Else downloads are served only to clients that ask for storage.googleapis.com.
		PublicHost: address, ExternalURL: "http://" + address,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	s := Store{Endpoint: "http://" + address, Bucket: "t-" + strings.ToLower(rand.Text()), Server: server}
	server.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: s.Bucket})
	return s
}

func split(t testing.TB, address string) (host string, port uint16) {
	t.Helper()
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return host, uint16(number)
}

// Env is the store in the variable that Google's SDK reads, for a child process.
func (s Store) Env() []string {
	return []string{"STORAGE_EMULATOR_HOST=" + s.Endpoint[len("http://"):]}
}
