package postgres

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leatdata/leat/internal/change"
)

// Locked is why tables could not be locked: other sessions hold them, or wait for them in front.
type Locked struct {
	Tables map[Name]string // by whom, as far as that is to be seen
	cause  error
}

func (l *Locked) Error() string { return l.cause.Error() }
func (l *Locked) Unwrap() error { return l.cause }

// first names one of the tables, and who holds it.
func (l *Locked) first(otherwise string) (table, who string) {
	for name, by := range l.Tables {
		if text := name.Schema + "." + name.Name; table == "" || text < table {
			table, who = text, by
		}
	}
	if table == "" {
		return otherwise, "another session"
	}
	return table, who
}

// tableLock is how LOCK TABLE says a lock, and what stands in its way.
type tableLock struct{ clause, mode, conflicts string }

var (
	readLock = tableLock{"", "access share", "{AccessExclusiveLock}"}
	// publishLock is the lock of ALTER PUBLICATION ADD TABLE.
	publishLock = tableLock{"only ", "share update exclusive", "{AccessExclusiveLock,ExclusiveLock,ShareRowExclusiveLock,ShareLock,ShareUpdateExclusiveLock}"}
)

var holderSQL = `
select l.pid, coalesce(a.usename::text, ''), left(coalesce(a.query, ''), 80)
from pg_catalog.pg_locks l left join pg_catalog.pg_stat_activity a using (pid)
where l.mode = any($2::text[]) and l.relation in (select m.relid from ` + below("$1::regclass::oid") + ` m)
  and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
order by l.mode, l.granted desc, l.pid limit 1`

// heldOf finds out which tables cannot be locked at once, and who holds them. The connection's transaction ends.
func heldOf(ctx context.Context, c *pgconn.PgConn, tables []Name, lock tableLock, cause error) *Locked {
	held := &Locked{Tables: map[Name]string{}, cause: cause}
	for _, t := range tables {
		_ = exec(ctx, c, "rollback") // what is wrong with the connection shows next
		name := quoteTable(t.Schema, t.Name)
		err := exec(ctx, c, "begin; lock table "+lock.clause+name+" in "+lock.mode+" mode nowait")
		_ = exec(ctx, c, "rollback")
		if sqlState(err) != "55P03" {
			continue
		}
		held.Tables[t] = "another session"
		if rows, err := query(ctx, c, holderSQL, name, lock.conflicts); err == nil && len(rows) == 1 {
			held.Tables[t] = fmt.Sprintf("session %s of user %s (%s)", rows[0][0], rows[0][1], oneLine(string(rows[0][2])))
		}
	}
	return held
}

// Publishable says whether one of the tables can be given to a publication now, which needs a lock on it.
func (s *Source) Publishable(ctx context.Context, tables []*change.Table) (bool, error) {
	c, err := s.writer(ctx)
	if err != nil {
		return false, err
	}
	defer leave(c)
	return slices.ContainsFunc(namesOf(tables), func(n Name) bool {
		return len(heldOf(ctx, c, []Name{n}, publishLock, nil).Tables) == 0
	}), nil
}

func namesOf(tables []*change.Table) (names []Name) {
	for _, t := range tables {
		names = append(names, Name{t.Schema, t.Name})
	}
	return names
}
