//go:build linux

package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

var (
	//go:embed peers/dump.py
	peersDump string
	//go:embed peers/judge.py
	peersJudge string
	//go:embed awkward.sql
	awkwardSQL string
	//go:embed awkward_truth.sql
	awkwardTruth string
)

// peers are the programs that bench/peers/dump.py knows.
var peers = []string{"duckdb", "connectorx", "adbc", "polars", "chdb", "spark", "dlt-pyarrow", "dlt-connectorx"}

const (
	awkwardRows     = 100_000
	awkwardDatabase = "types"
)

// peer is one of them on a table whose key has the numbers from 1 to last.
func (b *bench) peer(name, database, table, key string, last int64) contender {
	return contender{
		name: name, env: append(b.cluster.byTCP(database), "PEERS_JDBC="+b.peersFile("postgresql-*.jar"), "JAVA_TOOL_OPTIONS=-XX:+UseParallelGC"),
		args: []string{filepath.Join(b.peers, "python", "bin", "python"), filepath.Join(b.scratch, "dump.py"), name, table, key, strconv.FormatInt(last, 10), "{out}"},
	}
}

// peersFile is the file of a name like this among the programs of others, empty where there is none.
func (b *bench) peersFile(pattern string) string {
	found, _ := filepath.Glob(filepath.Join(b.peers, pattern))
	return strings.Join(found[:min(len(found), 1)], "")
}

