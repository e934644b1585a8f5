package way_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/leatdata/leat/internal/mirror"
	"github.com/leatdata/leat/internal/testlab"
)

// carried is leat mirror between two stores.
func carried(t testing.TB, near, far testlab.Store, more ...string) testlab.Result {
	t.Helper()
	args := append([]string{"mirror", "s3://" + near.Bucket + "/lake", "s3://" + far.Bucket + "/copy"}, more...)
	return testlab.Leat(t).Run(sides(near, far), args...)
}

// sides are the settings that tell how to reach two stores.
func sides(near, far testlab.Store) []string {
	return []string{
		"LEAT_MIRROR_FROM_ENDPOINT=" + near.Endpoint, "LEAT_MIRROR_FROM_REGION=" + near.Region, "LEAT_MIRROR_FROM_CA_FILE=" + near.CA,
		"LEAT_MIRROR_FROM_ACCESS_KEY_ID=" + near.AccessKey, "NEAR=" + near.SecretKey, "LEAT_MIRROR_FROM_SECRET_ACCESS_KEY=${env:NEAR}",
		"LEAT_MIRROR_TO_ENDPOINT=" + far.Endpoint, "LEAT_MIRROR_TO_REGION=" + far.Region, "LEAT_MIRROR_TO_CA_FILE=" + far.CA,
		"LEAT_MIRROR_TO_ACCESS_KEY_ID=" + far.AccessKey, "FAR=" + far.SecretKey, "LEAT_MIRROR_TO_SECRET_ACCESS_KEY=${env:FAR}",
	}
}

// emptied removes a store's bucket content.
func emptied(t testing.TB, s testlab.Store) {
	t.Helper()
	var ids []types.ObjectIdentifier
	for _, key := range s.List(t) {
		ids = append(ids, types.ObjectIdentifier{Key: aws.String(key)})
	}
	for len(ids) > 0 {
		n := min(len(ids), 1000)
		if _, err := s.Client().DeleteObjects(t.Context(), &s3.DeleteObjectsInput{Bucket: &s.Bucket, Delete: &types.Delete{Objects: ids[:n]}}); err != nil {
			t.Fatal(err)
		}
		ids = ids[n:]
	}
}

func TestALakeIsReadAtTheFarSideWithItsSourceGone(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]string{"position deletes": "2", "deletion vectors": "3"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := testlab.Postgres(t)
			near, far := testlab.S3(t), testlab.Ceph(t)
			b := openShop(db)
			p := newPipeline(t, db).with("lake.format_version=" + version)
			p.in("s3://"+near.Bucket+"/lake", near.Env()...)
			of := tables(db)
			p.catchUp()
			b.work(t, 60, 1)
			p.catchUp()
			if r := carried(t, near, far); r.Exit != 0 {
				t.Fatalf("%d\n%s%s", r.Exit, r.Stdout, r.Stderr)
			}
			b.work(t, 60, 2)
			p.catchUp()
			r := carried(t, near, far, "--json")
			if r.Exit != 0 {
				t.Fatalf("%d\n%s%s", r.Exit, r.Stdout, r.Stderr)
			}
			again := carried(t, near, far, "--json", "--delete")
			if report := reported(t, again); report.Carried.Objects != 0 || report.Tables != 0 || report.TablesSame == 0 {
				t.Errorf("with nothing new it carries %+v", report)
			}
			moments := []moment{look(t, db, of)}
			emptied(t, near)
			judge(t, of, moments, map[string]reads{"PyIceberg": afar(t, far)}, afar(t, far))
		})
	}
}

// afar reads tables of the copy with PyIceberg.
func afar(t testing.TB, far testlab.Store) reads {
	return func(f followed, table string) ([]string, [][]string) {
		return testlab.PyIcebergAt(t, "s3://"+far.Bucket+"/copy/"+f.schema+"/"+table, map[string]string{
			"s3.endpoint": far.Endpoint, "s3.region": far.Region, "s3.access-key-id": far.AccessKey, "s3.secret-access-key": far.SecretKey,
		})
	}
}

// reported is the report of a run with --json.
func reported(t testing.TB, r testlab.Result) mirror.Report {
	t.Helper()
	for line := range strings.Lines(r.Stdout) {
		var said struct {
			Event  string
			Report mirror.Report
		}
		if json.Unmarshal([]byte(line), &said) == nil && said.Event == "done" {
			return said.Report
		}
	}
	t.Fatalf("no report (exit status %d):\n%s%s", r.Exit, r.Stdout, r.Stderr)
	return mirror.Report{}
}

