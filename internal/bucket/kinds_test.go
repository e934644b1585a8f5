package bucket_test

import (
	"testing"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/bucket/buckettest"
	"github.com/leatdata/leat/internal/testlab"
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

func TestCephOverTLSKeepsTheContract(t *testing.T) {
	t.Parallel()
	buckettest.Run(t, func(t testing.TB, opts bucket.Options) bucket.Bucket { return openS3(t, testlab.CephTLS(t), opts) })
}

func TestAzuriteKeepsTheContract(t *testing.T) {
	t.Parallel()
	buckettest.Run(t, func(t testing.TB, opts bucket.Options) bucket.Bucket {
		a := testlab.Azurite(t)
		opts.Endpoint, opts.AccessKeyID, opts.SecretAccessKey = a.Endpoint, a.Account, func() string { return a.Key }
		return open(t, "azblob://"+a.Container+"/some path/ü", opts)
	})
}

func TestFakeGCSKeepsTheContract(t *testing.T) {
	t.Parallel()
	buckettest.Run(t, func(t testing.TB, opts bucket.Options) bucket.Bucket {
		g := testlab.GCS(t)
		opts.Endpoint = g.Endpoint
		return open(t, "gs://"+g.Bucket+"/some path/ü", opts)
	})
}