// readyPeers writes their programs where they are run, and makes sure of their Python.
func (b *bench) readyPeers() error {
	if b.peersFile("python/bin/python") == "" {
		return fmt.Errorf("the programs to compare with are not in %s: run hack/bench-peers, or give -peers", b.peers)
	}
	for name, text := range map[string]string{"dump.py": peersDump, "judge.py": peersJudge} {
		if err := os.WriteFile(filepath.Join(b.scratch, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// byTCP is a contender that connects by the network.
func (b *bench) byTCP(c contender, database string) contender {
	c.env = b.cluster.byTCP(database)
	return c
}

// peersLineitem holds a dump of lineitem against what people would take instead, all by TCP. A program that fails in the round that warms
// up is left out, and the report says so.
func peersLineitem(ctx context.Context, b *bench) error {
	if err := b.readyPeers(); err != nil {
		return err
	}
	database, err := b.lineitem(ctx)
	if err != nil {
		return err
	}
	progress("parquet zstd by TCP against other programs")
	_, ours, _ := b.lineitemDumps(database)
	const half = `psql -qc 'COPY (SELECT * FROM lineitem WHERE ctid %s (SELECT (relpages / 2, 0)::text::tid FROM pg_class WHERE relname = $$lineitem$$)) TO STDOUT (FORMAT binary)' >/dev/null`
	all := []contender{
		b.byTCP(ours, database),
		b.byTCP(b.shell("one COPY (FORMAT binary) >/dev/null", database, `psql -qc 'COPY lineitem TO STDOUT (FORMAT binary)' >/dev/null`), database),
		b.byTCP(b.shell("two COPYs of half the table each", database, fmt.Sprintf(half, "<")+" & first=$!; "+fmt.Sprintf(half, ">=")+"; wait $first"), database),
		b.byTCP(b.shell("pg_dump -Fc", database, "pg_dump -Fc -t lineitem -f {out}/dump"), database),
	}
	for _, name := range peers {
		all = append(all, b.peer(name, database, "lineitem", "l_orderkey", b.rows))
	}
	able := b.able(ctx, all)
	o, err := b.race(ctx, false, b.n, able...)
	if err != nil {
		return err
	}
	b.report.runs(b.rows, o...)
	for _, other := range o[1:] {
		reach := 1.0
		switch other.name {
		case all[2].name:
			reach = 1.25
		case "duckdb":
			reach = 0.85
		}
		b.report.ratio(o[0], other, reach)
	}
	return nil
}

// able runs each contender once and keeps those that can do it; the report names the others.
func (b *bench) able(ctx context.Context, all []contender) []contender {
	return slices.DeleteFunc(all, func(c contender) bool {
		_, err := b.race(ctx, false, 1, c)
		if err != nil {
			b.report.notes = append(b.report.notes, fmt.Sprintf("- %s fails: %s", c.name, lastLine(err.Error())))
		}
		return err != nil
	})
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	last := lines[len(lines)-1]
	return strings.ReplaceAll(last[:min(len(last), 200)], "|", `\|`)
}

// judged is what judge.py says of one column.
type judged struct {
	Type    string `json:"type"`
	Wrong   int    `json:"wrong"`
	Example string `json:"example"`
}

// peersTypes counts the values of awkward types that each program gets wrong.
func peersTypes(ctx context.Context, b *bench) error {
	if err := b.readyPeers(); err != nil {
		return err
	}
	const database = awkwardDatabase
	if err := b.script(ctx, database, awkwardSQL); err != nil {
		return err
	}
	truth := filepath.Join(b.scratch, "truth.csv")
	save := exec.CommandContext(ctx, b.cluster.program("psql"), "-Xqc", awkwardTruth, "-o", truth)
	save.Env = append(os.Environ(), b.cluster.env(database)...)
	if out, err := save.CombinedOutput(); err != nil {
		return fmt.Errorf("the values of the awkward table: %w: %s", err, out)
	}
	progress("values of awkward types, as each program writes them")
	b.report.more = append(b.report.more, "| program | "+strings.Join(awkwardColumns, " | ")+" |", "| --- |"+strings.Repeat(" --- |", len(awkwardColumns)))
	for _, name := range append([]string{"leat"}, peers...) {
		line := "| " + name + " | " + strings.Join(b.cells(ctx, name, truth), " | ") + " |"
		progress("  %s", line)
		b.report.more = append(b.report.more, line)
	}
	return nil
}

// awkwardColumns are those of awkward.sql beside its key.
var awkwardColumns = []string{"n38", "n", "ts", "u", "j", "ta", "b", "e", "c"}

// cells says what becomes of each column. A program that fails at the whole table is asked for one column after the other.
func (b *bench) cells(ctx context.Context, name, truth string) (cells []string) {
	of := func(table string) contender {
		if name == "leat" {
			return b.byTCP(b.dump("awkward", awkwardDatabase, "public."+table, awkwardRows, "--format", "parquet", "--compression", "zstd"), awkwardDatabase)
		}
		return b.peer(name, awkwardDatabase, table, "id", awkwardRows)
	}
	if cells, err := b.judge(ctx, of("awkward"), truth, awkwardColumns); err == nil {
		return cells
	}
	for _, column := range awkwardColumns {
		cell, err := b.judge(ctx, of("awkward_"+column), truth, []string{column})
		if err != nil {
			progress("    %s.%s: %s", name, column, lastLine(err.Error()))
			b.report.notes = append(b.report.notes, fmt.Sprintf("- %s at %s: %s", name, column, lastLine(err.Error())))
			cell = []string{"**fails**"}
		}
		cells = append(cells, cell...)
	}
	return cells
}

// judge runs a program once and has its files compared, a cell for each column.
func (b *bench) judge(ctx context.Context, c contender, truth string, columns []string) ([]string, error) {
	out, err := os.MkdirTemp(b.scratch, "judged-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(out)
	args := slices.Clone(c.args)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "{out}", out)
	}
	if _, err := b.cluster.measure(ctx, c.env, args...); err != nil {
		return nil, err
	}
	said, err := exec.CommandContext(ctx, filepath.Join(b.peers, "python", "bin", "python"), append([]string{filepath.Join(b.scratch, "judge.py"), truth, out}, columns...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("judge.py: %w", err)
	}
	found := map[string]judged{}
	if err := json.Unmarshal(said, &found); err != nil {
		return nil, err
	}
	var cells []string
	for _, column := range columns {
		f := found[column]
		cell := f.Type
		if storage, opaque := strings.CutPrefix(f.Type, "extension<arrow.opaque[storage_type="); opaque { // the text as the server wrote it
			storage, _, _ = strings.Cut(storage, ",")
			cell = "opaque " + storage
		}
		if f.Wrong > 0 {
			cell = fmt.Sprintf("**%d wrong**, %s", f.Wrong, cell)
			progress("    %s.%s: %s", c.name, column, f.Example)
		}
		cells = append(cells, cell)
	}
	return cells, nil
}
