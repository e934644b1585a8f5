package testlab_test

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	toxics "github.com/Shopify/toxiproxy/v2/client"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/jackc/pgx/v5"

	"github.com/leatdata/leat/internal/testlab"
)

func TestToxiproxyCutsAConnectionToPostgres(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	proxy := testlab.Toxiproxy(t, strings.Split(strings.Split(db.URL, "@")[1], "/")[0])
	address := strings.Replace(db.URL, strings.Split(strings.Split(db.URL, "@")[1], "/")[0], proxy.Listen, 1)
	conn, err := pgx.Connect(context.Background(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := proxy.AddToxic("cut", "limit_data", "downstream", 1, toxics.Attributes{"bytes": 10_000}); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(context.Background(), "SELECT repeat('x', 1000000)"); err == nil {
		t.Error("a million bytes come through a wire that is cut after ten thousand")
	}
}

// oneTry is a client that does not retry, so that each fault is seen.
func oneTry(s testlab.Store) *s3.Client {
	return s3.New(s.Client().Options(), func(o *s3.Options) { o.Retryer = aws.NopRetryer{} })
}

func TestFaultyS3AnswersByItsScript(t *testing.T) {
	t.Parallel()
	puts := func(r *http.Request) bool { return r.Method == http.MethodPut }
	gets := func(r *http.Request) bool { return r.Method == http.MethodGet }
	big := strings.Repeat("0123456789", 10_000)
	cases := []struct {
		name            string
		match           func(*http.Request) bool
		answer          testlab.Answer
		fails           string // part of the error, or empty
		stored, fetched bool
	}{
		{"503 without asking the store", puts, testlab.Fail(503, "SlowDown"), "SlowDown", false, false},
		{"expired token", puts, testlab.Fail(403, "ExpiredToken"), "ExpiredToken", false, false},
		{"reset without asking the store", puts, testlab.Reset, "request send failed", false, false},
		{"reply lost, object there", puts, testlab.LoseReply, "request send failed", true, true},
		{"hang until the client gives up", puts, testlab.Hang, "deadline exceeded", false, false},
		{"slow put", puts, testlab.Slow(500_000), "", true, true},
		{"slow get", gets, testlab.Slow(500_000), "", true, true},
		{"get cut short", gets, testlab.CutReply(100), "", true, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			store := testlab.S3(t)
			faulty := testlab.FaultyS3(t, store, testlab.Times(1, c.match, c.answer))
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			key := "k"
			_, err := oneTry(faulty.Store).PutObject(ctx, &s3.PutObjectInput{Bucket: &store.Bucket, Key: &key, Body: bytes.NewReader([]byte(big))})
			if c.fails == "" && err != nil || c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)) {
				t.Errorf("put: want an error with %q, got %v", c.fails, err)
			}
			if got := exists(store, key); got != c.stored {
				t.Errorf("the object is there: %v, want %v", got, c.stored)
			}
			if got := whole(faulty.Store, key, big); got != c.fetched {
				t.Errorf("the object comes whole: %v, want %v", got, c.fetched)
			}
			if first := faulty.Requests()[0]; !strings.HasPrefix(first, "PUT /"+store.Bucket+"/k") {
				t.Errorf("the first request noted is %s", first)
			}
		})
	}
}

func exists(s testlab.Store, key string) bool {
	_, err := s.Client().HeadObject(context.Background(), &s3.HeadObjectInput{Bucket: &s.Bucket, Key: &key})
	return err == nil
}

func whole(s testlab.Store, key, want string) bool {
	reply, err := oneTry(s).GetObject(context.Background(), &s3.GetObjectInput{Bucket: &s.Bucket, Key: &key})
	if err != nil {
		return false
	}
	defer reply.Body.Close()
	var got bytes.Buffer
	_, err = got.ReadFrom(reply.Body)
	return err == nil && got.String() == want
}
