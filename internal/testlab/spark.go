package testlab

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Spark is Apache Spark with Iceberg's own library and one catalog of the test's own. Spark is one process for all tests
// of this process, because it takes seconds to start; it shares no code with us.
type Spark struct {
	Catalog string // its name in SQL

	t        testing.TB
	settings map[string]string
	process  *reader
}

// SparkCatalog returns Spark with a catalog. The settings are those of Iceberg's SparkCatalog, such as type and warehouse.
func SparkCatalog(t testing.TB, settings map[string]string) *Spark {
	t.Helper()
	process, err := sharedSpark()
	need(t, err)
	return &Spark{Catalog: unique(t, "_"), t: t, settings: settings, process: process}
}

// Query returns columns and rows of a statement, values as PostgreSQL writes them in text, moments in UTC, arrays as JSON
// without spaces.
func (s *Spark) Query(sql string) (columns []string, rows [][]string) {
	s.t.Helper()
	return s.process.ask(s.t, map[string]any{"catalog": s.Catalog, "settings": s.settings, "sql": sql})
}

// Commits runs a statement that writes, again where another writer's commit came first: tables in a folder are not tried
// again by Iceberg itself.
func (s *Spark) Commits(sql string) {
	s.t.Helper()
	question := map[string]any{"catalog": s.Catalog, "settings": s.settings, "sql": sql}
	for {
		var reply struct{ Error string }
		s.process.exchange(s.t, question, &reply)
		switch {
		case reply.Error == "":
			return
		case !strings.Contains(reply.Error, "CommitFailedException"):
			s.t.Fatalf("%s cannot answer %v: %s", s.process.name, question, reply.Error)
		}
	}
}

// SparkSettings are a catalog's settings with those that let Spark reach the store.
func (s Store) SparkSettings(catalog map[string]string) map[string]string {
	maps.Copy(catalog, map[string]string{
		"io-impl": "org.apache.iceberg.aws.s3.S3FileIO", "s3.endpoint": s.Endpoint, "s3.path-style-access": "true", "client.region": s.Region,
		"s3.access-key-id": s.AccessKey, "s3.secret-access-key": s.SecretKey,
	})
	return catalog
}

// PyIceberg reads a table that lies in a folder, which a URL names, without any catalog; the rows are as Spark.Query's.
func PyIceberg(t testing.TB, folder string) (columns []string, rows [][]string) {
	t.Helper()
	return askPyIceberg(t, map[string]any{"folder": folder})
}

// PyIcebergAt is PyIceberg for a folder in an object store; the properties tell how to reach it.
func PyIcebergAt(t testing.TB, folder string, properties map[string]string) (columns []string, rows [][]string) {
	t.Helper()
	return askPyIceberg(t, map[string]any{"folder": folder, "properties": properties})
}

// PyIcebergCatalog reads a table of a catalog. The settings are those of PyIceberg, such as type and uri.
func PyIcebergCatalog(t testing.TB, settings map[string]string, table ...string) (columns []string, rows [][]string) {
	t.Helper()
	return askPyIceberg(t, map[string]any{"settings": settings, "table": table})
}

func askPyIceberg(t testing.TB, question any) (columns []string, rows [][]string) {
	t.Helper()
	python := Python(t)
	onePyIceberg.once.Do(func() {
		onePyIceberg.reader, onePyIceberg.err = startReader("pyiceberg", func(script, _ string) *exec.Cmd {
			return exec.Command(python, "-W", "ignore", script, "pyiceberg")
		})
	})
	need(t, onePyIceberg.err)
	return onePyIceberg.reader.ask(t, question)
}

var onePyIceberg struct {
	once   sync.Once
	reader *reader
	err    error
}

var sharedSpark = sync.OnceValues(func() (*reader, error) {
	home := filepath.Join(cacheDir(), "spark")
	if _, err := os.Stat(filepath.Join(home, "VERSION")); err != nil {
		return nil, &notInstalled{"Spark", mendDeps}
	}
	if _, err := exec.LookPath("java"); err != nil {
		return nil, &notInstalled{"java", mendDeps}
	}
	return startReader("spark", func(script, dir string) *exec.Cmd {
		jars := strings.Join([]string{filepath.Join(home, "iceberg.jar"), filepath.Join(home, "aws.jar"), filepath.Join(home, "sqlite.jar")}, ":")
		return exec.Command(filepath.Join(home, "python", "bin", "python"), script, "spark", jars, dir)
	})
})

//go:embed readers.py
var readersScript []byte

// reader is a Python process that answers questions, one line of JSON each, one after the other.
type reader struct {
	*child
	mu  sync.Mutex
	in  io.Writer
	out *bufio.Reader
}

// startReader starts a process. It ends when its standard input does, and with it what it has started itself.
func startReader(name string, command func(script, dir string) *exec.Cmd) (*reader, error) {
	dir, err := scratch(name)
	if err != nil {
		return nil, err
	}
	script := filepath.Join(dir, "readers.py")
	for path, text := range map[string][]byte{script: readersScript, filepath.Join(dir, "engines.py"): enginesScript} {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return nil, err
		}
	}
	cmd := command(script, dir)
	cmd.Dir = dir
	// Python gives moments in the zone of TZ; Spark would ask the network for this machine's name.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "LANG=C.UTF-8", "TZ=UTC",
		"SPARK_LOCAL_IP=127.0.0.1", "AWS_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true"}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stderr = log
	if err := spawn(cmd, nil, syscall.SIGTERM); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	r := &reader{child: &child{name: name, log: log.Name(), cmd: cmd, done: make(chan struct{})}, in: in, out: bufio.NewReaderSize(out, 1<<20)}
	onStop(func() {
		in.Close()
		_ = cmd.Wait() // how it ends is told by its log
		close(r.done)
	})
	return r, nil
}

// exchange sends a question and reads its answer.
func (r *reader) exchange(t testing.TB, question, reply any) {
	t.Helper()
	line, err := json.Marshal(question)
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err = r.in.Write(append(line, '\n')); err == nil {
		if line, err = r.out.ReadBytes('\n'); err == nil {
			err = json.Unmarshal(line, reply)
		}
	}
	if err != nil {
		t.Fatalf("%s has died: %v\n%s", r.name, err, r.tail())
	}
}

func (r *reader) ask(t testing.TB, question any) (columns []string, rows [][]string) {
	t.Helper()
	var reply struct {
		Columns []string
		Rows    [][]*string
		Error   string
	}
	r.exchange(t, question, &reply)
	if reply.Error != "" {
		t.Fatalf("%s cannot answer %v: %s", r.name, question, reply.Error)
	}
	rows = make([][]string, len(reply.Rows))
	for i, row := range reply.Rows {
		rows[i] = make([]string, len(row))
		for j, v := range row {
			rows[i][j] = Null
			if v != nil {
				rows[i][j] = *v
			}
		}
	}
	return reply.Columns, rows
}
