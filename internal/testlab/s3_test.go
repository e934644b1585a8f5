package testlab_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/leatdata/leat/internal/testlab"
)

// TestStoresKeepWhatIsPut holds every S3 server of the lab to the same few sentences.
func TestStoresKeepWhatIsPut(t *testing.T) {
	t.Parallel()
	stores := map[string]func(testing.TB) testlab.Store{
		"versitygw": testlab.S3, "ceph": testlab.Ceph, "ceph over TLS": testlab.CephTLS,
	}
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, other := open(t), open(t)
			key, text := "a folder/ä.txt", "some text"
			put(t, store, key, text)
			if got := fetch(t, store, key); got != text {
				t.Errorf("the object holds %q", got)
			}
			if _, err := other.Client().HeadObject(context.Background(), &s3.HeadObjectInput{Bucket: &other.Bucket, Key: &key}); err == nil {
				t.Error("two tests share a bucket")
			}
			stranger := store.As(testlab.Keys{AccessKey: store.AccessKey, SecretKey: "wrong"})
			if _, err := stranger.Client().HeadObject(context.Background(), &s3.HeadObjectInput{Bucket: &store.Bucket, Key: &key}); err == nil {
				t.Error("a wrong secret key opens the bucket")
			}
		})
	}
}

func TestCephHasASecondUserWithoutRights(t *testing.T) {
	t.Parallel()
	store := testlab.Ceph(t)
	put(t, store, "k", "text")
	key := "k"
	stranger := store.As(store.Stranger)
	if _, err := stranger.Client().ListBuckets(context.Background(), &s3.ListBucketsInput{}); err != nil {
		t.Errorf("the second user is not known: %v", err)
	}
	_, err := stranger.Client().GetObject(context.Background(), &s3.GetObjectInput{Bucket: &store.Bucket, Key: &key})
	if err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("the second user reads the first one's bucket: %v", err)
	}
}

func put(t *testing.T, s testlab.Store, key, text string) {
	t.Helper()
	_, err := s.Client().PutObject(context.Background(), &s3.PutObjectInput{Bucket: &s.Bucket, Key: &key, Body: bytes.NewReader([]byte(text))})
	if err != nil {
		t.Fatal(err)
	}
}

func fetch(t *testing.T, s testlab.Store, key string) string {
	t.Helper()
	reply, err := s.Client().GetObject(context.Background(), &s3.GetObjectInput{Bucket: &s.Bucket, Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
