package postgres

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// A session that reads costs the server a process and a login, and a look at the catalog takes several, one after the other. One that has
// been left waits for the next use: longer than the looks of a run at rest are apart, so that such a run has one session and no logins.
const (
	idleFor  = 8 * time.Second
	mostIdle = 2
	alive    = 2 * time.Second // how long an idle session may take to answer
)

// idleSessions are sessions of a source in which nothing is under way, and whose settings are those of [session.Read].
type idleSessions struct {
	keep  time.Duration // how long one waits
	mu    sync.Mutex
	conns []*idleSession
}

// idleSession is one that waits, from one use to the next.
type idleSession struct{ *pgconn.PgConn }

const idleKey = "leat.idle" // in a connection's own data: where it may wait

// take gives a session that waits and answers, or nil.
func (p *idleSessions) take(ctx context.Context) *pgconn.PgConn {
	for {
		p.mu.Lock()
		if len(p.conns) == 0 {
			p.mu.Unlock()
			return nil
		}
		c := p.conns[len(p.conns)-1].PgConn
		p.conns = p.conns[:len(p.conns)-1]
		p.mu.Unlock()
		ctx, cancel := context.WithTimeout(ctx, alive)
		err := c.Ping(ctx)
		cancel()
		if err == nil {
			return c
		}
		closeSession(c)
	}
}

// put lets a session wait, unless it is of no use any more or enough of them wait.
func (p *idleSessions) put(c *pgconn.PgConn) bool {
	if c.IsClosed() || c.IsBusy() {
		return false
	}
	if c.TxStatus() != 'I' {
		ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
		defer cancel()
		if exec(ctx, c, "rollback") != nil || c.TxStatus() != 'I' {
			return false
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.conns) == mostIdle {
		return false
	}
	s := &idleSession{c}
	p.conns = append(p.conns, s)
	time.AfterFunc(p.keep, func() { p.drop(s) })
	return true
}

// drop ends a session that has not been taken since it was left.
func (p *idleSessions) drop(s *idleSession) {
	p.mu.Lock()
	i := slices.Index(p.conns, s)
	if i >= 0 {
		p.conns = slices.Delete(p.conns, i, i+1)
	}
	p.mu.Unlock()
	if i >= 0 {
		closeSession(s.PgConn)
	}
}
