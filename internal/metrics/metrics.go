package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// Options steer what is counted.
type Options struct {
	Pipeline string // label of every metric
	// MaxTables is how many tables get a label of their own; what further ones do is counted under "other". 0 is 500; below 0
	// no table does.
	MaxTables int
}

// Metrics are the numbers of one pipeline. Its methods may be called from several goroutines.
type Metrics struct {
	registry *prometheus.Registry

	mu     sync.Mutex
	max    int
	tables map[string]bool

	rows, commits, files, deletes, bytes, failures, retries *prometheus.CounterVec
	special                                                 *prometheus.CounterVec
	copyDone, copyTotal, tableLag, phase                    *prometheus.GaugeVec
	lagBytes, lagSeconds, position, logEnd                  prometheus.Gauge
	spool, spoolLimit, retained, safe, lastCommit           prometheus.Gauge
	lastProgress, streaming, leaseEpoch                     prometheus.Gauge
	transactions, logRead                                   prometheus.Counter
	commitSeconds                                           prometheus.Histogram
}

// New makes a registry of its own: nothing that another library registers shows up.
func New(o Options) *Metrics {
	if o.MaxTables == 0 {
		o.MaxTables = 500
	}
	m := &Metrics{registry: prometheus.NewRegistry(), max: o.MaxTables, tables: map[string]bool{}}
	reg := prometheus.WrapRegistererWith(prometheus.Labels{"pipeline": fault.Printable(o.Pipeline)}, m.registry)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "leat_" + name, Help: help}, labels)
		reg.MustRegister(v)
		return v
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "leat_" + name, Help: help}, labels)
		reg.MustRegister(v)
		return v
	}
	gauge := func(name, help string) prometheus.Gauge { return gauges(name, help).WithLabelValues() }
	m.rows = counter("rows_total", "Rows written to the lake, by table and operation (r copied, c, u, d, t).", "table", "op")
	m.commits = counter("commits_total", "Commits to the lake.", "table")
	m.files = counter("files_total", "Data files written.", "table")
	m.deletes = counter("deletes_total", "Rows of earlier data files that deletes have hidden.", "table")
	m.bytes = counter("written_bytes_total", "Bytes of data files written.", "table")
	m.special = counter("special_values_total", "Values that their typed column cannot carry and whose exact text stands in _leat_special.", "table")
	m.failures = counter("errors_total", "Errors, by code (docs/errors.md).", "code")
	m.retries = counter("retries_total", "Attempts that followed an error that can heal, by code.", "code")
	m.copyDone = gauges("copy_chunks_done", "Chunks of the running copy that are in the lake.", "table")
	m.copyTotal = gauges("copy_chunks", "Chunks that the running copy has.", "table")
	m.tableLag = gauges("table_position_bytes", "Position of the table in the log, as a number of bytes.", "table")
	m.phase = gauges("tables", "Tables in each phase.", "phase")
	m.lagBytes = gauge("lag_bytes", "Bytes of the log that the lake does not hold yet.")
	m.lagSeconds = gauge("lag_seconds", "Age of the oldest commit that the lake does not hold yet, 0 when it holds all.")
	m.position = gauge("position_bytes", "Position of the pipeline in the log, as a number of bytes.")
	m.logEnd = gauge("log_end_bytes", "End of the server's log, as a number of bytes.")
	m.spool = gauge("spool_bytes", "Bytes in the spool.")
	m.spoolLimit = gauge("spool_limit_bytes", "Bytes that the spool may have, 0 without a limit.")
	m.retained = gauge("slot_retained_bytes", "Bytes of log that the server keeps because of the slot.")
	m.safe = gauge("slot_safe_wal_bytes", "Bytes of log that may be written before the slot can be lost; -1 without a limit.")
	m.lastCommit = gauge("last_commit_timestamp_seconds", "When the lake was last committed to.")
	m.lastProgress = gauge("last_progress_timestamp_seconds", "When the log last told anything, be it that nothing happened.")
	m.streaming = gauge("streaming", "Whether the log is being followed (1) or not (0).")
	m.leaseEpoch = gauge("lease_epoch", "How many owners the pipeline has had.")
	m.transactions = counter("transactions_total", "Transactions read from the log.").WithLabelValues()
	m.logRead = counter("log_read_bytes_total", "Bytes of messages read from the log.").WithLabelValues()
	m.commitSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "leat_commit_seconds", Help: "Seconds that a commit of all tables takes.", Buckets: prometheus.ExponentialBuckets(0.01, 2, 14),
	})
	reg.MustRegister(m.commitSeconds)
	m.safe.Set(-1)
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// table is the label of a table, of which there are not too many. Names come from data: a label that is no UTF-8 would be a panic.
func (m *Metrics) table(name string) string {
	name = fault.Printable(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.max < 0:
		return "all"
	case m.tables[name]:
		return name
	case len(m.tables) < m.max:
		m.tables[name] = true
		return name
	}
	return "other"
}

