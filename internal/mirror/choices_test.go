package mirror_test

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/mirror"
	"github.com/leatdata/leat/internal/testlab"
)

// lockable is a bucket with Object Lock beside a store's own.
func lockable(t testing.TB, s testlab.Store) testlab.Store {
	t.Helper()
	s.Bucket += "-lock"
	_, err := s.Client().CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &s.Bucket, ObjectLockEnabledForBucket: aws.Bool(true)})
	must(t, err)
	return s
}

// lockOn is what a server says of an object's lock.
func lockOn(t testing.TB, s testlab.Store, key string) (l bucket.Lock) {
	t.Helper()
	got, err := s.Client().HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &s.Bucket, Key: &key})
	must(t, err)
	return bucket.Lock{Mode: string(got.ObjectLockMode), Until: aws.ToTime(got.ObjectLockRetainUntilDate).UTC(), Hold: got.ObjectLockLegalHoldStatus == types.ObjectLockLegalHoldStatusOn}
}

func TestLocksComeByChoiceToABucketThatHasThem(t *testing.T) {
	t.Parallel()
	lab, other := testlab.Ceph(t), testlab.CephTLS(t)
	near := lockable(t, lab)
	until := time.Now().UTC().Add(time.Hour).Truncate(time.Second)
	want := map[string]bucket.Lock{
		"retained": {Mode: "GOVERNANCE", Until: until}, "held": {Hold: true}, "both": {Mode: "COMPLIANCE", Until: until.Add(time.Hour), Hold: true},
		"large": {Mode: "GOVERNANCE", Until: until, Hold: true}, "free": {},
	}
	source := open(t, near, "app")
	for key, l := range want {
		data := []byte(key)
		if key == "large" {
			data = bytes.Repeat([]byte("large"), 4<<20)
		}
		deliver(t, source, bucket.Cargo{Object: bucket.Object{Key: key}, Lock: l, Tags: "a=b"}, data)
		if key == "large" { // Ceph takes no lock with the beginning of an upload
			carrier, _ := bucket.CarrierOf(source)
			must(t, carrier.Lock(t.Context(), key, l))
		}
	}
	for name, c := range map[string]struct {
		to     testlab.Store
		choice bool
		comes  bool
	}{
		"another server":               {lockable(t, other), true, true},
		"the same server":              {lab, true, false},
		"the same server with lock":    {func() testlab.Store { s := lab; s.Bucket += "-2"; return lockable(t, s) }(), true, true},
		"not chosen":                   {func() testlab.Store { s := other; s.Bucket += "-3"; return lockable(t, s) }(), false, false},
		"a bucket without Object Lock": {other, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, _, err := run(t, source, open(t, c.to, "copy"), func(o *mirror.Options) { o.Beside.ObjectLock = c.choice })
			must(t, err)
			missed := map[mirror.Attribute]int64{mirror.AttributeLock: 4}
			if c.comes {
				missed = map[mirror.Attribute]int64{}
			}
			if !maps.Equal(r.NotCarried, missed) {
				t.Errorf("not carried: %v", r.NotCarried)
			}
			for key, l := range want {
				if !c.comes {
					l = bucket.Lock{}
				}
				if got := lockOn(t, c.to, "copy/"+key); got.Mode != l.Mode || got.Hold != l.Hold || l.Mode != "" && !got.Until.Equal(l.Until) {
					t.Errorf("%s: the lock is %+v, want %+v", key, got, l)
				}
			}
		})
	}
}

