package bucket_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/smithy-go/encoding/httpbinding"

	"github.com/leatdata/leat/internal/bucket"
)

func TestOurSignatureIsTheOneOfTheSDK(t *testing.T) {
	t.Parallel()
	sdk := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	sum := "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for _, c := range []struct {
		method, path string
		query        url.Values
		header       http.Header
		token        string
	}{
		{"GET", "/bucket/a", nil, http.Header{}, ""},
		{"HEAD", "/", url.Values{"partNumber": {"1"}}, http.Header{"If-Match": {`"etag"`}}, "the token"},
		{"GET", "/bucket", url.Values{"list-type": {"2"}, "prefix": {"a b+c/ü=&~*%"}, "continuation-token": {"a/b=="}}, http.Header{}, ""},
		{"PUT", "/bucket/a b+c/ü=&~*%!'()$@,;:[]", url.Values{"uploadId": {"2~x y"}, "partNumber": {"7"}}, http.Header{
			"Content-Type": {"text/plain"}, "X-Amz-Meta-B_c": {"  many   spaces  "}, "X-Amz-Meta-_x": {"1", "2"}, "X-Amz-Meta-Bx": {"ü"}, "X-Amz-Tagging": {"a=b&c=d"}, "Expires": {""},
		}, ""},
	} {
		at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
		creds := aws.Credentials{AccessKeyID: "AKIA", SecretAccessKey: "secret", SessionToken: c.token}
		var got, want http.Header
		for _, h := range []*http.Header{&got, &want} {
			*h = c.header.Clone()
			h.Set("X-Amz-Content-Sha256", sum)
			where := &url.URL{Scheme: "https", Host: "host.example:8443", Path: c.path, RawPath: httpbinding.EscapePath(c.path, false), RawQuery: c.query.Encode()}
			req := (&http.Request{Method: c.method, URL: where, Host: where.Host, Header: *h}).WithContext(t.Context())
			if h == &got {
				bucket.Sign(req, "eu-west-1", creds, sum, at)
			} else if err := sdk.SignHTTP(t.Context(), creds, req, sum, "s3", "eu-west-1", at); err != nil {
				t.Fatal(err)
			}
		}
		if got.Get("Authorization") != want.Get("Authorization") || got.Get("X-Amz-Date") != want.Get("X-Amz-Date") || got.Get("X-Amz-Security-Token") != c.token {
			t.Errorf("%s %s: got\n%s, want\n%s", c.method, c.path, got.Get("Authorization"), want.Get("Authorization"))
		}
	}
}
