//go:build linux

package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
)

// part is a group of measurements that -only can choose.
type part struct {
	name string
	run  func(context.Context, *bench) error
}

var parts = []part{
	{"parquet", parquet}, {"csv", csv}, {"s3", overS3}, {"many", many}, {"wide", wide}, {"memory", memory},
	{"run-history", runHistory}, {"run-current", runCurrent}, {"run-copy", runCopy}, {"run-large", runLarge},
	{"run-latency", runLatency}, {"run-scan", runScan}, {"run-tables", runTables},
	{"run-first-changes", runFirstChanges}, {"run-first-copy", runFirstCopy}, {"run-commits", runCommits}, {"run-requests", runRequests}, {"run-soak", runSoak},
	{"run-idle", runIdle},
	{"mirror-small", mirrorSmall}, {"mirror-large", mirrorLarge}, {"mirror-same", mirrorSame}, {"mirror-list", mirrorList},
	{"peers-dump", peersLineitem}, {"peers-types", peersTypes}, {"peers-changes", peersChanges},
}

func partNames() []string {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

const mib = 1 << 20

// dump is a run of leat on one database.
func (b *bench) dump(name, database, table string, rows int64, flags ...string) contender {
	args := []string{b.leat, "dump", "--quiet", "--to", "{out}", "--table", table}
	return contender{name: "leat " + name, args: append(args, flags...), env: b.cluster.env(database), rows: rows}
}

// shell is a reference: what people type today. A program of a pipeline that fails, fails it.
func (b *bench) shell(name, database, command string) contender {
	return contender{name: name, args: []string{"bash", "-o", "pipefail", "-c", command}, env: b.cluster.env(database)}
}

func (b *bench) lineitemDumps(database string) (snappy, zstd, csvGz contender) {
	const table = "public.lineitem"
	return b.dump("parquet snappy", database, table, b.rows, "--format", "parquet", "--compression", "snappy"),
		b.dump("parquet zstd", database, table, b.rows, "--format", "parquet", "--compression", "zstd"),
		b.dump("csv.gz", database, table, b.rows, "--format", "csv.gz", "--layout", "date")
}

func parquet(ctx context.Context, b *bench) error {
	database, err := b.lineitem(ctx)
	if err != nil {
		return err
	}
	progress("parquet against COPY binary")
	snappy, zstd, _ := b.lineitemDumps(database)
	o, err := b.race(ctx, true, b.n, b.shell("psql COPY (FORMAT binary) >/dev/null", database, `psql -qc 'COPY lineitem TO STDOUT (FORMAT binary)' >/dev/null`), snappy, zstd)
	if err != nil {
		return err
	}
	b.report.runs(b.rows, o...)
	for _, ours := range o[1:] {
		b.report.ratio(ours, o[0], 0.9)
		b.report.cpu(ours, b.rows, 1.0)
		b.report.memory(ours, 400*mib)
	}
	return nil
}

func csv(ctx context.Context, b *bench) error {
	for _, tool := range []string{"gzip", "pigz"} {
		if _, err := exec.LookPath(tool); err != nil {
			return err
		}
	}
	database, err := b.lineitem(ctx)
	if err != nil {
		return err
	}
	progress("csv.gz against gzip and pigz")
	const copyTo = `psql -qc 'COPY lineitem TO STDOUT CSV' | `
	_, _, ours := b.lineitemDumps(database)
	o, err := b.race(ctx, true, b.n, ours,
		b.shell("psql COPY CSV, gzip -6", database, copyTo+"gzip -6 >{out}/lineitem.csv.gz"),
		b.shell("psql COPY CSV, pigz", database, copyTo+"pigz >{out}/lineitem.csv.gz"))
	if err != nil {
		return err
	}
	b.report.runs(b.rows, o...)
	b.report.ratio(o[0], o[1], 0.25)
	b.report.ratio(o[0], o[2], 0.6)
	b.report.memory(o[0], 400*mib)
	return nil
}

// overS3 holds a dump over S3 against the same dump to a folder of the same disk.
func overS3(ctx context.Context, b *bench) error {
	database, err := b.lineitem(ctx)
	if err != nil {
		return err
	}
	g, err := startGateway()
	if err != nil {
		return err
	}
	defer g.stop()
	progress("an S3 server against a folder")
	var contenders []contender
	snappy, zstd, csvGz := b.lineitemDumps(database)
	for _, c := range []contender{snappy, zstd, csvGz} {
		remote := c
		remote.name, remote.s3 = c.name+" to S3", g
		c.name += " to a folder"
		contenders = append(contenders, c, remote)
	}
	o, err := b.race(ctx, true, b.n, contenders...)
	if err != nil {
		return err
	}
	b.report.runs(b.rows, o...)
	for pair := range slices.Chunk(o, 2) {
		b.report.ratio(pair[1], pair[0], 1.2)
		b.report.memory(pair[1], 400*mib)
	}
	return nil
}

func many(ctx context.Context, b *bench) error {
	const database, tables, rows = "small", 2000, 10
	if err := b.script(ctx, database, smallSQL); err != nil {
		return err
	}
	progress("%d small tables against pg_dump", tables)
	o, err := b.race(ctx, true, b.n,
		b.dump(fmt.Sprintf("parquet, %d tables", tables), database, "public.*", tables*rows, "--format", "parquet"),
		b.shell("pg_dump -Fd -j2", database, "pg_dump -Fd -j2 -f {out}/dump"))
	if err != nil {
		return err
	}
	b.report.runs(tables*rows, o...)
	b.report.ratio(o[0], o[1], 1.0)
	b.report.memory(o[0], 400*mib)
	return nil
}

// wide takes values of 200 MB. Only memory counts: one run each.
func wide(ctx context.Context, b *bench) error {
	const database, rows = "wide", 5
	if err := b.script(ctx, database, wideSQL); err != nil {
		return err
	}
	progress("values of 200 MB")
	o, err := b.race(ctx, false, 1,
		b.dump("parquet snappy, 200 MB values", database, "public.wide", rows, "--format", "parquet", "--compression", "snappy"),
		b.dump("parquet zstd, 200 MB values", database, "public.wide", rows, "--format", "parquet", "--compression", "zstd"),
		b.dump("csv.gz, 200 MB values", database, "public.wide", rows, "--format", "csv.gz", "--layout", "date"))
	if err != nil {
		return err
	}
	b.report.runs(rows, o...)
	for _, ours := range o {
		b.report.memory(ours, 1024*mib)
	}
	return nil
}

// memory is for tables too large to measure many times.
func memory(ctx context.Context, b *bench) error {
	database, err := b.lineitem(ctx)
	if err != nil {
		return err
	}
	progress("memory, one run each")
	snappy, zstd, csvGz := b.lineitemDumps(database)
	o, err := b.race(ctx, false, 1, snappy, zstd, csvGz)
	if err != nil {
		return err
	}
	for i := range o {
		o[i].name += fmt.Sprintf(", %d million rows", b.rows/1_000_000)
	}
	b.report.runs(b.rows, o...)
	for _, ours := range o {
		b.report.memory(ours, 400*mib)
	}
	return nil
}
