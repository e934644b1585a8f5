package bucket_test

import (
	"strings"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/bucket/buckettest"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
	"github.com/leatdata/leat/internal/testlab/gcslab"
)

func TestMain(m *testing.M) { testlab.Main(m) }

func open(t testing.TB, url string, opts bucket.Options) bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(t.Context(), url, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// openS3 opens a store of the lab under a path of its own.
func openS3(t testing.TB, s testlab.Store, opts bucket.Options) bucket.Bucket {
	t.Helper()
	opts.Endpoint, opts.Region, opts.CAFile = s.Endpoint, s.Region, s.CA
	opts.AccessKeyID, opts.SecretAccessKey = s.AccessKey, func() string { return s.SecretKey }
	return open(t, "s3://"+s.Bucket+"/some path/ü", opts)
}

func TestMemoryKeepsTheContract(t *testing.T) {
	t.Parallel()
	buckettest.Run(t, func(t testing.TB, opts bucket.Options) bucket.Bucket { return open(t, "mem://", opts) })
}

func TestFolderKeepsTheContract(t *testing.T) {
	t.Parallel()
	buckettest.Run(t, func(t testing.TB, opts bucket.Options) bucket.Bucket { return open(t, t.TempDir()+"/new/root", opts) })
}

func TestVersityKeepsTheContract(t *testing.T) {
	t.Parallel()
	buckettest.Run(t, func(t testing.TB, opts bucket.Options) bucket.Bucket { return openS3(t, testlab.S3(t), opts) })
}

func TestCephKeepsTheContract(t *testing.T) {
	t.Parallel()
	buckettest.Run(t, func(t testing.TB, opts bucket.Options) bucket.Bucket { return openS3(t, testlab.Ceph(t), opts) })
}

func TestCephKeepsTheContractInABucketOfATenant(t *testing.T) {
	t.Parallel()
	buckettest.Run(t, func(t testing.TB, opts bucket.Options) bucket.Bucket { return openS3(t, testlab.CephTenant(t), opts) })
}

func TestCephOverTLSKeepsTheContract(t *testing.T) {
	t.Parallel()
	buckettest.Run(t, func(t testing.TB, opts bucket.Options) bucket.Bucket { return openS3(t, testlab.CephTLS(t), opts) })
}

func TestAzuriteKeepsTheContract(t *testing.T) {
	t.Parallel()
	buckettest.Run(t, func(t testing.TB, opts bucket.Options) bucket.Bucket {
		a := testlab.Azurite(t)
		opts.Endpoint, opts.AccessKeyID, opts.SecretAccessKey = a.Endpoint, a.Account, func() string { return a.Key }
		opts.MaxRetries = -1 // a healthy server needs none; a retry here hides that it refuses something
		return open(t, "azblob://"+a.Container+"/some path/ü", opts)
	})
}

func TestFakeGCSKeepsTheContract(t *testing.T) {
	t.Parallel()
	buckettest.Run(t, func(t testing.TB, opts bucket.Options) bucket.Bucket {
		g := gcslab.Start(t)
		opts.Endpoint = g.Endpoint
		return open(t, "gs://"+g.Bucket+"/some path/ü", opts)
	})
}

func TestAMissingBucketIsSaidToBeMissing(t *testing.T) {
	t.Parallel()
	a, g := testlab.Azurite(t), gcslab.Start(t)
	s3 := func(s testlab.Store) bucket.Options {
		return bucket.Options{Endpoint: s.Endpoint, AccessKeyID: s.AccessKey, SecretAccessKey: func() string { return s.SecretKey }}
	}
	for url, opts := range map[string]bucket.Options{
		"s3://nobody-has-this/versity":    s3(testlab.S3(t)),
		"s3://nobody-has-this/ceph":       s3(testlab.Ceph(t)),
		"azblob://nobody-has-this/prefix": {Endpoint: a.Endpoint, AccessKeyID: a.Account, SecretAccessKey: func() string { return a.Key }},
		"gs://nobody-has-this/prefix":     {Endpoint: g.Endpoint},
	} {
		opts.MaxRetries, opts.Backoff = 1, time.Millisecond
		b := open(t, url, opts)
		_, write := bucket.WriteAll(t.Context(), b, "k", []byte("x"), bucket.WriteOptions{})
		errs := map[string]error{"writing": write}
		for _, err := range b.List(t.Context(), "") {
			errs["listing"] = err
		}
		if b.Properties().Kind != bucket.KindGCS { // there a missing bucket looks like a missing object
			_, errs["Stat"] = b.Stat(t.Context(), "k")
		}
		for what, err := range errs {
			if f := fault.Of(err); f == nil || f.Code != fault.BucketMissing || !strings.Contains(f.HowToMend(), "nobody-has-this") {
				t.Errorf("%s in %s: %v", what, url, err)
			}
		}
		if len(errs) < 2 {
			t.Errorf("%s can be listed", url)
		}
	}
}

func TestWhoHasNoRightIsTold(t *testing.T) {
	t.Parallel()
	store := testlab.Ceph(t)
	b := openS3(t, store.As(store.Stranger), impatient())
	for i, err := range tryAll(t, b) {
		if !fault.Is(err, fault.BucketRights) {
			t.Errorf("attempt %d: %v", i, err)
		}
	}
	wrong := store
	wrong.SecretKey = testlab.Secret("not-the-secret-of-this-user")
	_, err := bucket.ReadAll(t.Context(), openS3(t, wrong, impatient()), "k", 1)
	if !fault.Is(err, fault.BucketAuth) {
		t.Errorf("a wrong secret: %v", err)
	}
}
