package bucket_test

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/bucket/buckettest"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
)

// everyRequest sends each kind of request that a job sends about objects, and returns the errors.
func everyRequest(t *testing.T, b bucket.Bucket) map[string]error {
	t.Helper()
	ctx, errs := t.Context(), map[string]error{}
	carrier, _ := bucket.CarrierOf(b)
	small, large := []byte("small"), make([]byte, 2*buckettest.PartSize+1)
	_, errs["write"] = bucket.WriteAll(ctx, b, "small", small, bucket.WriteOptions{})
	_, errs["write in parts"] = bucket.WriteAll(ctx, b, "large", large, bucket.WriteOptions{})
	_, errs["write on condition"] = bucket.WriteAll(ctx, b, "new", small, bucket.WriteOptions{IfAbsent: true})
	_, errs["stat"] = b.Stat(ctx, "small")
	_, errs["read"] = bucket.ReadAll(ctx, b, "small", 10)
	for _, err := range b.List(ctx, "") {
		errs["list"] = err
	}
	_, errs["probe"] = bucket.Probe(ctx, b)
	errs["answers"] = carrier.Answers(ctx)
	about, body, err := carrier.Fetch(ctx, "large", "")
	if errs["fetch"] = err; err == nil {
		body.Close()
	}
	if body, errs["fetch a range"] = carrier.FetchRange(ctx, "large", about.ETag, 1, 2); body != nil {
		body.Close()
	}
	about, errs["describe"] = carrier.Describe(ctx, "large")
	_, errs["part sizes"] = carrier.PartSizes(ctx, about.Object, 3)
	_, errs["tags"] = carrier.Tags(ctx, "small")
	errs["tag"] = carrier.Tag(ctx, "small", "a=b")
	to := bucket.Cargo{Object: bucket.Object{Key: "carried"}}
	_, _, errs["deliver"] = carrier.Deliver(ctx, to, small, sha256.Sum256(small))
	id, err := carrier.Begin(ctx, to)
	errs["begin"] = err
	etag, err := carrier.Send(ctx, "carried", id, 1, small)
	errs["send"] = err
	_, errs["unfinished"] = carrier.Unfinished(ctx, "carried")
	_, errs["complete"] = carrier.Complete(ctx, "carried", id, []bucket.Part{{Number: 1, ETag: etag}})
	id, _ = carrier.Begin(ctx, to)
	errs["cancel"] = carrier.Cancel(ctx, "carried", id)
	_, errs["copy"] = carrier.Copy(ctx, carrier, bucket.Cargo{Object: bucket.Object{Key: "small"}})
	errs["restore"] = carrier.Restore(ctx, "small", 1, "Bulk")
	errs["delete"] = b.Delete(ctx, "small", "new")
	errs["delete one"] = carrier.Delete(ctx, "\x7f")
	_, errs["sweep"] = b.Sweep(ctx, "", time.Now())
	return errs
}

