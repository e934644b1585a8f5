package postgres_test

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

func TestASessionIsOpenedWhoseRoleHasAMillisecondForAStatement(t *testing.T) {
	t.Parallel()
	for _, major := range []int{12, 18} {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			db := testlab.Postgres(t, major)
			role := db.Role("REPLICATION")
			db.Sets(role.Name, "statement_timeout = 1", "lock_timeout = 1", "idle_in_transaction_session_timeout = 1")
			source, err := postgres.Connect(t.Context(), postgres.Settings{ConnString: role.URL})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := source.Identify(t.Context()); err != nil {
				t.Error(err)
			}
			slot, err := source.CreateSlot(t.Context(), postgres.SlotOptions{Name: db.Name, Temporary: true})
			if err != nil {
				t.Fatal(err)
			}
			defer slot.Close()
		})
	}
}

// slowServer answers what it is asked with an error each, in turn, and the rest with nothing. It returns its address, and what it was
// asked so far.
func slowServer(t *testing.T, states ...string) (address string, asked func() []string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	var mu sync.Mutex
	var queries []string
	answer := func(conn net.Conn) {
		defer conn.Close()
		b := pgproto3.NewBackend(conn, conn)
		if _, err := b.ReceiveStartupMessage(); err != nil {
			return
		}
		b.Send(&pgproto3.AuthenticationOk{})
		b.Send(&pgproto3.ParameterStatus{Name: "server_version", Value: "17.2"})
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		for b.Flush() == nil {
			m, err := b.Receive()
			q, is := m.(*pgproto3.Query)
			if err != nil || !is {
				return
			}
			mu.Lock()
			queries = append(queries, q.String)
			state := ""
			if n := len(queries); n <= len(states) {
				state = states[n-1]
			}
			mu.Unlock()
			if state != "" {
				b.Send(&pgproto3.ErrorResponse{Severity: "ERROR", Code: state, Message: "as told"})
			} else {
				b.Send(&pgproto3.EmptyQueryResponse{})
			}
			b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		}
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go answer(conn)
		}
	}()
	return "postgres://a@" + l.Addr().String() + "/a?sslmode=disable", func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(queries) }
}

func TestASessionThatRunsOutOfTimeAtItsStartIsOpenedAgainWithItsLimitsTakenAwayFirst(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		states []string // what the server answers to one query after another
		asks   int
		code   fault.Code
	}{
		{"a limit that is always too short", slices.Repeat([]string{"57014"}, 10), 5, fault.SourceTimeout},
		{"a limit that is too short once", []string{"57014", "", "42501"}, 3, fault.SourceRights},
		{"a right that is missing", []string{"42501"}, 1, fault.SourceRights},
	} {
		address, asked := slowServer(t, c.states...)
		_, err := postgres.Connect(t.Context(), postgres.Settings{ConnString: address})
		if !fault.Is(err, c.code) {
			t.Errorf("%s: %v", c.name, err)
		}
		queries := asked()
		if len(queries) != c.asks {
			t.Errorf("%s: it asks %d times: %q", c.name, len(queries), queries)
		}
		if len(queries) > 1 && (!strings.HasPrefix(queries[1], "set statement_timeout") || strings.Contains(queries[1], "search_path")) {
			t.Errorf("%s: its second attempt begins with %.200s", c.name, queries[1])
		}
	}
}
