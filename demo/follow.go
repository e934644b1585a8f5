package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go/catalog"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
	"github.com/jackc/pgx/v5"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/lake"
)

// followed are the tables that leat run follows, and the columns that are compared in the end.
var followed = []struct{ name, columns string }{
	{"customers", "id, name, email, credit, newsletter"},
	{"orders", "id, customer_id, status, total"},
	{"order_items", "order_id, line, product_id, quantity, unit_price, gift_note"},
}

// follow lets the shop take orders while leat follows, kills leat, starts it again, and compares.
func (d *demo) follow(ctx context.Context) error {
	heading("Follow the log into Iceberg tables, while the shop takes orders")
	fmt.Println("-- as the tables' owner: CREATE PUBLICATION leat FOR TABLE … WITH (publish_via_partition_root = true)")
	if err := do(ctx, d.shop.admin, "CREATE PUBLICATION leat FOR TABLE customers, orders, order_items WITH (publish_via_partition_root = true)"); err != nil {
		return err
	}
	args := []string{"run", "--from", d.shop.url, "--to", d.store.url("lake"), "--commit-interval", "500ms", "--work-dir", d.work, "--set", "run.own_publication=false"}
	for _, t := range followed {
		args = append(args, "--table", "public."+t.name)
	}
	leat, err := d.startLeat(ctx, args...)
	if err != nil {
		return err
	}
	defer leat.kill()
	if err := leat.says(ctx, "follows the log", len(followed)); err != nil {
		return err
	}
	trade, stop := context.WithCancel(ctx)
	defer stop()
	var orders atomic.Int64
	closed := make(chan error, 1)
	go func() { closed <- d.shop.trade(trade, &orders) }()
	if err := leat.says(ctx, "Committed", 4); err != nil {
		return err
	}
	heading(fmt.Sprintf("kill -9, after %s transactions; the shop goes on", thousands(orders.Load())))
	leat.kill()
	if leat, err = d.startLeat(ctx, args...); err != nil {
		return err
	}
	defer leat.kill()
	if err := leat.says(ctx, "Committed", 3); err != nil {
		return err
	}
	stop()
	if err := <-closed; err != nil {
		return err
	}
	if err := leat.end(); err != nil {
		return err
	}
	fmt.Printf("The shop has closed after %s transactions.\n\n", thousands(orders.Load()))
	if err := d.runLeat(ctx, nil, append(args, "--until-caught-up")...); err != nil {
		return err
	}
	heading("The lake's tables, read by iceberg-go, held against the database")
	return d.compareLake(ctx)
}

// trade makes transactions until the shop closes: orders with their items, payments, customers that change, and some that go.
func (s *shop) trade(ctx context.Context, done *atomic.Int64) error {
	conn, err := pgx.Connect(context.WithoutCancel(ctx), s.admin)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	dice := rand.New(rand.NewPCG(1, 2))
	for order := 100000; ctx.Err() == nil; order++ {
		sql := fmt.Sprintf(`BEGIN;
INSERT INTO orders VALUES (%[1]d, '2026-04-02 10:00+00', %[2]d, 'new', 99.50, NULL);
INSERT INTO order_items SELECT %[1]d, n, %[3]d + n, 1, 9.95, 0, NULL FROM generate_series(1, 3) n;
UPDATE customers SET credit = credit - 99.50, last_seen = '10.1.2.3' WHERE id = %[2]d;
UPDATE orders SET status = 'paid' WHERE id = %[4]d;
DELETE FROM order_items WHERE order_id = %[5]d AND line = 1;
UPDATE order_items SET line = line + 100 WHERE order_id = %[6]d AND line < 100;
COMMIT`, order, 1+dice.IntN(20000), 1+dice.IntN(1900), order-dice.IntN(50), 1+dice.IntN(60000), 1+dice.IntN(60000))
		if dice.IntN(5) == 0 {
			sql = strings.Replace(sql, "COMMIT", "ROLLBACK", 1)
		}
		if _, err := conn.PgConn().Exec(context.WithoutCancel(ctx), sql).ReadAll(); err != nil {
			return err
		}
		done.Add(1)
	}
	return nil
}

// process is a leat that runs beside the demo, its output shown as it comes.
type process struct {
	cmd   *exec.Cmd
	lines chan string
}

func (d *demo) startLeat(ctx context.Context, args ...string) (*process, error) {
	showCommand(nil, args)
	p := &process{cmd: d.command(ctx, nil, args), lines: make(chan string, 1000)}
	out, in := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = in, in
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the process
		defer close(p.lines)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			fmt.Println("  " + scan.Text())
			p.lines <- scan.Text()
		}
	}()
	go func() {
		_ = p.cmd.Wait() // how it ended is looked at by whoever ends it
		_ = in.Close()
	}()
	return p, nil
}

