package crash_test

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	toxics "github.com/Shopify/toxiproxy/v2/client"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/leatdata/leat/internal/testlab"
)

// twoSides is a source with a dump, a lake and plain objects, and what its far side must become.
type twoSides struct {
	t         testing.TB
	near, far testlab.Store
	want      map[string]string // the MD5 of every plain object and file of the dump
	manifest  string            // of the dump
	tables    []string
	rows      map[string]int // of the tables
}

func openSides(t testing.TB) *twoSides {
	t.Helper()
	w := &twoSides{t: t, near: testlab.S3(t), far: testlab.Ceph(t), want: map[string]string{}, rows: map[string]int{}}
	db := testlab.Postgres(t)
	db.Exec(`create table orders (id int primary key, note text); insert into orders select i, repeat('n', i % 90) from generate_series(1, 5000) i;
		create table items (id int primary key, price numeric(10,2)); insert into items select i, i * 0.25 from generate_series(1, 900) i`)
	env := append(db.Env(), w.near.Env()...)
	base := "s3://" + w.near.Bucket + "/app"
	w.must(env, "dump", "--to", base+"/dumps", "--table", "public.*", "--format", "csv.gz")
	run := []string{"run", "--to", base + "/lake", "--name", "m" + db.Name[max(0, len(db.Name)-20):], "--until-caught-up", "--keep", "both", "--table", "public.*"}
	w.must(env, run...)
	db.Exec("delete from orders where id % 3 = 0; update items set price = price + 1 where id % 2 = 0; insert into orders values (10001, 'late')")
	w.must(env, run...)
	w.tables = []string{"public.orders", "public.orders_history", "public.items", "public.items_history"}
	dice := rand.NewChaCha8([32]byte{7})
	for i := range 120 {
		data := make([]byte, 200+i*400)
		_, _ = dice.Read(data) // it never fails
		w.put(fmt.Sprintf("app/plain/%03d", i), data)
	}
	large := make([]byte, 24<<20)
	_, _ = dice.Read(large)
	w.put("app/plain/large", large)
	for _, key := range w.near.List(t) {
		plain := strings.TrimPrefix(key, "app/")
		if strings.HasPrefix(plain, "lake/") || strings.Contains(plain, ".leat/") {
			continue
		}
		w.want[plain] = w.sum(w.near, key)
		if strings.HasSuffix(plain, "/manifest.json") {
			w.manifest = plain
		}
	}
	for name, table := range w.read("app", w.near) {
		w.rows[name] = len(table.Rows)
	}
	return w
}

func (w *twoSides) must(env []string, args ...string) {
	w.t.Helper()
	if r := testlab.Leat(w.t).Run(env, args...); r.Exit != 0 {
		w.t.Fatalf("leat %s ends with %d:\n%s%s", args[0], r.Exit, r.Stdout, last(r.Stderr, 30))
	}
}

