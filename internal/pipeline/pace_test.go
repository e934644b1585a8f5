package pipeline

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/checkpoint"
	"github.com/leatdata/leat/internal/postgres"
)

// paced is a run whose tables have intervals of their own, without a log or a lake: transactions come as the test says.
type paced struct {
	*run
	t       *testing.T
	commits map[string][]time.Time
	longest map[string]time.Duration // from a change to its commit
}

func newPaced(t *testing.T, tables int) *paced {
	r := &run{o: Options{CommitInterval: 10 * time.Second, MaxLag: 5 * time.Minute, CommitRows: 1_000_000, CommitBytes: 256 << 20}, tables: map[string]*table{}}
	for i := range tables {
		key := fmt.Sprint("t", i)
		r.tables[key] = &table{name: key, key: key, mode: checkpoint.Streaming}
	}
	return &paced{r, t, map[string][]time.Time{}, map[string]time.Duration{}}
}

// transaction is one that changes so many rows of a table.
func (p *paced) transaction(table string, rows int) {
	for range rows {
		p.touch(p.tables[table], 100)
	}
	p.position += change.LSN(100 * (rows + 1))
	p.at = time.Now().UnixMicro()
}

// between does what the loop does after a transaction and in idle moments.
func (p *paced) between() {
	p.now = time.Now()
	if p.since.IsZero() || !p.due() {
		return
	}
	due := p.toBeCommitted()
	if len(due) == 0 {
		p.pacedAt = p.now
		return
	}
	for _, t := range due {
		p.commits[t.name] = append(p.commits[t.name], p.now)
		p.longest[t.name] = max(p.longest[t.name], p.now.Sub(t.pace.since))
	}
	p.committed(due)
	p.isWhole()
}

// isWhole checks the position that would be saved: it is where the table begins that waits longest.
func (p *paced) isWhole() {
	p.t.Helper()
	to, at := p.wholeUpTo()
	for _, t := range p.dirty {
		if to > t.pace.from {
			p.t.Fatalf("%s would be saved, and %s has changes from %s on that are not committed", to, t.name, t.pace.from)
		}
	}
	if len(p.dirty) == 0 && to != p.position {
		p.t.Fatalf("%s would be saved, and everything is committed up to %s", to, p.position)
	}
	if late := time.Since(time.UnixMicro(at)); at > 0 && late > p.o.MaxLag+p.o.CommitInterval {
		p.t.Fatalf("the position that would be saved is %s old", late)
	}
}

func TestTablesAreCommittedAtTheirOwnPaceWithinTheLongestLag(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const tables, hours = 50, 3
		p := newPaced(t, tables)
		for tick := range hours * 3600 * 10 { // of 100 ms
			p.transaction("t0", 20) // 200 rows a second
			if tick%20 == 0 {
				p.transaction("t1", 10) // 5 a second
			}
			if tick%(20*60*10) == 0 {
				p.transaction("t2", 1) // one in twenty minutes
			}
			if i := 3 + tick%(tables-3); tick%3 == 0 {
				p.transaction(fmt.Sprint("t", i), 1) // some each minute
			}
			<-time.After(100 * time.Millisecond)
			p.between()
		}
		for name, longest := range p.longest {
			if longest > p.o.MaxLag+time.Second {
				t.Errorf("a change of %s waits %s", name, longest)
			}
		}
		count := func(name string, least, most int) {
			t.Helper()
			if n := len(p.commits[name]); n < least || n > most {
				t.Errorf("%s has %d commits, and should have %d to %d", name, n, least, most)
			}
		}
		count("t0", hours*340, hours*360)
		count("t1", hours*15, hours*30)
		count("t2", hours*3, hours*3)
		for i := 3; i < tables; i++ {
			count(fmt.Sprint("t", i), hours*12, hours*14)
		}
		for n := len(p.commits["t3"]); len(p.commits["t3"]) == n; {
			p.transaction("t3", 1)
			<-time.After(100 * time.Millisecond)
			p.between()
		}
		p.transaction("t3", 2000) // it has waited for minutes, and has much at once
		for range 101 {
			<-time.After(100 * time.Millisecond)
			p.between()
		}
		if p.tables["t3"].dirty {
			t.Errorf("a table that has much at once waits as if it had little")
		}
		if longest := p.longest["t2"]; longest > 11*time.Second {
			t.Errorf("the rare change of a table that is at rest waits %s", longest)
		}
	})
}