func TestALockThatIsLongerLaterIsFollowedByChoice(t *testing.T) {
	t.Parallel()
	near, far := lockable(t, testlab.Ceph(t)), lockable(t, testlab.CephTLS(t))
	soon := time.Now().UTC().Add(time.Hour).Truncate(time.Second)
	late := soon.Add(time.Hour)
	governed := func(until time.Time) bucket.Lock { return bucket.Lock{Mode: "GOVERNANCE", Until: until} }
	none, hold := bucket.Lock{}, bucket.Lock{Hold: true}
	source, target := open(t, near, "app"), open(t, far, "copy")
	type change struct{ first, source, target, want bucket.Lock }
	objects := map[string]change{
		"longer":         {governed(soon), governed(late), none, governed(late)},
		"first":          {none, governed(soon), none, governed(soon)},
		"held":           {none, hold, none, hold},
		"both":           {governed(soon), bucket.Lock{Mode: "GOVERNANCE", Until: late, Hold: true}, none, bucket.Lock{Mode: "GOVERNANCE", Until: late, Hold: true}},
		"longer there":   {governed(soon), none, governed(late), governed(late)},
		"stricter there": {none, governed(late), bucket.Lock{Mode: "COMPLIANCE", Until: soon}, bucket.Lock{Mode: "COMPLIANCE", Until: soon}},
		"as it was":      {governed(soon), none, none, governed(soon)},
		"free":           {none, none, none, none},

		"dump/manifest.json":          {governed(soon), governed(late), none, governed(late)},
		"t/data/a.parquet":            {governed(soon), governed(late), none, governed(late)},
		"t/metadata/v1.metadata.json": {none, none, none, none},
	}
	for key, c := range objects {
		deliver(t, source, bucket.Cargo{Object: bucket.Object{Key: key}, Lock: c.first}, []byte(key))
	}
	lake := &tables{from: source, to: target, files: []string{"data/a.parquet"}}
	mirrored := func(follow bool) mirror.Report {
		r, w, err := run(t, source, target, func(o *mirror.Options) { o.Beside.ObjectLock, o.Beside.FollowLocks, o.Tables = true, follow, lake })
		must(t, err)
		if r.Same[mirror.WayETag] != 0 && len(w.carried) != 0 {
			t.Errorf("carried once more: %q", w.carried)
		}
		return r
	}
	mirrored(true)
	lake.files = nil // what has arrived is not named again
	for key, c := range objects {
		for b, l := range map[bucket.Bucket]bucket.Lock{source: c.source, target: c.target} {
			carrier, _ := bucket.CarrierOf(b)
			must(t, carrier.Lock(t.Context(), key, l))
		}
	}
	before := map[string]bucket.Lock{}
	for key := range objects {
		if key != "t/metadata/v1.metadata.json" {
			before[key] = lockOn(t, far, "copy/"+key)
		}
	}
	mirrored(false)
	for key, was := range before {
		if is := lockOn(t, far, "copy/"+key); is != was {
			t.Errorf("%s: the lock was %+v and is %+v, without the choice", key, was, is)
		}
	}
	for range 2 {
		if r := mirrored(true); r.NotCarried[mirror.AttributeLock] != 1 { // what is stricter there
			t.Errorf("not carried: %v", r.NotCarried)
		}
		for key := range before {
			if is, want := lockOn(t, far, "copy/"+key), objects[key].want; is.Mode != want.Mode || is.Hold != want.Hold || want.Mode != "" && !is.Until.Equal(want.Until) {
				t.Errorf("%s: the lock is %+v, want %+v", key, is, want)
			}
		}
	}
}

