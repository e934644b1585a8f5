package bucket_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
)

func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

func contextWithHour(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), time.Hour)
}

// everything is all that a fault, Properties or Options may show to somebody.
func everything(b bucket.Bucket, opts bucket.Options, errs ...error) []byte {
	var text strings.Builder
	fmt.Fprintf(&text, "%v %+v %#v %+v", b.Properties(), b.Properties(), b.Properties(), opts)
	for _, err := range errs {
		fmt.Fprintf(&text, "\n%v\n%+v\n%q", err, err, err)
		if f := fault.Of(err); f != nil {
			fmt.Fprintf(&text, "\n%s %s %s", f.Where, f.What, f.HowToMend())
		}
	}
	return []byte(text.String())
}

// tryAll does what a bucket can do and returns the errors; every one is expected to fail.
func tryAll(t *testing.T, b bucket.Bucket) []error {
	t.Helper()
	_, small := bucket.WriteAll(t.Context(), b, "k", []byte("x"), bucket.WriteOptions{})
	_, conditional := bucket.WriteAll(t.Context(), b, "k", []byte("x"), bucket.WriteOptions{IfAbsent: true})
	_, large := bucket.WriteAll(t.Context(), b, "k", make([]byte, 12<<20), bucket.WriteOptions{})
	_, stat := b.Stat(t.Context(), "k")
	_, read := bucket.ReadAll(t.Context(), b, "k", 10)
	var list error
	for _, list = range b.List(t.Context(), "") {
	}
	errs := []error{small, conditional, large, stat, read, list, b.Delete(t.Context(), "k")}
	for i, err := range errs {
		if fault.Of(err) == nil {
			t.Errorf("attempt %d: want a fault, got %v", i, err)
		}
	}
	return errs
}

func TestNoErrorShowsASecret(t *testing.T) {
	t.Parallel()
	key, token := testlab.Secret("wJalrXUtnFEMI+K7MDENG/bPxRfiCYsecret"), testlab.Secret("FwoGZXIvYXdzEJr//session+token==")
	sas := "sv=2024&sig=" + testlab.Secret("c2lnbmF0dXJl+secret/Azure=")
	azureKey := testlab.Secret("YXp1cmUtYWNjb3VudC1rZXktb2YtYS10ZXN0")
	for _, server := range []struct {
		name   string
		answer http.HandlerFunc
	}{
		{"refuses", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(403) }},
		{"fails", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) }},
		{"cuts", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		{"babbles", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>hello") }},
		{"speaks another protocol", func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			defer conn.Close()
			fmt.Fprint(conn, "SSH-2.0-OpenSSH\r\n")
		}},
		{"redirects", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1"+r.URL.RequestURI(), http.StatusTemporaryRedirect)
		}},
	} {
		lab := httptest.NewUnstartedServer(server.answer)
		lab.Config.ErrorLog = quiet()
		lab.Start()
		t.Cleanup(lab.Close)
		for kind, c := range map[string]struct {
			url  string
			opts bucket.Options
		}{
			"s3":        {"s3://bucket/p", bucket.Options{AccessKeyID: "AKIA", SecretAccessKey: func() string { return key }, SessionToken: func() string { return token }}},
			"azure key": {"azblob://container/p", bucket.Options{AccessKeyID: "account", SecretAccessKey: func() string { return azureKey }}},
			"azure SAS": {"azblob://container/p", bucket.Options{AccessKeyID: "account", SessionToken: func() string { return sas }}},
			"gcs":       {"gs://bucket/p", bucket.Options{}},
		} {
			t.Run(strings.ReplaceAll(server.name+" "+kind, " ", "_"), func(t *testing.T) {
				t.Parallel()
				opts := impatient()
				opts.MaxRetries, opts.Grace = 1, time.Second
				opts.AccessKeyID, opts.SecretAccessKey, opts.SessionToken = c.opts.AccessKeyID, c.opts.SecretAccessKey, c.opts.SessionToken
				opts.Endpoint = lab.URL
				b := open(t, c.url, opts)
				errs := []error{nil}
				if server.name != "babbles" { // there some things seem to succeed
					errs = tryAll(t, b)
				} else {
					_, stat := b.Stat(t.Context(), "k")
					var list error
					for _, list = range b.List(t.Context(), "") {
					}
					errs = append(errs, stat, list)
				}
				text := everything(b, opts, errs...)
				testlab.NoSecrets(t, "an error", text)
				for _, part := range []string{"sig=", "X-Amz-", "upload_id=", "uploadType="} {
					if strings.Contains(string(text), part) {
						t.Errorf("a URL's query is shown (%s): %s", part, text)
					}
				}
			})
		}
	}
}

