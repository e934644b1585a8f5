package postgres

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// Identity tells servers apart: a position means nothing on another one.
type Identity struct {
	SystemID string     // made by initdb, shared by all standbys and restored copies
	Timeline int        // grows with each promotion and each restore to a point in time
	End      change.LSN // the end of the log that is flushed, or replayed on a standby
	Standby  bool       // it is one now

	at   string             // the server, for messages
	left map[int]change.LSN // where the log left the earlier timelines
}

// Identify asks which server this is (IDENTIFY_SYSTEM), and by which timelines its log came to where it is (TIMELINE_HISTORY).
func (s *Source) Identify(ctx context.Context) (Identity, error) {
	c, err := s.walsender(ctx)
	if err != nil {
		return Identity{}, err
	}
	defer leave(c)
	results, err := c.Exec(ctx, "IDENTIFY_SYSTEM").ReadAll()
	if err != nil {
		return Identity{}, classify(ctx, err, s.Name, "cannot ask which server this is")
	}
	row := results[0].Rows[0] // systemid, timeline, xlogpos, dbname
	end, err := change.ParseLSN(string(row[2]))
	if err != nil {
		return Identity{}, fault.Wrap(err, fault.SourceProtocol, s.Name, "IDENTIFY_SYSTEM")
	}
	id := Identity{SystemID: string(row[0]), Timeline: int(number(row[1])), End: end, at: s.Name}
	results, err = c.Exec(ctx, "select pg_catalog.pg_is_in_recovery()").ReadAll()
	if err != nil {
		return Identity{}, classify(ctx, err, s.Name, "cannot ask which server this is")
	}
	id.Standby = string(results[0].Rows[0][0]) == "t"
	if id.left, err = timelines(ctx, c, id.Timeline); err != nil {
		return Identity{}, classify(ctx, err, s.Name, "cannot ask for the server's timelines")
	}
	return id, nil
}

// timelines reads where the log left the timelines before this one. A server that does not tell has left none that we know of.
func timelines(ctx context.Context, c *pgconn.PgConn, timeline int) (map[int]change.LSN, error) {
	if timeline == 1 {
		return nil, nil // the first one has no history
	}
	results, err := c.Exec(ctx, "TIMELINE_HISTORY "+strconv.Itoa(timeline)).ReadAll()
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	left := map[int]change.LSN{}
	for line := range strings.Lines(string(results[0].Rows[0][1])) { // "1	0/3000148	no recovery target specified"
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, err := strconv.Atoi(f[0])
		if err != nil {
			continue // a comment
		}
		if left[n], err = change.ParseLSN(f[1]); err != nil {
			return nil, fault.Wrap(err, fault.SourceProtocol, "TIMELINE_HISTORY", "the history of timeline %d", timeline)
		}
	}
	return left, nil
}

// Has says whether the server's log is one that has come to a position on a timeline (0: nobody knows which): a nil error. After a
// failover to a standby that lagged, or a restore, it is not, and START_REPLICATION would not say so: it takes any position,
// and leaves out without a word what commits before it. Then it is slot-lost.
func (id Identity) Has(at change.LSN, timeline int) error {
	gone := func(format string, args ...any) error {
		return fault.New(fault.SlotLost, id.at, "the server has gone back, by a failover to a standby that lagged or by a restore: "+format, args...).
			WithMend("The lake holds changes that the database has lost. Copy all tables anew: leat resync --all.")
	}
	left, known := id.left[timeline]
	switch {
	case id.End < at && id.Standby:
		return fault.New(fault.SourceUnreachable, id.at, "the standby has come to %s only, and the lake to %s", id.End, at).
			WithMend("Wait until it has replayed its primary's log.")
	case id.End < at:
		return gone("its log ends at %s, and the lake holds it up to %s", id.End, at)
	case timeline == 0 || timeline == id.Timeline:
		return nil
	case !known:
		return gone("its timeline is %d, and nothing tells that this comes from %d, which is that of the lake", id.Timeline, timeline)
	case left < at:
		return gone("its log left timeline %d at %s, and the lake holds that up to %s", timeline, left, at)
	}
	return nil
}