func TestALockIsFollowedAsItIsNow(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) string { return time.Now().UTC().Add(d).Format(time.RFC3339) }
	lock := func(mode string, until time.Duration, hold string) map[string]string {
		head := map[string]string{}
		if mode != "" {
			head["X-Amz-Object-Lock-Mode"], head["X-Amz-Object-Lock-Retain-Until-Date"] = mode, at(until)
		}
		if hold != "" {
			head["X-Amz-Object-Lock-Legal-Hold"] = hold
		}
		return head
	}
	for name, c := range map[string]struct {
		source, target map[string]string
		another        bool // the source has another object when it is asked first
		locks          bool // the target has Object Lock
		set            string
	}{
		"longer":                                  {lock("GOVERNANCE", time.Hour, ""), nil, false, true, "retention"},
		"a retention that is over, and a hold":    {lock("COMPLIANCE", -time.Hour, "ON"), nil, false, true, "legal-hold"},
		"over at the target, and less strict now": {lock("GOVERNANCE", time.Hour, ""), lock("COMPLIANCE", -time.Hour, ""), false, true, "retention"},
		"over at both":                            {lock("GOVERNANCE", -time.Hour, ""), lock("GOVERNANCE", -2*time.Hour, ""), false, true, ""},
		"of another object first":                 {lock("GOVERNANCE", time.Hour, ""), nil, true, true, "retention"},
		"where the target has none":               {lock("GOVERNANCE", time.Hour, ""), nil, false, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near, far := testlab.AnyKey(t, 1000), testlab.AnyKey(t, 1000)
			near.Put("app/a", []byte("x"))
			far.Put("copy/a", []byte("x"))
			var mu sync.Mutex
			var set []string
			other := c.another
			from := testlab.FaultyS3(t, near.Store, func(r *http.Request) testlab.Answer {
				if r.URL.Path != "/any/app/a" || r.Method != http.MethodHead {
					return nil
				}
				return altered(func(h http.Header, b []byte) []byte {
					mu.Lock()
					defer mu.Unlock()
					for name, value := range c.source {
						h.Set(name, value)
					}
					if other {
						h.Set("Etag", `"0123456789abcdef0123456789abcdef"`)
						other = false
					}
					return b
				})
			}).Store
			script := func(r *http.Request) testlab.Answer {
				mu.Lock()
				defer mu.Unlock()
				q := r.URL.Query()
				switch {
				case r.Method == http.MethodPut && (q.Has("retention") || q.Has("legal-hold")):
					set = append(set, strings.Trim(r.URL.RawQuery, "="))
					return func(http.ResponseWriter, *http.Request, http.Handler) {}
				case r.Method == http.MethodHead && r.URL.Path == "/any/copy/a":
					return altered(func(h http.Header, b []byte) []byte {
						for name, value := range c.target {
							h.Set(name, value)
						}
						return b
					})
				}
				return nil
			}
			to := testlab.FaultyS3(t, far.Store, script).Store
			if c.locks {
				to = locks(t, far.Store, script)
			}
			r, _, err := run(t, open(t, from, "app"), open(t, to, "copy"), func(o *mirror.Options) { o.Beside.ObjectLock, o.Beside.FollowLocks = true, true })
			if must(t, err); strings.Join(set, " ") != c.set || (r.Retries == 1) != c.another || r.Carried.Objects != 0 {
				t.Errorf("set: %q, tried again %d times, carried %d", set, r.Retries, r.Carried.Objects)
			}
		})
	}
}

// tellingMore has a source say more of each object in its answers.
func tellingMore(t testing.TB, s testlab.Store, head map[string]string) testlab.Store {
	return testlab.FaultyS3(t, s, func(r *http.Request) testlab.Answer {
		if !strings.HasPrefix(r.URL.Path, "/any/app/") || r.URL.RawQuery != "" {
			return nil
		}
		return altered(func(h http.Header, b []byte) []byte {
			for name, value := range head {
				h.Set(name, value)
			}
			return b
		})
	}).Store
}

// locks has a target say that it has Object Lock; put decides about what is written.
func locks(t testing.TB, s testlab.Store, put testlab.Script) testlab.Store {
	const config = `<?xml version="1.0"?><ObjectLockConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>`
	return testlab.FaultyS3(t, s, func(r *http.Request) testlab.Answer {
		if r.URL.Query().Has("object-lock") {
			return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { _, _ = w.Write([]byte(config)) }
		}
		return put(r)
	}).Store
}

func TestALockThatATargetDoesNotKeepIsCounted(t *testing.T) {
	t.Parallel()
	in := func(d time.Duration) string { return time.Now().UTC().Add(d).Format("2006-01-02T15:04:05.000000Z") }
	pass := func(r *http.Request) testlab.Answer { // servers take no retention that has ended
		until, err := time.Parse(time.RFC3339, r.Header.Get("X-Amz-Object-Lock-Retain-Until-Date"))
		if err == nil && until.Before(time.Now()) {
			return testlab.Fail(400, "InvalidArgument")
		}
		return nil
	}
	forgets := func(r *http.Request) testlab.Answer {
		for name := range r.Header {
			if strings.HasPrefix(name, "X-Amz-Object-Lock-") {
				r.Header.Del(name)
			}
		}
		return nil
	}
	for name, c := range map[string]struct {
		head   map[string]string
		target testlab.Script
		missed int64
		sent   bool
	}{
		"kept":                            {map[string]string{"X-Amz-Object-Lock-Mode": "GOVERNANCE", "X-Amz-Object-Lock-Retain-Until-Date": in(time.Hour)}, pass, 0, true},
		"a retention that is over":        {map[string]string{"X-Amz-Object-Lock-Mode": "COMPLIANCE", "X-Amz-Object-Lock-Retain-Until-Date": in(-time.Hour)}, pass, 0, false},
		"one that is over, and a hold":    {map[string]string{"X-Amz-Object-Lock-Mode": "COMPLIANCE", "X-Amz-Object-Lock-Retain-Until-Date": in(-time.Hour), "X-Amz-Object-Lock-Legal-Hold": "ON"}, pass, 0, true},
		"forgotten by the target":         {map[string]string{"X-Amz-Object-Lock-Mode": "GOVERNANCE", "X-Amz-Object-Lock-Retain-Until-Date": in(time.Hour)}, forgets, 1, false},
		"without an end":                  {map[string]string{"X-Amz-Object-Lock-Mode": "GOVERNANCE"}, pass, 1, false},
		"with an end that is none":        {map[string]string{"X-Amz-Object-Lock-Mode": "GOVERNANCE", "X-Amz-Object-Lock-Retain-Until-Date": "tomorrow"}, pass, 1, false},
		"of a mode that is not known":     {map[string]string{"X-Amz-Object-Lock-Mode": "FOREVER", "X-Amz-Object-Lock-Retain-Until-Date": in(time.Hour)}, pass, 1, false},
		"a hold in another server's word": {map[string]string{"X-Amz-Object-Lock-Legal-Hold": "OFF"}, pass, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near, far := testlab.AnyKey(t, 1000), testlab.AnyKey(t, 1000)
			near.Put("app/a", []byte("x"))
			r, _, err := run(t, open(t, tellingMore(t, near.Store, c.head), "app"), open(t, locks(t, far.Store, c.target), "copy"), func(o *mirror.Options) { o.Beside.ObjectLock = true })
			must(t, err)
			if r.NotCarried[mirror.AttributeLock] != c.missed || string(far.Data("copy/a")) != "x" {
				t.Errorf("not carried: %v, %q came", r.NotCarried, far.Data("copy/a"))
			}
			l := lockOn(t, far.Store, "copy/a")
			if sent := l.Mode != "" || l.Hold; sent != c.sent {
				t.Errorf("the target was told %+v", l)
			}
		})
	}
}

func TestAnObjectWhoseLockMayNotBeSetFails(t *testing.T) {
	t.Parallel()
	near, far := testlab.AnyKey(t, 1000), testlab.AnyKey(t, 1000)
	near.Put("app/a", []byte("x"))
	held := tellingMore(t, near.Store, map[string]string{"X-Amz-Object-Lock-Legal-Hold": "ON"})
	refuses := func(r *http.Request) testlab.Answer {
		if r.Method == http.MethodPut && r.Header.Get("X-Amz-Object-Lock-Legal-Hold") != "" {
			return testlab.Fail(403, "AccessDenied")
		}
		return nil
	}
	r, _, err := run(t, open(t, held, "app"), open(t, locks(t, far.Store, refuses), "copy"), func(o *mirror.Options) { o.Beside.ObjectLock = true })
	if !fault.Is(err, fault.MirrorIncomplete) || r.FailedBy[fault.BucketRights] != 1 || far.Data("copy/a") != nil {
		t.Errorf("%v, failed by %v", err, r.FailedBy)
	}
}

func TestStorageClassesComeByChoice(t *testing.T) {
	t.Parallel()
	takes := func(classes ...string) testlab.Script {
		return func(r *http.Request) testlab.Answer {
			class := r.Header.Get("X-Amz-Storage-Class")
			if r.Method != http.MethodPut && r.Method != http.MethodPost || class == "" || slices.Contains(classes, class) {
				return nil
			}
			return testlab.Fail(400, "InvalidStorageClass")
		}
	}
	forgets := func(r *http.Request) testlab.Answer { r.Header.Del("X-Amz-Storage-Class"); return nil }
	full := testlab.Always(func(r *http.Request) bool {
		return (r.Method == http.MethodPut || r.Method == http.MethodPost) && !strings.Contains(r.URL.Path, ".leat")
	}, testlab.Fail(400, "InvalidRequest"))
	for name, c := range map[string]struct {
		class, choice string
		target        testlab.Script
		want          string
		missed        int64
		code          fault.Code
	}{
		"by default":                  {"GLACIER_IR", "", takes(), "", 2, ""},
		"the usual one":               {"STANDARD", mirror.KeepClass, takes(), "", 0, ""},
		"none":                        {"", mirror.KeepClass, takes(), "", 0, ""},
		"kept":                        {"GLACIER_IR", mirror.KeepClass, takes("GLACIER_IR"), "GLACIER_IR", 0, ""},
		"refused by the target":       {"GLACIER_IR", mirror.KeepClass, takes(), "", 2, ""},
		"forgotten by the target":     {"GLACIER_IR", mirror.KeepClass, forgets, "", 2, ""},
		"that is no name":             {"x-amz: y", mirror.KeepClass, takes("x-amz: y"), "", 2, ""},
		"named":                       {"GLACIER_IR", "STANDARD_IA", takes("STANDARD_IA"), "STANDARD_IA", 0, ""},
		"refused with and without":    {"GLACIER_IR", mirror.KeepClass, full, "", 0, fault.BucketFailed},
		"named, and refused":          {"", "STANDARD_IA", takes(), "", 0, fault.BucketFailed},
		"named, and forgotten":        {"", "STANDARD_IA", forgets, "", 2, ""},
		"named for those that differ": {"", "STANDARD_IA", takes("STANDARD_IA"), "STANDARD_IA", 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near, far := testlab.AnyKey(t, 1000), testlab.AnyKey(t, 1000)
			near.Put("app/small", []byte("x"))
			inParts(t, near.Store, "app/large", 9<<20, 9<<20)
			head := map[string]string{}
			if c.class != "" {
				head["X-Amz-Storage-Class"] = c.class
			}
			from, to := open(t, tellingMore(t, near.Store, head), "app"), open(t, testlab.FaultyS3(t, far.Store, c.target).Store, "copy")
			with := func(o *mirror.Options) { o.Beside.StorageClass = c.choice }
			r, _, err := run(t, from, to, with)
			if c.code != "" {
				if r.FailedBy[c.code] != 2 {
					t.Errorf("%v, failed by %v", err, r.FailedBy)
				}
				return
			}
			if must(t, err); r.NotCarried[mirror.AttributeClass] != c.missed {
				t.Errorf("not carried: %v", r.NotCarried)
			}
			for _, key := range []string{"small", "large"} {
				got, err := far.Client().HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &far.Bucket, Key: aws.String("copy/" + key)})
				if must(t, err); string(got.StorageClass) != c.want {
					t.Errorf("%s is in %q", key, got.StorageClass)
				}
			}
			r, w, err := run(t, from, to, with)
			if must(t, err); len(w.carried) != 0 {
				t.Errorf("the next run carries %q: %v", w.carried, r.Reasons)
			}
		})
	}
}

func TestAClassIsAskedForOnlyWhereItMayBeTaken(t *testing.T) {
	t.Parallel()
	for class, times := range map[string]int64{"GLACIER_IR": 1, "STANDARD": 0} { // one that is refused, and the usual one
		near, far := testlab.AnyKey(t, 1000), testlab.AnyKey(t, 1000)
		for _, key := range []string{"app/a", "app/b", "app/c"} {
			near.Put(key, []byte("x"))
		}
		var asked atomic.Int64
		refuses := testlab.Always(func(r *http.Request) bool {
			is := r.Method == http.MethodPut && r.Header.Get("X-Amz-Storage-Class") != ""
			if is {
				asked.Add(1)
			}
			return is
		}, testlab.Fail(400, "InvalidStorageClass"))
		from := open(t, tellingMore(t, near.Store, map[string]string{"X-Amz-Storage-Class": class}), "app")
		r, _, err := run(t, from, open(t, testlab.FaultyS3(t, far.Store, refuses).Store, "copy"), func(o *mirror.Options) {
			o.Beside.StorageClass, o.Parallel = mirror.KeepClass, 1
		})
		if must(t, err); r.Carried.Objects != 3 || asked.Load() != times {
			t.Errorf("%s was asked for %d times for %d objects", class, asked.Load(), r.Carried.Objects)
		}
	}
}

func TestTheClassOfRealServersIsReadBack(t *testing.T) {
	t.Parallel()
	for name, far := range map[string]testlab.Store{"Ceph": testlab.Ceph(t), "versitygw": testlab.S3(t)} {
		near := testlab.AnyKey(t, 1000)
		near.Put("app/a", []byte("x"))
		from := open(t, tellingMore(t, near.Store, map[string]string{"X-Amz-Storage-Class": "GLACIER_IR"}), "app")
		r, _, err := run(t, from, open(t, far, "copy"), func(o *mirror.Options) { o.Beside.StorageClass = mirror.KeepClass })
		must(t, err)
		if r.NotCarried[mirror.AttributeClass] != 1 || has(t, far, "copy/a") != "x" {
			t.Errorf("%s: not carried %v", name, r.NotCarried)
		}
	}
}

func TestTheNameOfAStorageClassIsOne(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"", "keep", "STANDARD_IA", "GLACIER_IR", "COLD-1"} {
		if _, err := mirror.ParseClass(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"Keep", "standard", "A B", "A\r\nX-Amz-Acl: public-read", "É", strings.Repeat("A", 65)} {
		if _, err := mirror.ParseClass(bad); !fault.Is(err, fault.ConfigInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestGrantsAreCountedByChoice(t *testing.T) {
	t.Parallel()
	near := testlab.Ceph(t)
	open1 := func(key string, acl types.ObjectCannedACL) {
		put(t, near, s3.PutObjectInput{Key: aws.String("app/" + key), ACL: acl}, []byte(key))
	}
	open1("private", "")
	open1("public", types.ObjectCannedACLPublicRead)
	open1("others", types.ObjectCannedACLAuthenticatedRead)
	multipart(t, near, "app/large", noise(1, 17<<20), 8<<20)
	seen := testlab.FaultyS3(t, near, func(*http.Request) testlab.Answer { return nil })
	count := func() (n int) {
		for _, r := range seen.Requests() {
			if strings.Contains(r, "acl") {
				n++
			}
		}
		return n
	}
	for name, c := range map[string]struct {
		from   testlab.Store
		choice bool
		missed int64
	}{
		"off":                         {seen.Store, false, 0},
		"count":                       {near, true, 2},
		"who may not ask":             {testlab.FaultyS3(t, near, testlab.Always(asks("acl"), testlab.Fail(403, "AccessDenied"))).Store, true, 4},
		"who has none":                {testlab.FaultyS3(t, near, testlab.Always(asks("acl"), testlab.Fail(501, "NotImplemented"))).Store, true, 0},
		"whose owner owns everything": {testlab.FaultyS3(t, near, testlab.Always(asks("ownershipControls"), enforced)).Store, true, 0},
	} {
		for where, to := range map[string]bucket.Bucket{"a bucket": open(t, testlab.AnyKey(t, 1000).Store, "copy"), "a folder": folderOf(t, t.TempDir())} {
			r, _, err := run(t, open(t, c.from, "app"), to, func(o *mirror.Options) { o.Beside.ACL = c.choice })
			if must(t, err); r.NotCarried[mirror.AttributeACL] != c.missed {
				t.Errorf("%s to %s: not carried %v", name, where, r.NotCarried)
			}
		}
	}
	if n := count(); n != 0 {
		t.Errorf("%d requests for lists of grants that nobody wants", n)
	}
}

func TestAListOfGrantsIsPrivateOnlyToTheBucketsOwner(t *testing.T) {
	t.Parallel()
	grant := func(who, right string) string {
		return `<Grant><Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser"><ID>` + who + `</ID></Grantee><Permission>` + right + `</Permission></Grant>`
	}
	for name, c := range map[string]struct {
		owner, grants string
		missed        int64
	}{
		"the owner has all":            {"boss", grant("boss", "FULL_CONTROL"), 0},
		"another one may read":         {"boss", grant("boss", "FULL_CONTROL") + grant("guest", "READ"), 3},
		"the owner may only read":      {"boss", grant("boss", "READ"), 3},
		"another one has all":          {"boss", grant("guest", "FULL_CONTROL"), 3},
		"it is the object of another":  {"guest", grant("guest", "FULL_CONTROL"), 3},
		"nobody has any":               {"boss", "", 3},
		"the server has no such lists": {"", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near := testlab.AnyKey(t, 1000)
			for _, key := range []string{"app/a", "app/b", "app/c"} {
				near.Put(key, []byte("x"))
			}
			var asked atomic.Int64
			from := testlab.FaultyS3(t, near.Store, func(r *http.Request) testlab.Answer {
				q := r.URL.Query()
				switch {
				case q.Has("ownershipControls"):
					return testlab.Fail(404, "OwnershipControlsNotFoundError")
				case !q.Has("acl"):
					return nil
				case strings.Contains(r.URL.Path, "app"):
					if asked.Add(1); c.owner == "" {
						return testlab.Fail(501, "NotImplemented")
					}
				}
				owner, grants := "boss", grant("boss", "FULL_CONTROL")
				if strings.Contains(r.URL.Path, "app") {
					owner, grants = c.owner, c.grants
				}
				return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
					_, _ = io.WriteString(w, `<AccessControlPolicy xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Owner><ID>`+owner+`</ID></Owner><AccessControlList>`+grants+`</AccessControlList></AccessControlPolicy>`)
				}
			}).Store
			r, _, err := run(t, open(t, from, "app"), folder(t, nil), func(o *mirror.Options) { o.Beside.ACL, o.Parallel = true, 1 })
			if must(t, err); r.NotCarried[mirror.AttributeACL] != c.missed {
				t.Errorf("not carried: %v", r.NotCarried)
			}
			if c.owner == "" && asked.Load() != 1 {
				t.Errorf("a server that has no such lists was asked for %d", asked.Load())
			}
		})
	}
}

func asks(what string) func(*http.Request) bool {
	return func(r *http.Request) bool { return r.URL.Query().Has(what) }
}

// enforced says that the bucket's owner owns all that is in it.
func enforced(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	_, _ = w.Write([]byte(`<OwnershipControls xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule></OwnershipControls>`))
}
