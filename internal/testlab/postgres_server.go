package testlab

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// superuserPassword is a constant because it is part of the cached template folder.
const superuser, superuserPassword = "postgres", "lab-superuser-5Tq8wZ"

// Server is a running PostgreSQL server.
type Server struct {
	Major    int
	Port     int
	Socket   string // folder of its Unix socket
	CA       string // the certificate it shows to TLS clients; use it with sslmode=verify-full and sslrootcert
	Password string // of the superuser "postgres"

	bin, dir string
	settings []string
	as       *account
	child    *child
	admin    adminConn
}

// ServerOptions says how a server of one's own differs from the shared one.
type ServerOptions struct {
	Major    int      // 0: this machine's own, see Postgres
	Settings []string // lines of postgresql.conf, as "work_mem = 1MB"; they win over the lab's
	Durable  bool     // fsync stays on
}

// StartServer starts a PostgreSQL server that belongs to the caller alone. It takes about half a second.
func StartServer(o ServerOptions) (*Server, error) {
	bin, major, err := postgresBin(o.Major)
	if err != nil {
		return nil, err
	}
	as, err := unprivileged()
	if err != nil {
		return nil, err
	}
	dir, err := scratch("pg" + strconv.Itoa(major))
	if err != nil {
		return nil, err
	}
	s := &Server{Major: major, Socket: dir, Password: Secret(superuserPassword), bin: bin, dir: dir, as: as}
	s.settings = serverSettings(dir, o)
	if err := s.prepare(); err != nil {
		return nil, fmt.Errorf("PostgreSQL %d: %w", major, err)
	}
	if err := s.Start(); err != nil {
		return nil, err
	}
	onStop(s.Stop)
	secret, err := quickSecret(s.Password)
	if err != nil {
		return nil, err
	}
	return s, s.do("ALTER ROLE " + superuser + " PASSWORD '" + secret + "'")
}

func serverSettings(dir string, o ServerOptions) []string {
	lines := []string{
		"listen_addresses = '127.0.0.1'",
		"unix_socket_directories = '" + dir + "'",
		"ssl = on",
		"ssl_cert_file = '" + dir + "/tls.crt'",
		"ssl_key_file = '" + dir + "/tls.key'",
		"wal_level = logical",
		"max_wal_senders = 50",
		"max_replication_slots = 50",
		"max_connections = 200",
		"max_prepared_transactions = 10",
		"shared_buffers = 128MB",
		"max_wal_size = 1GB",
		"wal_sender_timeout = 10s",
		"track_commit_timestamp = on",
		"jit = off", // compiling takes longer than any statement of a test
		// synchronous_commit stays on: logical decoding reads only flushed WAL, so with it off a change shows up late.
	}
	if !o.Durable {
		lines = append(lines, "fsync = off", "full_page_writes = off")
	}
	return append(lines, o.Settings...)
}

// prepare makes the data folder and all that the server reads at its start.
func (s *Server) prepare() error {
	template, err := postgresTemplate(s.bin, s.as)
	if err != nil {
		return err
	}
	data := filepath.Join(s.dir, "data")
	if out, err := exec.Command("cp", "-a", "--reflink=auto", template, data).CombinedOutput(); err != nil {
		return fmt.Errorf("copy %s: %w: %s", template, err, out)
	}
	cert, key, err := certify(s.dir)
	if err != nil {
		return err
	}
	s.CA = cert
	return errors.Join(s.as.own(key), s.as.own(s.dir))
}

// Start starts a server that was stopped or crashed, on the port it had, and waits until it answers.
func (s *Server) Start() error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for began, ports := time.Now(), 1; ; {
		if s.Port == 0 {
			port, err := freePort()
			if err != nil {
				return err
			}
			s.Port = port
		}
		err := s.run()
		if err == nil {
			return nil
		}
		if !s.child.ended() {
			return err
		}
		switch said := s.child.tail(); {
		case strings.Contains(said, "already in use") && ports < 5: // another process took the port
			s.Port, ports = 0, ports+1
		case strings.Contains(said, "still in use") && time.Since(began) < patience: // children of a crashed server hold its memory, and end
			<-tick.C
		default:
			return err
		}
	}
}

func (s *Server) run() error {
	conf := strings.Join(s.settings, "\n") + "\nport = " + strconv.Itoa(s.Port) + "\n"
	confFile := filepath.Join(s.dir, "data", "postgresql.auto.conf")
	if err := os.WriteFile(confFile, []byte(conf), 0o600); err != nil {
		return err
	}
	if err := s.as.own(confFile); err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(s.bin, "postgres"), "-D", filepath.Join(s.dir, "data"))
	cmd.Dir = s.dir
	cmd.Env = []string{"LC_ALL=C.UTF-8", "PATH=/usr/bin:/bin", "TZ=UTC"}
	// SIGQUIT is PostgreSQL's immediate shutdown: unlike SIGKILL it takes the backends along.
	c, err := start("PostgreSQL "+strconv.Itoa(s.Major), filepath.Join(s.dir, "log"), cmd, s.as, syscall.SIGQUIT)
	if err != nil {
		return err
	}
	s.child = c
	return c.ready(func() error {
		conn, err := pgconn.Connect(context.Background(), s.url(superuser, s.Password, superuser))
		if err != nil {
			return err
		}
		return conn.Close(context.Background())
	})
}