func noneFails(t *testing.T, errs map[string]error) {
	t.Helper()
	for what, err := range errs {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// kindOf names a request by what it is about.
func kindOf(r *http.Request) string {
	q := r.URL.Query()
	kind := r.Method
	for _, part := range []string{"uploads", "uploadId", "partNumber", "list-type", "delete", "tagging", "restore"} {
		if q.Has(part) {
			kind += " " + part
		}
	}
	if r.Header.Get("X-Amz-Copy-Source") != "" {
		kind += " copy"
	}
	return kind
}

func TestWhoPaysAndWhoOwnsIsSaidWithEveryRequestThatAsksForIt(t *testing.T) {
	t.Parallel()
	store := testlab.AnyKey(t, 2)
	var mu sync.Mutex
	seen, wrong := map[string]bool{}, map[string]bool{}
	recorded := testlab.FaultyS3(t, store.Store, func(r *http.Request) testlab.Answer {
		mu.Lock()
		defer mu.Unlock()
		kind := kindOf(r)
		seen[kind] = true
		writes := kind == "PUT" || kind == "PUT copy" || kind == "POST uploads"
		signed := r.Header.Get("Authorization")
		pays := r.Header.Get("X-Amz-Request-Payer") == "requester" && strings.Contains(signed, "x-amz-request-payer")
		owns := r.Header.Get("X-Amz-Acl") == "bucket-owner-full-control" && strings.Contains(signed, "x-amz-acl")
		if !pays || owns != writes || !writes && r.Header.Get("X-Amz-Acl") != "" {
			wrong[kind] = true
		}
		return nil
	})
	opts := impatient()
	opts.RequesterPays, opts.ACL, opts.PartSize = true, "bucket-owner-full-control", buckettest.PartSize
	noneFails(t, everyRequest(t, openS3(t, recorded.Store, opts)))
	if len(wrong) > 0 {
		t.Errorf("these said something else: %v", slices.Sorted(maps.Keys(wrong)))
	}
	want := []string{
		"DELETE", "DELETE uploadId", "GET", "GET list-type", "GET tagging", "GET uploadId", "GET uploads",
		"HEAD", "HEAD partNumber", "POST delete", "POST restore", "POST uploadId", "POST uploads",
		"PUT", "PUT copy", "PUT tagging", "PUT uploadId partNumber",
	}
	if got := slices.Sorted(maps.Keys(seen)); !slices.Equal(got, want) {
		t.Errorf("requests came as\n%q, not\n%q", got, want)
	}
}

func TestWithoutTheOptionsNothingIsSaidOfThem(t *testing.T) {
	t.Parallel()
	store := testlab.AnyKey(t, 2)
	recorded := testlab.FaultyS3(t, store.Store, func(r *http.Request) testlab.Answer {
		if r.Header.Get("X-Amz-Request-Payer")+r.Header.Get("X-Amz-Acl") != "" {
			t.Errorf("%s says who pays or owns", kindOf(r))
		}
		return nil
	})
	opts := impatient()
	opts.PartSize = buckettest.PartSize
	noneFails(t, everyRequest(t, openS3(t, recorded.Store, opts)))
}

// guard lets those requests through that have the keys of the moment.
type guard struct {
	mu        sync.Mutex
	id, token string
	turns     int // how often the keys have changed
	late      map[string]int
}

func (g *guard) script(r *http.Request) testlab.Answer {
	g.mu.Lock()
	defer g.mu.Unlock()
	by := strings.Contains(r.Header.Get("Authorization"), "Credential="+g.id+"/")
	if by && r.Header.Get("X-Amz-Security-Token") == g.token {
		return nil
	}
	g.late[kindOf(r)]++
	return testlab.Fail(http.StatusBadRequest, "ExpiredToken")
}

// change makes other keys the right ones.
func (g *guard) change() (id, token string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.turns++
	g.id, g.token = fmt.Sprintf("key%d", g.turns), fmt.Sprintf("token%d", g.turns)
	return g.id, g.token
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestKeysThatHaveEndedAreReadAgain changes the environment, so it is not parallel. Each kind of request is the first
// that finds the keys outdated: all are sent again, and none twice.
func TestKeysThatHaveEndedAreReadAgain(t *testing.T) {
	store, dir := testlab.AnyKey(t, 2), t.TempDir()
	g := &guard{late: map[string]int{}}
	guarded := testlab.FaultyS3(t, store.Store, g.script)
	sts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		defer g.mu.Unlock()
		if err := r.ParseForm(); err != nil || r.Form.Get("WebIdentityToken") != "web "+g.token {
			const expired = "<ErrorResponse><Error><Code>ExpiredTokenException</Code></Error></ErrorResponse>"
			http.Error(w, expired, http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>
			<AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken>
			<Expiration>%s</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
			</AssumeRoleWithWebIdentityResponse>`, g.id, testlab.Secret("web-identity-secret-1"), g.token,
			time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}))
	defer sts.Close()
	file, web := filepath.Join(dir, "credentials"), filepath.Join(dir, "web")
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SESSION_TOKEN": "",
		"AWS_CONFIG_FILE":             filepath.Join(dir, "config"),
		"AWS_SHARED_CREDENTIALS_FILE": file, "AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL_STS": sts.URL,
	} {
		t.Setenv(name, value)
	}
	for name, rotate := range map[string]func(id, token string){
		"a file of credentials": func(id, token string) {
			const profile = "[default]\naws_access_key_id=%s\naws_secret_access_key=%s\naws_session_token=%s\n"
			write(t, file, fmt.Sprintf(profile, id, testlab.Secret("file-secret-1"), token))
		},
		"a web identity": func(_, token string) { write(t, web, "web "+token) },
		"the options":    nil,
	} {
		t.Run(name, func(t *testing.T) {
			opts := impatient()
			opts.Endpoint, opts.Region, opts.PartSize = guarded.Endpoint, store.Region, buckettest.PartSize
			switch name {
			case "a web identity":
				t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", web)
				t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/lab")
				t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(dir, "none"))
			case "the options":
				var id, token string
				secret := func() string { return testlab.Secret("options-secret-1") }
				opts.Keys = func() (string, string, string, error) { return id, secret(), token, nil }
				opts.AccessKeyID, opts.SecretAccessKey, opts.SessionToken = "first", secret, func() string { return "first" }
				rotate = func(newID, newToken string) { id, token = newID, newToken }
			}
			rotate(g.change())
			b := open(t, "s3://"+store.Bucket+"/app", opts)
			noneFails(t, everyRequest(t, b))
			clear(g.late)
			turning(t, b, g, rotate)
		})
	}
}

// turning changes the keys before each of some requests.
func turning(t *testing.T, b bucket.Bucket, g *guard, rotate func(id, token string)) {
	t.Helper()
	carrier, _ := bucket.CarrierOf(b)
	ctx, small := t.Context(), []byte("small")
	to := bucket.Cargo{Object: bucket.Object{Key: "carried"}}
	for what, request := range map[string]func() error{
		"PUT":           func() error { _, err := bucket.WriteAll(ctx, b, "a", small, bucket.WriteOptions{}); return err },
		"HEAD":          func() error { _, err := b.Stat(ctx, "large"); return err },
		"GET":           func() error { _, err := bucket.ReadAll(ctx, b, "carried", 10); return err },
		"POST delete":   func() error { return b.Delete(ctx, "gone") },
		"POST uploads":  func() error { id, err := carrier.Begin(ctx, to); _ = carrier.Cancel(ctx, "carried", id); return err },
		"GET list-type": func() error { return carrier.Answers(ctx) },
		"GET uploads":   func() error { _, err := b.Sweep(ctx, "", time.Now()); return err },
		"PUT copy": func() error {
			_, err := carrier.Copy(ctx, carrier, bucket.Cargo{Object: bucket.Object{Key: "carried"}})
			return err
		},
		"PUT by the courier":  func() error { _, _, err := carrier.Deliver(ctx, to, small, sha256.Sum256(small)); return err },
		"HEAD by the courier": func() error { _, err := carrier.Describe(ctx, "carried"); return err },
	} {
		rotate(g.change())
		bucket.EndPause(b)
		if err := request(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		kind, _, _ := strings.Cut(what, " by")
		if len(g.late) != 1 || g.late[kind] != 1 {
			t.Errorf("%s: refused were %v", what, g.late)
		}
		clear(g.late)
	}
	g.change() // and nothing is put in the place of the keys
	if _, err := b.Stat(ctx, "large"); err == nil {
		t.Error("keys that are refused are taken for right")
	}
	_, err := bucket.ReadAll(ctx, b, "carried", 10)
	if !fault.Is(err, fault.BucketAuth) || g.late["GET"] != 1 {
		t.Errorf("it ends with %v, refused %v", err, g.late)
	}
}
