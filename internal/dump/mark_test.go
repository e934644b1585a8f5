package dump_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

// Another dump's mark is there and cannot be read: it may be of the same folder, so none is begun.
func TestAMarkThatCannotBeReadIsNotTakenForNone(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec("create schema s; create table s.t (id int primary key)")
	s := testlab.S3(t)
	lab := testlab.FaultyS3(t, s, testlab.Always(func(r *http.Request) bool {
		return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/running/other")
	}, testlab.Fail(503, "SlowDown")))
	b, err := bucket.Open(t.Context(), "s3://"+s.Bucket, bucket.Options{
		Endpoint: lab.Endpoint, Region: s.Region, CAFile: s.CA, AccessKeyID: s.AccessKey, SecretAccessKey: func() string { return s.SecretKey }, MaxRetries: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := bucket.WriteAll(t.Context(), b, ".leat/running/other.json", []byte(`{"id":"other","layout":"date","folder":"`+time.Now().UTC().Format(time.DateOnly)+`"}`), bucket.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = dump.Run(t.Context(), connect(t, db), b, dump.Options{Format: format.CSV, Layout: dump.LayoutDate, Selection: in("s"), LSN: postgres.LSNApproximate})
	if !fault.Is(err, fault.BucketBusy) {
		t.Errorf("a dump beside one that may have the same folder: %v", err)
	}
	for o, err := range b.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if o.Key != ".leat/running/other.json" {
			t.Errorf("it has left %s", o.Key)
		}
	}
}
