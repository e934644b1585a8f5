package testlab

import (
	_ "embed"
	"os/exec"
	"path/filepath"
	"testing"
)

// Engines are the query engines that StartEngine knows. PyIceberg and PyArrow are one, pyarrow.
var Engines = []string{"spark", "duckdb", "polars", "datafusion", "pyarrow"}

// Engine is a query engine that is not ours and reads files as its users have it read them.
type Engine struct {
	Version string // name and version, as the engine tells them

	t       testing.TB
	process *reader
}

// EngineQuestion is what an engine is asked: the files of a table with the columns id and v, and filters of v, each an operator and its
// values in PostgreSQL's text.
type EngineQuestion struct {
	Kind    string     `json:"kind"` // parquet, or iceberg
	Path    string     `json:"path"` // a folder
	Type    string     `json:"type"` // of v in PostgreSQL
	Filters [][]string `json:"filters"`
}

// EngineAnswer has for each filter the ids that the engine finds in the files, skipping what it can, and in its own copy of all rows.
type EngineAnswer struct {
	Rows    int
	Files   [][]int
	Memory  [][]int
	Version string
	Error   string
}

//go:embed engines.py
var enginesScript []byte

// StartEngine starts an engine for this test; Spark is one for all tests of the process. It ends with the tests of the process.
func StartEngine(t testing.TB, name string) *Engine {
	t.Helper()
	process, err := startEngine(t, name)
	need(t, err)
	e := &Engine{t: t, process: process}
	a := e.Ask(EngineQuestion{Kind: "version"})
	if a.Error != "" {
		t.Fatalf("%s does not tell its version: %s", name, a.Error)
	}
	e.Version = a.Version
	return e
}

func startEngine(t testing.TB, name string) (*reader, error) {
	if name == "spark" {
		return sharedSpark()
	}
	python := Python(t)
	found, err := filepath.Glob(filepath.Join(filepath.Dir(python), "..", "lib", "python3*", "site-packages", name))
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, &notInstalled{name, mendDeps}
	}
	return startReader("engine-"+name, func(script, _ string) *exec.Cmd { return exec.Command(python, "-W", "ignore", script, name) })
}

// Ask asks the engine.
func (e *Engine) Ask(q EngineQuestion) EngineAnswer {
	e.t.Helper()
	var a EngineAnswer
	e.process.exchange(e.t, q, &a)
	return a
}