func TestWhatIsHeldOfTablesThatWaitIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPaced(t, 200)
		p.o.CommitRows, p.o.CommitBytes = 5000, 1<<20
		for tick := range 3600 * 10 {
			for i := range 5 {
				p.transaction(fmt.Sprint("t", (tick*5+i)%200), 2)
				p.between()
				if p.rows >= p.o.CommitRows || p.bytes >= p.o.CommitBytes {
					t.Fatalf("%d changes of %d bytes are held", p.rows, p.bytes)
				}
			}
			<-time.After(100 * time.Millisecond)
			p.between()
			rows := int64(0)
			for _, t := range p.dirty {
				rows += t.pace.rows
			}
			if rows != p.rows {
				t.Fatalf("%d changes are counted of %d", p.rows, rows)
			}
		}
	})
}

func TestTheLogIsNotHeldForOneTableThatWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPaced(t, 2)
		p.transaction("t1", 1)
		<-time.After(10 * time.Second)
		p.between() // its first commit, and it waits from here on
		p.transaction("t1", 1)
		for range 30 {
			p.position += change.LSN(p.o.CommitBytes / 4) // what others write that are not followed
			<-time.After(10 * time.Second)
			p.between()
			if held := p.position - func() change.LSN { to, _ := p.wholeUpTo(); return to }(); int64(held) > p.o.CommitBytes+p.o.CommitBytes/4 {
				t.Fatalf("the server keeps %d bytes of its log", held)
			}
			if !p.tables["t1"].dirty {
				p.transaction("t1", 1)
			}
		}
	})
}

func TestAMessageOutsideOfTransactionsIsNotBehindThePositionThatIsSaved(t *testing.T) {
	t.Parallel()
	p := newPaced(t, 1)
	p.messages = &table{name: "messages", mode: checkpoint.Streaming, builder: newMessageRows()}
	p.position = 100
	if err := p.message(t.Context(), &postgres.Event{Kind: postgres.EventMessage, Message: postgres.LogicalMessage{Prefix: "test", LSN: 500}}); err != nil {
		t.Fatal(err)
	}
	if to, _ := p.wholeUpTo(); p.position != 500 || to != 100 {
		t.Errorf("the log is at %s, and %s would be saved", p.position, to)
	}
}

func TestTablesAreCommittedTogetherWhereTheyMust(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		make  func(*paced)
		paced bool
	}{
		"each for itself":                    {func(*paced) {}, true},
		"an interval for all":                {func(p *paced) { p.o.MaxLag = 0 }, false},
		"until caught up":                    {func(p *paced) { p.o.UntilCaughtUp = true }, false},
		"while a table is copied":            {func(p *paced) { p.tables["t2"].mode = checkpoint.Copying }, false},
		"while the spool has something":      {func(p *paced) { p.spooled = true }, false},
		"while there is a doubt":             {func(p *paced) { p.pending = map[uint32]pendingDoubt{1: {}} }, false},
		"while a claim is not judged":        {func(p *paced) { p.tables["t2"].claim = &checkpoint.Claim{} }, false},
		"with a lag no longer than each has": {func(p *paced) { p.o.MaxLag = p.o.CommitInterval }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := newPaced(t, 3)
				for range 3 { // what "t1" has is little
					p.transaction("t0", 2000)
					p.transaction("t1", 1)
					<-time.After(10 * time.Second)
					p.between()
				}
				c.make(p)
				p.transaction("t0", 2000)
				p.transaction("t1", 1)
				<-time.After(10 * time.Second)
				p.between()
				if waits := p.tables["t1"].dirty; waits != c.paced || p.tables["t0"].dirty {
					t.Errorf("the small table waits: %t, the large one: %t", waits, p.tables["t0"].dirty)
				}
			})
		})
	}
}
