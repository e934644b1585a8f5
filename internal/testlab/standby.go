package testlab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// Standby starts a hot standby of the database's server, which must be the test's own (see OwnPostgres), and returns
// the database as the standby shows it. It is stopped when the test ends.
func (db *DB) Standby() *DB {
	db.t.Helper()
	s, err := db.Server.standby()
	if err == nil {
		db.t.Cleanup(s.Stop)
	}
	need(db.t, err)
	out := &DB{Name: db.Name, Server: s, t: db.t, URL: s.url(superuser, s.Password, db.Name)}
	out.Bare = bare(out.URL)
	db.t.Cleanup(func() {
		out.mu.Lock()
		defer out.mu.Unlock()
		if out.conn != nil {
			_ = out.conn.PgConn().Conn().Close() // the server is going anyway
		}
	})
	return out
}

// standby copies the data folder of the server while it is stopped, so the copy is whole without a backup.
func (s *Server) standby() (*Server, error) {
	dir, err := scratch("standby" + strconv.Itoa(s.Major))
	if err != nil {
		return nil, err
	}
	out := &Server{Major: s.Major, Socket: dir, Password: s.Password, bin: s.bin, dir: dir, as: s.as}
	out.settings = append(serverSettings(dir, ServerOptions{}),
		"hot_standby = on", "hot_standby_feedback = on", "wal_receiver_status_interval = 100ms",
		fmt.Sprintf("primary_conninfo = 'host=127.0.0.1 port=%d user=%s password=%s sslmode=disable'", s.Port, superuser, s.Password))
	s.Stop()
	if msg, err := exec.Command("cp", "-a", filepath.Join(s.dir, "data"), filepath.Join(dir, "data")).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copy the data folder: %w: %s", err, msg)
	}
	if err := s.Start(); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "data", "standby.signal"), nil, 0o600); err != nil {
		return nil, err
	}
	cert, key, err := certify(dir)
	if err != nil {
		return nil, err
	}
	out.CA = cert
	for _, path := range []string{key, dir, filepath.Join(dir, "data", "standby.signal")} {
		if err := s.as.own(path); err != nil {
			return nil, err
		}
	}
	if err := out.Start(); err != nil {
		return nil, err
	}
	onStop(out.Stop)
	return out, nil
}

// CatchUp waits until a standby shows what its primary has committed by now.
func (db *DB) CatchUp(standby *DB) {
	db.t.Helper()
	end := db.One("select pg_current_wal_flush_lsn()")
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for standby.One("select pg_last_wal_replay_lsn() >= '"+end+"'") != "t" {
		select {
		case <-tick.C:
		case <-deadline:
			db.t.Fatalf("the standby does not come to %s:\n%s", end, standby.Server.Log())
		}
	}
}