func TestTheSyncJobsEnvironmentIsEnough(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	near, far := testlab.S3(t), testlab.Ceph(t)
	db.Exec("create table orders (id int primary key, note text); insert into orders select i, 'note ' || i from generate_series(1, 1000) i; create table items (id int primary key)")
	env := append(append(db.Env(), near.Env()...), "TABLES=orders items", "S3_OUTPUT=s3://"+near.Bucket+"/app")
	if r := testlab.Leat(t).Run(env, "dump"); r.Exit != 0 {
		t.Fatalf("%s%s", r.Stdout, r.Stderr)
	}
	r := testlab.Leat(t).Run([]string{
		"INPUT_URL=" + near.Endpoint, "INPUT_PATH=" + near.Bucket + "/app", "INPUT_ACCESS_KEY_ID=" + near.AccessKey, "INPUT_SECRET_ACCESS_KEY=" + near.SecretKey,
		"OUTPUT_URL=" + far.Endpoint, "OUTPUT_PATH=" + far.Bucket + "/dh/app", "OUTPUT_ACCESS_KEY_ID=" + far.AccessKey, "OUTPUT_SECRET_ACCESS_KEY=" + far.SecretKey,
	}, "mirror")
	if r.Exit != 0 {
		t.Fatalf("%d\n%s%s", r.Exit, r.Stdout, r.Stderr)
	}
	lines := strings.Split(strings.TrimSpace(r.Stdout), "\n")
	if lines[0] != "Added `input` successfully." || lines[1] != "Added `output` successfully." || !strings.HasPrefix(lines[len(lines)-1], "Total: ") {
		t.Errorf("it says\n%s", r.Stdout)
	}
	keys := far.List(t)
	var orders string
	for _, key := range keys {
		if strings.HasSuffix(key, "/orders.csv.gz") {
			orders = strings.TrimPrefix(key, "dh/app/")
		}
	}
	want := "`input/" + near.Bucket + "/app/" + orders + "` -> `output/" + far.Bucket + "/dh/app/" + orders + "`\n"
	if orders == "" || !strings.Contains(r.Stdout, want) {
		t.Errorf("the line of orders, %q, is not in\n%s(the far side has %q)", want, r.Stdout, keys)
	}
}

func TestADumpAppearsOnlyWhenItIsWhole(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	near, far := testlab.S3(t), testlab.Ceph(t)
	db.Exec("create table orders (id int primary key, note text); insert into orders select i, 'note ' || i from generate_series(1, 1000) i; create table items (id int primary key)")
	dump := testlab.Leat(t).Run(append(db.Env(), near.Env()...), "dump", "--to", "s3://"+near.Bucket+"/lake", "--table", "public.*", "--format", "csv.gz")
	if dump.Exit != 0 {
		t.Fatalf("%s%s", dump.Stdout, dump.Stderr)
	}
	manifests := func() (n int) {
		for _, key := range far.List(t) {
			if strings.HasSuffix(key, "/manifest.json") {
				n++
			}
		}
		return n
	}
	file := func(r *http.Request) bool {
		return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "public.orders")
	}
	broken := testlab.FaultyS3(t, near, testlab.Always(file, testlab.Fail(http.StatusForbidden, "AccessDenied")))
	if r := carried(t, broken.Store, far); r.Exit != 6 || manifests() != 0 {
		t.Fatalf("with a file missing it ends with %d, and %d manifests are there:\n%s", r.Exit, manifests(), r.Stderr)
	}
	// A file that is not what the dump wrote, although it came whole.
	var name string
	for _, key := range near.List(t) {
		if strings.Contains(key, "public.orders") {
			name = key
		}
	}
	right, err := near.Client().GetObject(t.Context(), &s3.GetObjectInput{Bucket: &near.Bucket, Key: &name})
	if err != nil {
		t.Fatal(err)
	}
	defer right.Body.Close()
	whole, wrong := readAll(t, right.Body), []byte(strings.Repeat("x", int(*right.ContentLength)))
	put := func(data []byte) {
		if _, err := near.Client().PutObject(t.Context(), &s3.PutObjectInput{Bucket: &near.Bucket, Key: &name, Body: strings.NewReader(string(data))}); err != nil {
			t.Fatal(err)
		}
	}
	put(wrong)
	if r := carried(t, near, far); r.Exit != 6 || manifests() != 0 || !strings.Contains(r.Stderr, "checksum-mismatch") && !strings.Contains(r.Stderr, "SHA-256") {
		t.Fatalf("with a file that is not the dump's it ends with %d, and %d manifests are there:\n%s", r.Exit, manifests(), r.Stderr)
	}
	put(whole)
	if r := carried(t, near, far, "--json"); r.Exit != 0 || manifests() != 1 || reported(t, r).Dumps != 1 {
		t.Fatalf("in the end: %d, %d manifests\n%s%s", r.Exit, manifests(), r.Stdout, r.Stderr)
	}
}
