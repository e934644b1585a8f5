package testlab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// Upgrade puts another server in the place of the test's own one, with its data, by pg_upgrade. Both are of the major of this machine's own
// server, which pg_upgrade allows: of other majors the cache has the servers alone, without the programs that pg_upgrade calls.
func (db *DB) Upgrade() {
	db.t.Helper()
	next, err := db.Server.upgraded()
	need(db.t, err)
	db.t.Cleanup(next.Stop)
	db.Server, db.URL = next, next.url(superuser, next.Password, db.Name)
	db.Bare = bare(db.URL)
}

// upgraded stops the server and starts the one that pg_upgrade makes of it.
func (s *Server) upgraded() (*Server, error) {
	program := filepath.Join(s.bin, "pg_upgrade")
	if _, err := os.Stat(program); err != nil {
		return nil, &notInstalled{"pg_upgrade of PostgreSQL " + strconv.Itoa(s.Major), mendDeps}
	}
	next, err := StartServer(ServerOptions{Major: s.Major})
	if err != nil {
		return nil, err
	}
	next.Stop()
	s.Stop()
	data := filepath.Join(next.dir, "data") // a copy of the template, as the server to be upgraded: both have one identity
	if err := os.RemoveAll(data); err != nil {
		return nil, err
	}
	if err := initdb(s.bin, next.dir, s.as); err != nil {
		return nil, err
	}
	dir, err := scratch("upgrade")
	if err != nil {
		return nil, err
	}
	if err := s.as.own(dir); err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "-b", s.bin, "-B", s.bin, "-d", filepath.Join(s.dir, "data"), "-D", data, "-U", superuser, "--link")
	cmd.Dir = dir
	cmd.Env = []string{"LC_ALL=C.UTF-8", "PATH=/usr/bin:/bin", "TZ=UTC", "PGPASSWORD=" + s.Password}
	c, err := start("pg_upgrade", filepath.Join(dir, "log"), cmd, s.as, syscall.SIGKILL)
	if err != nil {
		return nil, err
	}
	<-c.done
	if !cmd.ProcessState.Success() {
		return nil, fmt.Errorf("pg_upgrade: %s\n%s", cmd.ProcessState, c.tail())
	}
	return next, next.Start()
}