// says waits until leat has said a text so many times.
func (p *process) says(ctx context.Context, text string, times int) error {
	for n := 0; n < times; {
		select {
		case line, ok := <-p.lines:
			if !ok {
				return fmt.Errorf("leat run ended before it said %q", text)
			}
			if strings.Contains(line, text) {
				n++
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Minute):
			return fmt.Errorf("leat run did not say %q within a minute", text)
		}
	}
	return nil
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended already
	for range p.lines {      // to its end
	}
}

// end asks leat to end, as Kubernetes does, and sees that it commits and goes.
func (p *process) end() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	for range p.lines {
	}
	return nil
}

// compareLake reads every row of the lake's tables and holds count and content against the database.
func (d *demo) compareLake(ctx context.Context) error {
	place, err := d.store.open(ctx, "lake")
	if err != nil {
		return err
	}
	defer place.Close()
	l, err := lake.Open(ctx, lake.Options{Bucket: place, Location: d.store.url("lake"), WorkDir: d.work, Pipeline: "leat"})
	if err != nil {
		return err
	}
	defer l.Close()
	conn, err := pgx.Connect(ctx, d.shop.admin)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	fmt.Printf("%-24s %12s %12s\n", "current", "in the lake", "in the table")
	wrong := 0
	for _, t := range followed {
		inLake, err := sumOfLake(ctx, place, d.store.url("lake"), t.name, strings.Split(t.columns, ", "))
		if err != nil {
			return err
		}
		inTable, err := sumOfTable(ctx, conn, t.name, strings.Split(t.columns, ", "))
		if err != nil {
			return err
		}
		fmt.Printf("%-24s %12s %12s  %s\n", t.name, thousands(inLake.rows), thousands(inTable.rows), mark(inLake == inTable, &wrong))
	}
	return verdict(wrong, "tables are not the same in the lake and in the database")
}

// sum is a count of rows and a checksum that does not depend on their order.
type sum struct {
	rows  int64
	check uint64
}

func (s *sum) add(values []string) {
	h := sha256.Sum256([]byte(strings.Join(values, "\x00")))
	s.rows++
	s.check += binary.LittleEndian.Uint64(h[:])
}

func sumOfLake(ctx context.Context, place bucket.Bucket, url, name string, columns []string) (s sum, err error) {
	folder := "public/" + name + "/metadata/"
	hint, err := bucket.ReadAll(ctx, place, folder+"version-hint.text", 100)
	if err != nil {
		return s, err
	}
	location := url + "/" + folder + "v" + strings.TrimSpace(string(hint)) + ".metadata.json"
	t, err := table.NewFromLocation(ctx, catalog.ToIdentifier("public", name), location, iceio.LoadFSFunc(nil, location), nil)
	if err != nil {
		return s, err
	}
	_, records, err := t.Scan(table.WithSelectedFields(columns...)).ToArrowRecords(ctx)
	if err != nil {
		return s, err
	}
	for rec, err := range records {
		if err != nil {
			return s, err
		}
		if err := s.addRecord(rec, columns); err != nil {
			return s, err
		}
		rec.Release()
	}
	return s, nil
}

func (s *sum) addRecord(rec arrow.RecordBatch, columns []string) error {
	at := make([]arrow.Array, len(columns))
	for i, name := range columns {
		found := rec.Schema().FieldIndices(name)
		if len(found) != 1 {
			return fmt.Errorf("the lake's table has no column %s", name)
		}
		at[i] = rec.Column(found[0])
	}
	values := make([]string, len(columns))
	for row := range int(rec.NumRows()) {
		for i, a := range at {
			values[i] = a.ValueStr(row)
			if d, ok := a.(*array.Decimal128); ok && d.IsValid(row) { // with all decimals, as PostgreSQL writes it
				values[i] = d.Value(row).ToString(d.DataType().(*arrow.Decimal128Type).Scale)
			}
		}
		s.add(values)
	}
	return nil
}

func sumOfTable(ctx context.Context, conn *pgx.Conn, name string, columns []string) (s sum, err error) {
	texts := make([]string, len(columns))
	for i, c := range columns {
		texts[i] = "coalesce(" + c + "::text, '(null)')"
	}
	rows, err := conn.Query(ctx, "SELECT ARRAY["+strings.Join(texts, ", ")+"] FROM "+name)
	if err != nil {
		return s, err
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[[]string])
	for _, v := range values {
		s.add(v)
	}
	return s, err
}