func (w *twoSides) put(key string, data []byte) {
	w.t.Helper()
	if _, err := w.near.Client().PutObject(w.t.Context(), &s3.PutObjectInput{Bucket: &w.near.Bucket, Key: &key, Body: bytes.NewReader(data)}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *twoSides) sum(s testlab.Store, key string) string {
	w.t.Helper()
	got, err := s.Client().GetObject(w.t.Context(), &s3.GetObjectInput{Bucket: &s.Bucket, Key: aws.String(key)})
	if err != nil {
		w.t.Fatal(err)
	}
	defer got.Body.Close()
	hash := md5.New()
	if _, err := io.Copy(hash, got.Body); err != nil {
		w.t.Fatal(err)
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// read reads the tables of one side with PyIceberg.
func (w *twoSides) read(root string, s testlab.Store) map[string]lakeTable {
	w.t.Helper()
	return theStranger(w.t).read(w.t, "s3://"+s.Bucket+"/"+root+"/lake", icebergProperties(s), w.tables)
}

// start begins to mirror, by way of proxies if there are some.
func (w *twoSides) start(near, far testlab.Store, more ...string) *testlab.Process {
	w.t.Helper()
	env := []string{
		"LEAT_MIRROR_FROM_ENDPOINT=" + near.Endpoint, "LEAT_MIRROR_FROM_REGION=" + near.Region, "LEAT_MIRROR_FROM_ACCESS_KEY_ID=" + near.AccessKey,
		"LEAT_MIRROR_FROM_SECRET_ACCESS_KEY=" + near.SecretKey, "LEAT_MIRROR_TO_ENDPOINT=" + far.Endpoint, "LEAT_MIRROR_TO_REGION=" + far.Region,
		"LEAT_MIRROR_TO_ACCESS_KEY_ID=" + far.AccessKey, "LEAT_MIRROR_TO_SECRET_ACCESS_KEY=" + far.SecretKey,
	}
	args := append([]string{"mirror", "s3://" + w.near.Bucket + "/app", "s3://" + w.far.Bucket + "/copy"}, more...)
	return testlab.Leat(w.t).Start(env, args...)
}

// judge holds what is visible at the far side against the source; when it is done, all of it must be there.
func (w *twoSides) judge(done bool) {
	w.t.Helper()
	seen := map[string]bool{}
	for _, key := range w.far.List(w.t) {
		plain := strings.TrimPrefix(key, "copy/")
		if strings.HasPrefix(plain, "lake/") || strings.HasPrefix(plain, ".leat/") {
			continue
		}
		if strings.Contains(plain, "/.leat/mirror/") && !done { // a mark of a run that was killed; the next one takes it away
			continue
		}
		seen[plain] = true
		if sum := w.sum(w.far, key); sum != w.want[plain] {
			w.t.Errorf("%s is visible and wrong: %s, not %s", plain, sum, w.want[plain])
		}
	}
	if seen[w.manifest] {
		folder := w.manifest[:strings.LastIndexByte(w.manifest, '/')]
		for key := range w.want {
			if strings.HasPrefix(key, folder) && !seen[key] {
				w.t.Errorf("the dump is visible, and its file %s is not", key)
			}
		}
	}
	for name, table := range w.read("copy", w.far) {
		if table.Missing && !done {
			continue
		}
		if table.Missing || len(table.Rows) != w.rows[name] {
			w.t.Errorf("%s has %d rows at the far side, not %d", name, len(table.Rows), w.rows[name])
		}
	}
	if !done {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(w.want)) {
		if !seen[key] {
			w.t.Errorf("%s is not at the far side", key)
		}
	}
}

func (w *twoSides) complete(near, far testlab.Store) {
	w.t.Helper()
	if r := w.start(near, far).Wait(); r.Exit != 0 {
		w.t.Fatalf("leat mirror ends with %d:\n%s%s", r.Exit, last(r.Stdout, 5), last(r.Stderr, 30))
	}
	w.judge(true)
}

func TestAMirrorKilledAtAnyMomentShowsOnlyWhatIsWhole(t *testing.T) {
	t.Parallel()
	dice := seeded(t)
	w := openSides(t)
	for i := range kills() {
		p := w.start(w.near, w.far, "--parallel", "4", "--max-rate", "12MiB")
		select {
		case <-time.After(time.Duration(50+dice.IntN(2500)) * time.Millisecond):
		case <-p.Done():
		}
		p.Kill()
		w.judge(false)
		if i%7 == 6 { // and begin again from nothing
			w.complete(w.near, w.far)
			emptied(t, w.far)
		}
	}
	w.complete(w.near, w.far)
}

func emptied(t testing.TB, s testlab.Store) {
	t.Helper()
	for _, key := range s.List(t) {
		if _, err := s.Client().DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &s.Bucket, Key: aws.String(key)}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAMirrorOverABadWireEndsWithAllThere(t *testing.T) {
	t.Parallel()
	w := openSides(t)
	for name, toxic := range map[string]toxics.Toxic{
		"slow":  {Type: "latency", Attributes: toxics.Attributes{"latency": 40, "jitter": 40}},
		"reset": {Type: "reset_peer", Attributes: toxics.Attributes{"timeout": 300}, Toxicity: 0.2},
		"cut":   {Type: "limit_data", Attributes: toxics.Attributes{"bytes": 300_000}, Toxicity: 0.3},
	} {
		for _, side := range []string{"near", "far"} {
			near, far := w.near, w.far
			through := &near
			if side == "far" {
				through = &far
			}
			proxy := testlab.Toxiproxy(t, strings.TrimPrefix(through.Endpoint, "http://"))
			through.Endpoint = "http://" + proxy.Listen
			for _, stream := range []string{"upstream", "downstream"} {
				if _, err := proxy.AddToxic(name+stream, toxic.Type, stream, max(toxic.Toxicity, 0.2), toxic.Attributes); err != nil {
					t.Fatal(err)
				}
			}
			emptied(t, w.far)
			r := w.start(near, far, "--set", "mirror.attempts=40").Wait()
			if r.Exit != 0 {
				t.Errorf("%s on the %s side: it ends with %d:\n%s", name, side, r.Exit, last(r.Stderr, 20))
			}
			w.judge(true)
		}
	}
}

func TestAMirrorRefusedForAMomentGoesOn(t *testing.T) {
	t.Parallel()
	w := openSides(t)
	dice := rand.New(rand.NewPCG(1, 2))
	coins := make(chan bool, 1024)
	go func() { // ends with the test
		for t.Context().Err() == nil {
			select {
			case coins <- dice.IntN(12) == 0:
			case <-t.Context().Done():
			}
		}
	}()
	script := func(r *http.Request) testlab.Answer {
		if !<-coins {
			return nil
		}
		return []testlab.Answer{testlab.Fail(http.StatusServiceUnavailable, "SlowDown"), testlab.Fail(http.StatusInternalServerError, "InternalError"), testlab.Reset, testlab.LoseReply}[len(r.URL.Path)%4]
	}
	near, far := testlab.FaultyS3(t, w.near, script), testlab.FaultyS3(t, w.far, script)
	w.complete(near.Store, far.Store)
	emptied(t, w.far)
	half := testlab.FaultyS3(t, w.near, testlab.Times(3, func(r *http.Request) bool {
		return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/plain/")
	}, testlab.StallReply(100)))
	if r := w.start(half.Store, w.far, "--set", "mirror.stall=2s").Wait(); r.Exit != 0 {
		t.Errorf("with answers that stop half-way it ends with %d:\n%s", r.Exit, last(r.Stderr, 20))
	}
	w.judge(true)
}

// vanishing is a way to a server on which peers go without a word: the first connections go silent in both directions when some bytes
// have passed towards the server, or from it. Nobody closes them, as when a cable is pulled or a host dies.
type vanishing struct {
	net.Listener
	upstream string
	upload   bool
	made     atomic.Int64
	gone     [2]atomic.Int64 // in the middle of small objects, and of the large one
}

// silent is how many connections go silent, and after how many bytes every second of them does.
const silent = 12

var silentAfter = [2]int64{40_000, 2_000_000}

func vanish(t testing.TB, v *vanishing) *vanishing {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v.Listener = l
	var open sync.WaitGroup
	t.Cleanup(func() { l.Close(); open.Wait() })
	open.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { v.relay(t, conn) })
		}
	})
	return v
}

