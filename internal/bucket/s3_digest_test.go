package bucket_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
)

func TestABucketThatWantsADigestGetsOneWithEachUpload(t *testing.T) {
	t.Parallel()
	s := testlab.Ceph(t)
	var refused atomic.Int64
	locked := testlab.FaultyS3(t, s, func(r *http.Request) testlab.Answer {
		if r.Method != http.MethodPut || strings.Count(r.URL.Path, "/") < 2 || r.Header.Get("Content-Md5") != "" {
			return nil
		}
		refused.Add(1)
		return testlab.Fail(400, "InvalidRequest")
	})
	fresh := func(t *testing.T) bucket.Bucket {
		b, err := bucket.Open(t.Context(), "s3://"+s.Bucket+"/x", bucket.Options{
			Endpoint: locked.Endpoint, Region: s.Region, AccessKeyID: s.AccessKey, SecretAccessKey: func() string { return s.SecretKey }, MaxRetries: -1, PartParallel: 1,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return b
	}
	for name, use := range map[string]func(t *testing.T, b bucket.Bucket) error{
		"a small object": func(t *testing.T, b bucket.Bucket) error {
			_, err := bucket.WriteAll(t.Context(), b, "small", []byte("x"), bucket.WriteOptions{})
			return err
		},
		"a large object": func(t *testing.T, b bucket.Bucket) error {
			_, err := bucket.WriteAll(t.Context(), b, "large", make([]byte, 20<<20), bucket.WriteOptions{})
			return err
		},
		"a conditional one": func(t *testing.T, b bucket.Bucket) error {
			_, err := bucket.WriteAll(t.Context(), b, "once", []byte("x"), bucket.WriteOptions{IfAbsent: true})
			return err
		},
		"what a mirror writes": func(t *testing.T, b bucket.Bucket) error {
			c, _ := bucket.CarrierOf(b)
			id, err := c.Begin(t.Context(), bucket.Cargo{Object: bucket.Object{Key: "parts"}})
			if err != nil {
				return err
			}
			_, err = c.Send(t.Context(), "parts", id, 1, []byte("x"))
			return err
		},
		"what an audit writes": func(t *testing.T, b bucket.Bucket) error {
			k, _ := bucket.KeeperOf(b)
			return k.Put(t.Context(), "scratch", false)
		},
		"what a check writes": func(t *testing.T, b bucket.Bucket) error {
			found, err := bucket.Check(t.Context(), b, time.Now)
			for _, f := range found {
				if f.Severity == fault.SeverityError {
					t.Errorf("%s: %s", f.Code, f.What)
				}
			}
			return err
		},
	} {
		refused.Store(0)
		if err := use(t, fresh(t)); err != nil || refused.Load() != 1 {
			t.Errorf("%s: %v, refused %d times", name, err, refused.Load())
		}
	}
}
