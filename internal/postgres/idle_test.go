package postgres

import (
	"cmp"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/testlab"
)

// backend is a server of one kind: it opens sessions in a transaction or not, and a rollback ends the transaction or does not.
type backend struct {
	address   string
	stuck     bool
	mu        sync.Mutex
	asked     []string
	conns     []net.Conn
	goodbyes  chan struct{}
	inSession byte
}

func newBackend(t *testing.T, b *backend) *backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	b.address, b.goodbyes = l.Addr().String(), make(chan struct{}, 10)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.conns = append(b.conns, conn)
			b.mu.Unlock()
			go b.serve(conn)
		}
	}()
	return b
}

func (b *backend) serve(conn net.Conn) {
	defer conn.Close()
	wire := pgproto3.NewBackend(conn, conn)
	if _, err := wire.ReceiveStartupMessage(); err != nil {
		return
	}
	state := b.inSession
	wire.Send(&pgproto3.AuthenticationOk{})
	wire.Send(&pgproto3.ReadyForQuery{TxStatus: state})
	for wire.Flush() == nil {
		m, err := wire.Receive()
		if _, is := m.(*pgproto3.Terminate); is {
			b.goodbyes <- struct{}{}
		}
		q, is := m.(*pgproto3.Query)
		if err != nil || !is {
			return
		}
		b.mu.Lock()
		b.asked = append(b.asked, q.String)
		b.mu.Unlock()
		if q.String == "rollback" && !b.stuck {
			state = 'I'
		}
		wire.Send(&pgproto3.EmptyQueryResponse{})
		wire.Send(&pgproto3.ReadyForQuery{TxStatus: state})
	}
}

func (b *backend) session(t *testing.T, p *idleSessions) *pgconn.PgConn {
	t.Helper()
	c, err := pgconn.Connect(t.Context(), "postgres://u@"+b.address+"/d?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	c.CustomData()[idleKey] = p
	t.Cleanup(func() { closeSession(c) })
	return c
}

func TestASessionThatIsLeftIsTakenAgain(t *testing.T) {
	t.Parallel()
	for name, state := range map[string]byte{"at rest": 'I', "in a transaction": 'T', "in a failed one": 'E'} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBackend(t, &backend{inSession: state})
			p := &idleSessions{keep: time.Hour}
			c := b.session(t, p)
			leave(c)
			if got := p.take(t.Context()); got != c {
				t.Errorf("took %v", got)
			}
			if p.take(t.Context()) != nil {
				t.Error("one session is taken twice")
			}
			if rolled := slices.Contains(b.asked, "rollback"); rolled != (state != 'I') {
				t.Errorf("the server was asked %q", b.asked)
			}
		})
	}
}

func TestASessionOfNoUseIsNotTakenAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		backend *backend
		before  func(t *testing.T, b *backend, c *pgconn.PgConn)
		after   func(b *backend)
	}{
		"its transaction does not end": {&backend{inSession: 'T', stuck: true}, nil, nil},
		"it was closed":                {&backend{inSession: 'I'}, func(t *testing.T, _ *backend, c *pgconn.PgConn) { closeSession(c) }, nil},
		"the server ended it while it waited": {&backend{inSession: 'I'}, nil, func(b *backend) {
			b.mu.Lock()
			defer b.mu.Unlock()
			for _, conn := range b.conns {
				conn.Close()
			}
		}},
		"two wait already": {&backend{inSession: 'I'}, func(t *testing.T, b *backend, c *pgconn.PgConn) {
			p := c.CustomData()[idleKey].(*idleSessions)
			for range mostIdle {
				leave(b.session(t, p))
			}
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBackend(t, c.backend)
			p := &idleSessions{keep: time.Hour}
			conn := b.session(t, p)
			if c.before != nil {
				c.before(t, b, conn)
			}
			leave(conn)
			if c.after != nil {
				c.after(b)
			}
			for got := p.take(t.Context()); got != nil; got = p.take(t.Context()) {
				if got == conn {
					t.Error("it is taken again")
				}
			}
		})
	}
}

func TestASessionThatWaitedLongEnoughEnds(t *testing.T) {
	t.Parallel()
	b := newBackend(t, &backend{inSession: 'I'})
	p := &idleSessions{keep: time.Millisecond}
	leave(b.session(t, p))
	select {
	case <-b.goodbyes:
	case <-time.After(time.Minute):
		t.Error("the server is not told that the session ends")
	}
	if p.take(t.Context()) != nil {
		t.Error("a session that has ended is taken")
	}
}

func TestOnlyLooksAtOneTablePrepareStatements(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec("create table t (id int primary key)")
	table := oidIn(db, "select 't'::regclass::oid")
	all := Selection{Choose: func(names []Name, _ []string) (chosen []int, _ error) {
		for i := range names {
			chosen = append(chosen, i)
		}
		return chosen, nil
	}}
	for name, c := range map[string]struct {
		look func(*Catalog) error
		want string
	}{
		"all tables, as a check does": {func(c *Catalog) error { _, err := c.Tables(t.Context(), all); return err }, "0"},
		"one table":                   {func(c *Catalog) error { _, err := c.Table(t.Context(), table); return err }, "3"},
		"all tables after the one": {func(c *Catalog) error {
			_, e := c.Table(t.Context(), table)
			_, err := c.Tables(t.Context(), all)
			return cmp.Or(e, err)
		}, "3"},
		"the leaves of a table":         {func(c *Catalog) error { _, err := c.Leaves(t.Context(), []uint32{table}); return err }, "0"},
		"a type that the table has not": {func(c *Catalog) error { return c.know(t.Context(), change.Column{TypeOID: 25}) }, "1"},
	} {
		s := catalogOf(t, db)
		err := c.look(s.Catalog())
		conn := s.idle.take(t.Context())
		if err != nil || conn == nil {
			t.Fatalf("%s: %v, and the session that waits is %v", name, err, conn)
		}
		defer closeSession(conn)
		rows, err := query(t.Context(), conn, "select count(*) from pg_prepared_statements")
		if err != nil || string(rows[0][0]) != c.want || conn.CustomData()[keepsPlans] != nil {
			t.Errorf("%s: the session has %s statements and %v, want %s", name, rows, err, c.want)
		}
	}
}
