package postgres_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

// BenchmarkTheLog reads the same 300,000 changes, in transactions of three, again and again. CPU is that of this process:
// the server is another.
func BenchmarkTheLog(b *testing.B) {
	db := testlab.Postgres(b)
	db.Exec(`create table t (id int primary key, at timestamptz default now(), amount numeric(12,2), name text, note text)`)
	db.Exec(`create publication leat for table t`)
	db.Exec(`select pg_create_logical_replication_slot('` + db.Name + `', 'pgoutput')`)
	db.Exec(`set synchronous_commit = off`)
	db.Exec(`do $$ begin for i in 1..100000 loop
		insert into t values (i, default, i * 1.01, 'name ' || i, 'a note of some length for row ' || i);
		update t set amount = amount + 1 where id = i; update t set name = 'other ' || i where id = i / 2 + 1; commit;
		end loop; end $$`)
	db.Exec(`set synchronous_commit = on; select txid_current()`)
	source, err := postgres.Connect(b.Context(), postgres.Settings{ConnString: db.URL})
	if err != nil {
		b.Fatal(err)
	}
	changes, cpu := 0, cpuTime()
	b.ReportAllocs()
	for b.Loop() {
		log, err := source.Log(b.Context(), postgres.LogOptions{Slot: db.Name, Publications: []string{"leat"}, Binary: true})
		if err != nil {
			b.Fatal(err)
		}
		for n := 0; n < 300000; {
			e, err := log.Next(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			if e.Seq != 0 {
				n++
				changes++
			}
		}
		log.Close()
	}
	b.ReportMetric((cpuTime()-cpu).Seconds()/float64(changes)*1e6, "cpu-s/Mchange")
	b.ReportMetric(float64(changes)/b.Elapsed().Seconds(), "changes/s")
}

// cpuTime is the user and system time of this process.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
