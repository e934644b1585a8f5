package testlab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

// Store is a bucket of the test's own on an S3 server.
type Store struct {
	Endpoint  string // http://127.0.0.1:port or https://…
	Region    string
	Bucket    string // empty until somebody makes one
	AccessKey string
	SecretKey string
	CA        string // certificate of an https endpoint
	Stranger  Keys   // a second user of the server, who has no right on Bucket; only Ceph has one
}

// Keys are the credentials of an S3 user.
type Keys struct{ AccessKey, SecretKey string }

// StartS3 starts versitygw on a folder, inside this process. A process can hold one of them: the library has
// state of its own in package variables. It stops with the process or by Stop.
func StartS3() (Store, error) {
	dir, err := scratch("s3")
	if err != nil {
		return Store{}, err
	}
	backend, err := s3Backend(dir)
	if err != nil {
		return Store{}, fmt.Errorf("versitygw: %w", err)
	}
	port, err := freePort()
	if err != nil {
		return Store{}, err
	}
	s := Store{
		Endpoint: "http://" + address(port), Region: "us-east-1",
		AccessKey: "lab-access-key", SecretKey: Secret("lab-s3-secret-9Vx2kL"),
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended, stopped := make(chan error, 1), make(chan struct{})
	go func() { // ends in onStop
		defer close(stopped)
		ended <- embedgw.RunVersityGW(ctx, backend, &embedgw.Config{
			RootUserAccess: s.AccessKey, RootUserSecret: s.SecretKey, Region: s.Region,
			Ports: []string{address(port)}, MaxConnections: 2000, MaxRequests: 2000, MultipartMaxParts: 10000,
			KeepAlive: true, Quiet: true,
			// The one account, given outright: else the library prints that it found no other.
			IAMService: auth.NewIAMServiceSingle(auth.Account{Access: s.AccessKey, Secret: s.SecretKey, Role: auth.RoleAdmin}),
		})
	}()
	onStop(func() {
		cancel()
		select { // a client that keeps its connection open must not hold the process
		case <-stopped:
		case <-time.After(5 * time.Second):
		}
	})
	return s, s.ready(ended)
}

func s3Backend(dir string) (*posix.Posix, error) {
	root := filepath.Join(dir, "buckets")
	if err := os.Mkdir(root, 0o755); err != nil {
		return nil, err
	}
	// Set, because the zero value refuses every copy.
	o := posix.PosixOpts{CopyObjectThreshold: 5 << 30}
	if meta.XattrMeta.Test(meta.XattrMeta{}, root) == nil {
		return posix.New(root, meta.XattrMeta{}, o)
	}
	o.SideCarDir = filepath.Join(dir, "attributes")
	if err := os.Mkdir(o.SideCarDir, 0o755); err != nil {
		return nil, err
	}
	sidecar, err := meta.NewSideCar(o.SideCarDir)
	if err != nil {
		return nil, err
	}
	return posix.New(root, sidecar, o)
}

// ready waits until the gateway answers anything at all.
func (s Store) ready(ended <-chan error) error {
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if reply, err := http.Get(s.Endpoint); err == nil {
			return reply.Body.Close()
		}
		select {
		case <-tick.C:
		case err := <-ended:
			return fmt.Errorf("versitygw ended while it started: %w", err)
		case <-deadline:
			return fmt.Errorf("versitygw is not ready after %s", patience)
		}
	}
}

var sharedS3 = sync.OnceValues(StartS3)

// S3 returns a fresh bucket on the versitygw that the tests of this process share.
func S3(t testing.TB) Store {
	t.Helper()
	s, err := sharedS3()
	need(t, err)
	return s.withBucket(t)
}

func (s Store) withBucket(t testing.TB) Store {
	t.Helper()
	s.Bucket = unique(t, "-")
	_, err := s.Client().CreateBucket(context.Background(), &s3.CreateBucketInput{Bucket: &s.Bucket})
	need(t, err)
	return s
}

// Client is a plain SDK client: tests look at the bucket with it, past the code under test.
func (s Store) Client() *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: &s.Endpoint,
		Region:       s.Region,
		Credentials:  credentials.NewStaticCredentialsProvider(s.AccessKey, s.SecretKey, ""),
		UsePathStyle: true,
		HTTPClient:   &http.Client{Transport: s.transport()},
		// Older Ceph refuses the trailing checksums that the SDK sends over TLS by default.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	})
}

func (s Store) transport() *http.Transport {
	transport := &http.Transport{DisableKeepAlives: true} // a test's client leaves no connection behind
	if pem, err := os.ReadFile(s.CA); err == nil {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	return transport
}

// Env is the store in the variables that the AWS SDKs read, for a child process.
func (s Store) Env() []string {
	env := []string{
		"AWS_ENDPOINT_URL=" + s.Endpoint, "AWS_REGION=" + s.Region, "AWS_EC2_METADATA_DISABLED=true",
		"AWS_ACCESS_KEY_ID=" + s.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s.SecretKey,
	}
	if s.CA != "" {
		env = append(env, "AWS_CA_BUNDLE="+s.CA)
	}
	return env
}

// As is the store with the keys of another user.
func (s Store) As(k Keys) Store {
	s.AccessKey, s.SecretKey = k.AccessKey, k.SecretKey
	return s
}

// errStillStarting is what a probe of a server answers that listens but does not serve yet.
var errStillStarting = errors.New("it answers with an error")