// Rows counts rows that were written. It is meant for batches, not for each row.
func (m *Metrics) Rows(table string, op change.Op, n int) {
	if n > 0 {
		m.rows.WithLabelValues(m.table(table), op.String()).Add(float64(n))
	}
}

// Special counts values that went aside.
func (m *Metrics) Special(table string, n int64) {
	m.special.WithLabelValues(m.table(table)).Add(float64(n))
}

// TableCommitted counts a commit of one table.
func (m *Metrics) TableCommitted(table string, files, deletes int, bytes int64, position change.LSN) {
	label := m.table(table)
	m.commits.WithLabelValues(label).Inc()
	m.files.WithLabelValues(label).Add(float64(files))
	m.deletes.WithLabelValues(label).Add(float64(deletes))
	m.bytes.WithLabelValues(label).Add(float64(bytes))
	if label == fault.Printable(table) {
		m.tableLag.WithLabelValues(label).Set(float64(position))
	}
}

// Committed notes that all tables are committed up to a position.
func (m *Metrics) Committed(position change.LSN, at time.Time, took time.Duration) {
	m.position.Set(float64(position))
	m.lastCommit.Set(seconds(at))
	m.commitSeconds.Observe(took.Seconds())
}

// Read counts what came from the log.
func (m *Metrics) Read(transactions int, bytes int64, at time.Time) {
	m.transactions.Add(float64(transactions))
	m.logRead.Add(float64(bytes))
	m.lastProgress.Set(seconds(at))
}

// Lag sets how far the lake is behind. Age is that of the oldest commit it lacks, 0 when it lacks none.
func (m *Metrics) Lag(end, position change.LSN, age time.Duration) {
	m.logEnd.Set(float64(end))
	m.position.Set(float64(position))
	m.lagBytes.Set(float64(max(end, position) - position))
	m.lagSeconds.Set(age.Seconds())
}

// Slot sets what the slot costs the server; safe is -1 where it is unknown or without limit.
func (m *Metrics) Slot(retained, safe int64) {
	m.retained.Set(float64(retained))
	m.safe.Set(float64(safe))
}

// Spool sets the spool's size and limit.
func (m *Metrics) Spool(bytes, limit int64) {
	m.spool.Set(float64(bytes))
	m.spoolLimit.Set(float64(limit))
}

// Epoch sets the epoch of the lease.
func (m *Metrics) Epoch(n int64) { m.leaseEpoch.Set(float64(n)) }

// Streaming sets whether the log is being followed.
func (m *Metrics) Streaming(yes bool) {
	m.streaming.Set(0)
	if yes {
		m.streaming.Set(1)
	}
}

// Phases sets how many tables are in each phase; phases that are not named are gone.
func (m *Metrics) Phases(count map[string]int) {
	m.phase.Reset()
	for phase, n := range count {
		m.phase.WithLabelValues(phase).Set(float64(n))
	}
}

// Copy sets how far the copy of a table is.
func (m *Metrics) Copy(table string, done, total int) {
	if label := m.table(table); label == fault.Printable(table) {
		m.copyDone.WithLabelValues(label).Set(float64(done))
		m.copyTotal.WithLabelValues(label).Set(float64(total))
	}
}

// CopyEnded forgets a table's copy.
func (m *Metrics) CopyEnded(table string) {
	label := fault.Printable(table)
	m.copyDone.DeleteLabelValues(label)
	m.copyTotal.DeleteLabelValues(label)
}

// Failed counts an error, and that it is tried again.
func (m *Metrics) Failed(err error, again bool) {
	if err == nil {
		return
	}
	code := fault.Internal
	if f := fault.Of(err); f != nil {
		code = f.Code
	}
	m.failures.WithLabelValues(string(code)).Inc()
	if again {
		m.retries.WithLabelValues(string(code)).Inc()
	}
}

func seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }
