package crash_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leatdata/leat/internal/testlab"
)

// shop is a database at work, of which the truth is known.
type shop struct {
	t       testing.TB
	db      *testlab.DB
	truth   *truth
	tables  []followed
	moments []moment
	done    atomic.Int64 // transactions
	serial  atomic.Int64 // makes keys
}

const shopSQL = `
create table accounts (id bigint primary key, name text not null, balance numeric(12,2), active boolean, opened timestamptz, note text);
create table docs (id int primary key, rev int, title text, body text);
alter table docs alter body set storage external;
create table lines (order_id bigint, no int, sku text, qty int, primary key (order_id, no));
create table loose (k int, v text);
alter table loose replica identity full;
create table codes (id int not null, code text not null, label text, body text);
create unique index codes_code on codes (code);
alter table codes replica identity using index codes_code;
alter table codes alter body set storage external;
create table bulk (id bigint primary key, v text);
create schema side;
create table side.accounts (id bigint primary key, v text);
insert into accounts select i, 'account ' || i, i * 1.25, i % 2 = 0, '2026-01-01Z'::timestamptz + i * interval '1 s', case i % 3 when 0 then null else repeat('n', i % 50) end from generate_series(1, 3000) i;
insert into docs select i, 0, 'doc ' || i, (select string_agg(md5(i::text || k), '') from generate_series(1, 100 + i) k) from generate_series(1, 200) i;
insert into lines select i / 3, i % 3, 'sku ' || i % 17, i % 10 from generate_series(3, 1500) i;
insert into loose select i % 20, 'v' || i % 7 from generate_series(1, 300) i;
insert into codes select i, 'code ' || i, 'label', (select string_agg(md5(i::text || k), '') from generate_series(1, 150) k) from generate_series(1, 60) i;
insert into bulk select i, md5(i::text) from generate_series(1, 2000) i;
insert into side.accounts select i, 'side ' || i from generate_series(1, 100) i;
analyze`

// openShop fills a database and begins to listen.
func openShop(t testing.TB, db *testlab.DB) *shop {
	t.Helper()
	db.Exec(shopSQL)
	db.Exec(alterSQL)
	db.Exec("alter database " + db.Name + " set logical_decoding_work_mem = '64kB'") // large transactions are streamed
	s := &shop{t: t, db: db, tables: []followed{
		{name: "public.accounts", key: []string{"id"}}, {name: "public.docs", key: []string{"id"}},
		{name: "public.lines", key: []string{"order_id", "no"}}, {name: "public.loose"}, {name: "public.codes", key: []string{"code"}},
		{name: "public.bulk", key: []string{"id"}}, {name: "side.accounts", key: []string{"id"}},
	}}
	s.serial.Store(1_000_000)
	s.truth = beginTruth(db)
	for _, f := range s.tables {
		db.Exec("select back.define('" + f.name + "', null)")
	}
	return s
}

// open lets customers in: several connections change the tables until the returned func is called. A server that goes away is
// no failure; what it has committed is known.
func (s *shop) open(dice *rand.Rand) (closed func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var customers sync.WaitGroup
	for i := range 3 {
		mine := rand.New(rand.NewPCG(dice.Uint64(), uint64(i)))
		customers.Go(func() { s.customer(ctx, mine) })
	}
	once := sync.OnceFunc(func() { cancel(); customers.Wait() })
	s.t.Cleanup(once)
	return once
}

func (s *shop) customer(ctx context.Context, dice *rand.Rand) {
	var c *pgx.Conn
	defer func() {
		if c != nil {
			c.Close(context.WithoutCancel(ctx))
		}
	}()
	for ctx.Err() == nil {
		if c == nil || c.IsClosed() {
			var err error
			if c, err = pgx.Connect(ctx, s.db.URL); err != nil {
				c = nil
				rest(ctx, 50*time.Millisecond)
				continue
			}
		}
		script := s.transaction(dice)
		// Deadlocks, and servers that go, roll back.
		if _, err := c.PgConn().Exec(context.WithoutCancel(ctx), script).ReadAll(); err != nil && !c.IsClosed() {
			_, _ = c.PgConn().Exec(context.WithoutCancel(ctx), "rollback").ReadAll()
			continue
		}
		s.done.Add(1)
		rest(ctx, time.Duration(dice.IntN(pause()))*time.Millisecond)
	}
}

// pause is the longest rest in milliseconds. What the customers write must be followed and judged, too: where time is short, less
// of it comes in the same time.
func pause() int {
	if long() {
		return 40
	}
	return 60
}

// rare is how many transactions there are for each large one, whose rows the judge must have in memory.
func rare() int {
	if long() {
		return 600
	}
	return 150
}

// rest is a customer's pause between two orders.
func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// transaction is a script of some changes, committed or not, with a savepoint or not.
func (s *shop) transaction(dice *rand.Rand) string {
	if dice.IntN(rare()) == 0 {
		return s.large(dice)
	}
	var b strings.Builder
	b.WriteString("begin; ")
	for range 1 + dice.IntN(6) {
		if dice.IntN(8) == 0 {
			fmt.Fprintf(&b, "savepoint a; %s; %s; rollback to a; ", s.step(dice), s.step(dice))
		}
		if dice.IntN(10) == 0 {
			fmt.Fprintf(&b, "savepoint b; %s; release b; ", s.step(dice))
		}
		b.WriteString(s.step(dice) + "; ")
	}
	if dice.IntN(12) == 0 {
		return b.String() + "rollback"
	}
	return b.String() + "commit"
}

// large is a transaction that does not fit into the server's memory for decoding, a part of it rolled back.
func (s *shop) large(dice *rand.Rand) string {
	n, from := 2000+dice.IntN(4000), s.serial.Add(10_000)
	return fmt.Sprintf(`begin; insert into bulk select i, md5(i::text) from generate_series(%[1]d, %[1]d + %[2]d) i;
savepoint s; insert into bulk select i, 'never' from generate_series(%[1]d + 6001, %[1]d + 7000) i; update bulk set v = 'never' where id %% 7 = 0; rollback to s;
update bulk set v = v || '!' where id %% 5 = %[3]d; delete from bulk where id < %[1]d and id %% 3 = %[4]d; commit`, from, n, dice.IntN(5), dice.IntN(3))
}

// steps are the changes a customer makes; %[1]d is a new key, %[2]d to %[4]d are dice.
var steps = []string{
	"insert into accounts values (%[1]d, 'new ' || %[2]d, %[3]d / 100.0, %[2]d %% 2 = 0, now(), null)",
	"insert into accounts select %[1]d * 100 + i, 'o''hara ' || i, null, null, now(), 'x' from generate_series(1, 5) i",
	"update accounts set balance = balance + %[3]d where id in (select id from accounts where id %% 97 = %[2]d %% 97 order by id limit 5)",
	"update accounts set id = %[1]d, note = 'moved' where id = (select min(id) from accounts where id > %[4]d)",
	"delete from accounts where id = (select min(id) from accounts where id > %[4]d)",
	"update docs set rev = rev + 1 where id %% 40 = %[2]d %% 40",
	"update docs set rev = rev + 1, body = (select string_agg(md5(k::text || %[3]d), '') from generate_series(1, 100 + %[2]d * 4) k) where id = %[4]d %% 200",
	"update docs set id = %[1]d, title = 'moved' where id = (select min(id) from docs where id > %[4]d %% 200)",
	"insert into docs values (%[1]d, 0, 'new', (select string_agg(md5(k::text || %[3]d), '') from generate_series(1, 100 + %[2]d * 4) k))",
	"delete from docs where id = (select min(id) from docs where id > %[4]d)",
	"insert into lines select %[1]d, i, 'sku ' || %[2]d, %[2]d from generate_series(1, 3) i",
	"update lines set qty = qty + 1 where order_id = %[4]d %% 500",
	"update lines set no = no + 10 where order_id = %[4]d %% 500",
	"update lines set order_id = %[1]d where order_id = (select min(order_id) from lines where order_id > %[4]d %% 500)",
	"delete from lines where order_id = (select min(order_id) from lines where order_id > %[4]d %% 500) and no = 1",
	"insert into loose values (%[2]d %% 20, 'v' || %[3]d %% 7), (%[2]d %% 20, null)",
	"update loose set v = 'w' || %[3]d where ctid = (select min(ctid) from loose where k = %[2]d %% 20)",
	"update loose set v = v where ctid = (select min(ctid) from loose where k = %[3]d %% 20)",
	"delete from loose where ctid = (select min(ctid) from loose where k = %[2]d %% 20)",
	"update codes set label = 'l' || %[3]d where id = %[4]d %% 60",
	"update codes set code = 'code ' || %[1]d where id = %[4]d %% 60",
	"insert into codes values (%[2]d, 'code ' || %[1]d, null, repeat('z', 5000))",
	"insert into side.accounts values (%[1]d, 'side'); update side.accounts set v = 'twice' where id = %[1]d",
	"delete from side.accounts where id %% 50 = %[2]d",
}

func (s *shop) step(dice *rand.Rand) string {
	if dice.IntN(600) == 0 {
		return []string{"truncate lines, side.accounts", "truncate bulk", "truncate loose"}[dice.IntN(3)]
	}
	if dice.IntN(100) == 0 {
		return s.altered(dice)
	}
	return fmt.Sprintf(steps[dice.IntN(len(steps))], s.serial.Add(1), dice.IntN(100), dice.IntN(10_000), dice.IntN(4000))
}

