package bucket_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// A refusal of a write says what is there only where the write had a condition, and what is there could be looked at.
func TestARefusalSaysWhatIsThereOnlyIfItWasSeen(t *testing.T) {
	t.Parallel()
	absent, plain := bucket.WriteOptions{IfAbsent: true}, bucket.WriteOptions{}
	for name, c := range map[string]struct {
		opts        bucket.WriteOptions
		write, look int
		azure       string // Azure's code of the write
		want        map[bucket.Kind]fault.Code
	}{
		"412, seen to be absent":    {absent, 412, 404, "ConditionNotMet", onBoth(fault.ObjectExists, fault.ObjectExists)},
		"412, and no look":          {absent, 412, 503, "ConditionNotMet", onBoth(fault.BucketBusy, fault.BucketBusy)},
		"412, and no right to look": {absent, 412, 403, "ConditionNotMet", onBoth(fault.BucketRights, fault.BucketRights)},
		"412 without a condition":   {plain, 412, 404, "ConditionNotMet", onBoth(fault.BucketFailed, fault.BucketFailed)},
		"412 because of a lease":    {absent, 412, 404, "LeaseIdMissing", map[bucket.Kind]fault.Code{bucket.KindAzure: fault.BucketBusy}},
		"409 without a known code":  {absent, 409, 404, "AnotherConflict", onBoth(fault.BucketBusy, fault.BucketBusy)},
		"404":                       {absent, 404, 404, "BlobNotFound", onBoth(fault.BucketMissing, fault.BucketFailed)},
	} {
		for kind, want := range c.want {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				status, code := c.look, "BlobNotFound"
				if r.Method == http.MethodPut || r.Method == http.MethodPost {
					status, code = c.write, c.azure
				}
				if status != c.look || status == 404 {
					w.Header().Set("x-ms-error-code", code)
				}
				w.WriteHeader(status)
			}))
			b := open(t, string(kind)+"://bucket/root", bucket.Options{
				Endpoint: server.URL + map[bucket.Kind]string{bucket.KindAzure: "/account"}[kind], AccessKeyID: "account",
				SecretAccessKey: func() string { return "c2VjcmV0" }, MaxRetries: -1,
			})
			_, err := bucket.WriteAll(t.Context(), b, "k", []byte("ours"), c.opts)
			if !fault.Is(err, want) {
				t.Errorf("%s, %s: want %s, got %v", kind, name, want, err)
			}
			server.Close()
		}
	}
}

func onBoth(gcs, azure fault.Code) map[bucket.Kind]fault.Code {
	return map[bucket.Kind]fault.Code{bucket.KindGCS: gcs, bucket.KindAzure: azure}
}
