package crash_test

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	command "os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// lakeTable is an Iceberg table as PyIceberg reads it, values as PostgreSQL writes them in text; nil is NULL.
type lakeTable struct {
	Columns   []string
	Rows      [][]*string
	Snapshots int
	Version   int
	Missing   bool
	Error     string
}

// column is the place of a column, -1 without.
func (l lakeTable) column(name string) int { return slices.Index(l.Columns, name) }

//go:embed testdata/lake.py
var lakeReader string

// stranger is a Python process that reads tables for all tests: PyIceberg takes seconds to load.
type stranger struct {
	mu  sync.Mutex
	in  io.Writer
	out *bufio.Reader
}

var oneStranger struct {
	once sync.Once
	*stranger
	err error
}

func theStranger(t testing.TB) *stranger {
	t.Helper()
	python := testlab.Python(t)
	oneStranger.once.Do(func() { oneStranger.stranger, oneStranger.err = startStranger(python) })
	if oneStranger.err != nil {
		t.Fatal(oneStranger.err)
	}
	return oneStranger.stranger
}

// startStranger starts the reader. It ends when its standard input does: with this process.
func startStranger(python string) (*stranger, error) {
	cmd := command.Command(python, "-c", lakeReader)
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "PYTHONWARNINGS=ignore")
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &stranger{in: in, out: bufio.NewReaderSize(out, 1<<20)}, cmd.Start()
}

// read reads the tables below a lake's address.
func (s *stranger) read(t testing.TB, lake string, properties map[string]string, tables []string) map[string]lakeTable {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	folders := make([]string, len(tables))
	for i, name := range tables {
		folders[i] = lake + "/" + strings.ReplaceAll(name, ".", "/")
	}
	question, err := json.Marshal(map[string]any{"properties": properties, "tables": folders})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(s.in, "%s\n", question); err != nil {
		t.Fatal(err)
	}
	answers := map[string]lakeTable{}
	for _, name := range tables {
		line, err := s.out.ReadBytes('\n')
		if err != nil {
			t.Fatalf("the reader of the lake has died: %v", err)
		}
		var l lakeTable
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatal(err)
		}
		for _, row := range l.Rows {
			for i, v := range row {
				if v != nil {
					row[i] = kept(*v)
				}
			}
		}
		if l.Error != "" {
			t.Errorf("PyIceberg cannot read %s: %s", name, l.Error)
		}
		answers[name] = l
	}
	return answers
}

// icebergProperties let PyIceberg reach a store.
func icebergProperties(s testlab.Store) map[string]string {
	return map[string]string{
		"s3.endpoint": s.Endpoint, "s3.region": s.Region, "s3.access-key-id": s.AccessKey, "s3.secret-access-key": s.SecretKey,
	}
}