// remember keeps what the tables hold now, at an exact position.
func (s *shop) remember() {
	s.t.Helper()
	s.moments = append(s.moments, snapshotAt(s.t, s))
}

// follower is leat run on a shop.
type follower struct {
	t          testing.TB
	shop       *shop
	name, work string
	to         string // the lake's address, as PyIceberg knows it
	properties map[string]string
	env        []string
	args       []string
	binary     *testlab.Binary // nil: leat as it is
	started    []*testlab.Process
	asked      bool // new copies of all tables were asked for
}

// followToS3 runs against a store, by way of a proxy if there is one.
func followToS3(t testing.TB, s *shop, store testlab.Store, via testlab.Store) *follower {
	f := newFollower(t, s, "s3://"+store.Bucket+"/lake")
	f.properties = icebergProperties(store)
	f.env = append(f.env, via.Env()...)
	return f
}

// followToFolder runs into a folder.
func followToFolder(t testing.TB, s *shop) *follower {
	return newFollower(t, s, "file://"+filepath.Join(t.TempDir(), "lake"))
}

func newFollower(t testing.TB, s *shop, to string) *follower {
	f := &follower{t: t, shop: s, name: "p" + s.db.Name[max(0, len(s.db.Name)-30):], to: to, work: t.TempDir(), env: s.db.Env(), properties: map[string]string{}}
	f.args = []string{
		"--to", to, "--name", f.name, "--work-dir", f.work, "--keep", "both", "--commit-interval", "300ms", "--table", "public.*", "--table", "side.*",
		"--set", "run.heartbeat=1s", "--set", "dump.lock_timeout=2s", "--set", "run.lease_ttl=8s", "--set", "run.copy_chunk=64KiB", "--set", "run.max_retry_delay=1s",
		"--set", "run.maintain_interval=3s", "--set", "lake.snapshots.keep=5", "--set", "lake.snapshots.all=1s", "--set", "lake.snapshots.minutely=0s", "--set", "lake.snapshots.hourly=0s",
		"--set", "lake.snapshots.daily=0s", "--set", "lake.snapshots.grace=1s",
	}
	return f
}

// from sends leat to the database by another address.
func (f *follower) from(host string) {
	u, err := url.Parse(f.shop.db.Bare)
	if err != nil {
		f.t.Fatal(err)
	}
	u.Host = host
	f.args = append(f.args, "--from", u.String())
}

func (f *follower) start(more ...string) *testlab.Process {
	f.t.Helper()
	binary := f.binary
	if binary == nil {
		binary = testlab.Leat(f.t)
	}
	p := binary.Start(f.env, append(append([]string{"run"}, f.args...), more...)...)
	f.started = append(f.started, p)
	f.t.Cleanup(func() {
		if f.t.Failed() { // what every process said is how a rare failure is understood
			p.Kill() // it may go on for ever
			f.t.Logf("leat run %s said:\n%s", strings.Join(more, " "), last(p.Wait().Stderr, 60))
		}
	})
	return p
}

// catchUp runs until the lake holds everything, and fails the test when that does not succeed.
func (f *follower) catchUp() {
	f.t.Helper()
	f.shop.told()
	// It is not only leat that may take its time: the customers go on, and there may be few processors for all. Five minutes may be upkeep.
	if r := f.start("--until-caught-up").WaitWithin(3 * patience); r.Exit != 0 {
		f.t.Fatalf("leat run --until-caught-up ends with %d:\n%s%s", r.Exit, r.Stdout, last(r.Stderr, 40))
	}
}

var anew = regexp.MustCompile(`the table is copied anew.*table=(\S+)`)

// copiedAnew are the tables that leat has copied anew by itself, because of what happened to their definition.
func (f *follower) copiedAnew() map[string]bool {
	out := map[string]bool{}
	for _, p := range f.started {
		for _, m := range anew.FindAllStringSubmatch(p.Stderr(), -1) {
			out[m[1]] = true
		}
	}
	return out
}

// leat runs another verb on the pipeline.
func (f *follower) leat(verb string, more ...string) testlab.Result {
	f.t.Helper()
	args := append([]string{verb, "--to", f.to, "--name", f.name}, more...)
	return testlab.Leat(f.t).Run(f.env, args...)
}

// forget throws the work folder away, which a run must survive at any time.
func (f *follower) forget() {
	f.t.Helper()
	if err := os.RemoveAll(f.work); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Mkdir(f.work, 0o700); err != nil {
		f.t.Fatal(err)
	}
}

func last(text string, lines int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