// Stop ends the server in an orderly way, cutting its sessions. Start brings it back.
func (s *Server) Stop() { s.child.stop(syscall.SIGINT) }

// Crash kills the server as the kernel would: nothing is flushed, nothing is said. Start brings it back.
func (s *Server) Crash() {
	_ = s.child.cmd.Process.Kill()
	<-s.child.done
}

// Log is the end of the server's own log.
func (s *Server) Log() string { return s.child.tail() }

// url is the address of a database with everything in it.
func (s *Server) url(user, password, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: address(s.Port), Path: "/" + database}
	u.RawQuery = "sslmode=disable"
	return u.String()
}

var majorFolder = regexp.MustCompile(`^\d+$`)

// postgresBin finds a server's programs. Debian's packages come before the cache, and of several majors the
// oldest of Debian's: it is the one the project names first.
func postgresBin(major int) (bin string, found int, err error) {
	for _, root := range []string{"/usr/lib/postgresql", filepath.Join(cacheDir(), "postgres")} {
		for _, m := range majorsIn(root) {
			if major == 0 || m == major {
				return filepath.Join(root, strconv.Itoa(m), "bin"), m, nil
			}
		}
	}
	what := "PostgreSQL"
	if major != 0 {
		what = fmt.Sprintf("PostgreSQL %d", major)
	}
	return "", 0, &notInstalled{what, mendDeps}
}

// majorsIn lists the majors whose server lies below root, the oldest first.
func majorsIn(root string) []int {
	var majors []int
	entries, _ := os.ReadDir(root)
	for _, e := range entries {
		if !majorFolder.MatchString(e.Name()) {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, e.Name(), "bin", "postgres")); err != nil {
			continue
		}
		m, _ := strconv.Atoi(e.Name())
		majors = append(majors, m)
	}
	slices.Sort(majors)
	return majors
}

// postgresTemplate returns a data folder as initdb leaves it, made once per server version and user: copying
// it is three times as fast as initdb. Many processes may ask at once; the folder appears by a rename.
func postgresTemplate(bin string, as *account) (string, error) {
	version, err := exec.Command(filepath.Join(bin, "postgres"), "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask for the version: %w", err)
	}
	name := regexp.MustCompile(`[^0-9A-Za-z.]+`).ReplaceAllString(strings.TrimSpace(string(version)), "-")
	template := filepath.Join(cacheDir(), "initdb", name)
	if _, err := os.Stat(filepath.Join(template, "PG_VERSION")); err == nil {
		return template, nil
	}
	dir, err := scratch("initdb")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := initdb(bin, dir, as); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(template), 0o755); err != nil {
		return "", err
	}
	// The cache may lie on another file system than the scratch folder: copy beside the target, then rename.
	fresh, err := os.MkdirTemp(filepath.Dir(template), "new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	if out, err := exec.Command("cp", "-a", filepath.Join(dir, "data"), fresh).CombinedOutput(); err != nil {
		return "", fmt.Errorf("keep the template: %w: %s", err, out)
	}
	if err := os.Rename(filepath.Join(fresh, "data"), template); err != nil && !errors.Is(err, os.ErrExist) && !errors.Is(err, syscall.ENOTEMPTY) {
		return "", err
	}
	return template, nil
}

func initdb(bin, dir string, as *account) error {
	pwfile := filepath.Join(dir, "pw")
	if err := os.WriteFile(pwfile, []byte(superuserPassword), 0o600); err != nil {
		return err
	}
	if err := errors.Join(as.own(dir), as.own(pwfile)); err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(bin, "initdb"), "-D", filepath.Join(dir, "data"), "-U", superuser, "--pwfile="+pwfile,
		"--auth=scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
	cmd.Dir = dir
	cmd.Env = []string{"LC_ALL=C.UTF-8", "PATH=/usr/bin:/bin", "TZ=UTC"}
	log := filepath.Join(dir, "log")
	c, err := start("initdb", log, cmd, as, syscall.SIGKILL)
	if err != nil {
		return err
	}
	<-c.done
	if !cmd.ProcessState.Success() {
		return fmt.Errorf("initdb: %s\n%s", cmd.ProcessState, c.tail())
	}
	return nil
}