// relay ends with its connection, or with the test when the connection has gone silent.
func (v *vanishing) relay(t testing.TB, client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", v.upstream)
	if err != nil {
		return
	}
	defer server.Close()
	up, down, n := int64(math.MaxInt64), int64(math.MaxInt64), v.made.Add(1)
	kind := n % 2
	if n > silent { // the large object may not have come by one of the first ones
		kind = 1
	}
	if n <= silent || v.gone[1].Load() == 0 {
		up = silentAfter[kind]
	}
	if !v.upload {
		up, down = down, up
	}
	ended := make(chan bool, 2)
	pass := func(to, from net.Conn, limit int64) {
		passed, _ := io.CopyN(to, from, limit) // who ended it and why is leat's to find out
		ended <- passed == limit
	}
	go pass(server, client, up)
	go pass(client, server, down)
	if <-ended {
		v.gone[kind].Add(1)
		<-t.Context().Done()
	}
}

func TestAMirrorWhosePeersAreGoneWithoutAWordEndsWithAllThere(t *testing.T) {
	t.Parallel()
	w := openSides(t)
	for _, v := range []*vanishing{{upload: true}, {}} {
		near, far := w.near, w.far
		through := &near
		if v.upload {
			through = &far
		}
		v.upstream = strings.TrimPrefix(through.Endpoint, "http://")
		through.Endpoint = "http://" + vanish(t, v).Addr().String()
		emptied(t, w.far)
		r := w.start(near, far, "--set", "mirror.stall=1s", "--set", "mirror.attempts=40").WaitWithin(patience)
		if r.Exit != 0 {
			t.Errorf("upload %v: it ends with %d:\n%s", v.upload, r.Exit, last(r.Stderr, 20))
		}
		if v.gone[0].Load() == 0 || v.gone[1].Load() == 0 {
			t.Errorf("upload %v: of %d connections %d went in small objects, and %d in the large one", v.upload, v.made.Load(), v.gone[0].Load(), v.gone[1].Load())
		}
		w.judge(true)
	}
}