func TestABadURLIsNotRepeated(t *testing.T) {
	t.Parallel()
	secret := testlab.Secret("hunter2-in-a-url")
	for _, raw := range []string{
		"s3://user:" + secret + "@bucket/path", "s3://bucket?secret=" + secret, "file://host/path?" + secret, "ftp://" + secret + "@host/",
		"azblob://container?sig=" + secret, "gs://:" + secret, "s3://", "s3:///path", "", "file:///a\x00b", "s3://bucket/a/../b", "s3://bucket//a",
		"s3://*", "s3://b*/path", "s3://bucket/\uFFFE", "gs://bucket/a\uFFFF/b",
	} {
		_, err := bucket.Open(t.Context(), raw, bucket.Options{})
		if !fault.Is(err, fault.URLInvalid) {
			t.Errorf("%q: want the fault url-invalid, got %v", strings.ReplaceAll(raw, secret, "…"), err)
			continue
		}
		testlab.NoSecrets(t, "the error", []byte(err.Error()+fault.Of(err).HowToMend()))
	}
}

func TestOptionsThatCannotBeUsedAreRefused(t *testing.T) {
	t.Parallel()
	secret := func() string { return testlab.Secret("s3cr3t-of-options") }
	for name, c := range map[string]struct {
		opts bucket.Options
		want fault.Code
	}{
		"plain http elsewhere":      {bucket.Options{Endpoint: "http://storage.example.com"}, fault.ConfigInvalid},
		"an endpoint of no scheme":  {bucket.Options{Endpoint: "storage.example.com"}, fault.URLInvalid},
		"a password in an endpoint": {bucket.Options{Endpoint: "https://u:" + secret() + "@h"}, fault.URLInvalid},
		"parts too small":           {bucket.Options{PartSize: 1 << 20}, fault.ConfigInvalid},
		"parts too large":           {bucket.Options{PartSize: 64 << 20}, fault.ConfigInvalid},
		"too many at once":          {bucket.Options{PartParallel: 1000}, fault.ConfigInvalid},
		"unknown encryption":        {bucket.Options{SSE: "rot13"}, fault.ConfigInvalid},
		"a key without KMS":         {bucket.Options{SSE: "AES256", KMSKeyID: "k"}, fault.ConfigInvalid},
		"unknown checksums":         {bucket.Options{Checksums: "md5"}, fault.ConfigInvalid},
		"a rate below zero":         {bucket.Options{MaxRate: -1}, fault.ConfigInvalid},
		"an id without its secret":  {bucket.Options{AccessKeyID: "id"}, fault.SecretMissing},
		"a secret without its id":   {bucket.Options{SecretAccessKey: secret}, fault.SecretMissing},
		"a CA file that is missing": {bucket.Options{CAFile: "/nobody/ca.pem"}, fault.ConfigInvalid},
		"a CA file of nothing":      {bucket.Options{CAFile: "/dev/null"}, fault.ConfigInvalid},
	} {
		_, err := bucket.Open(t.Context(), "s3://bucket", c.opts)
		if !fault.Is(err, c.want) {
			t.Errorf("%s: want the fault %s, got %v", name, c.want, err)
		}
		testlab.NoSecrets(t, name, []byte(fmt.Sprint(err)))
	}
	_, err := bucket.Open(t.Context(), "s3://bucket", bucket.Options{Endpoint: "http://storage.example.com", AllowHTTP: true})
	if err != nil {
		t.Errorf("plain http that is allowed: %v", err)
	}
}

func TestTheAWSEnvironmentIsHonoured(t *testing.T) {
	store := testlab.S3(t)
	for _, pair := range store.Env() {
		name, value, _ := strings.Cut(pair, "=")
		t.Setenv(name, value)
	}
	b := open(t, "s3://"+store.Bucket, bucket.Options{})
	if _, err := bucket.WriteAll(t.Context(), b, "k", []byte("x"), bucket.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	p := b.Properties()
	if u, err := url.Parse(p.Endpoint); err != nil || u.Host == "" || !p.PathStyle || p.Region != store.Region || p.URL != "s3://"+store.Bucket {
		t.Errorf("got %+v", p)
	}
	t.Setenv("AWS_ENDPOINT_URL", "http://storage.example.com")
	if _, err := bucket.Open(t.Context(), "s3://bucket", bucket.Options{}); !fault.Is(err, fault.ConfigInvalid) {
		t.Errorf("plain http from the environment: %v", err)
	}
}

func TestMissingCredentialsAreSaidToBeMissing(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", "/nobody")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nobody")
	b := open(t, "s3://bucket", bucket.Options{Endpoint: "http://127.0.0.1:1"})
	_, err := b.Stat(t.Context(), "k")
	if !fault.Is(err, fault.BucketAuth) {
		t.Errorf("got %v", err)
	}
	_, err = bucket.Open(t.Context(), "s3://bucket", bucket.Options{})
	if !fault.Is(err, fault.ConfigMissing) || errors.Is(err, context.Canceled) {
		t.Errorf("no region: %v", err)
	}
}
