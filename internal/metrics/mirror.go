package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/leatdata/leat/internal/fault"
)

// Mirror are the numbers of a mirror that runs again and again.
type Mirror struct {
	registry *prometheus.Registry
	runs     *prometheus.CounterVec
	success  prometheus.Gauge

	mu   sync.Mutex
	last error // of the last run
	ran  bool
}

// NewMirror makes a registry of its own.
func NewMirror(name string) *Mirror {
	m := &Mirror{registry: prometheus.NewRegistry()}
	reg := prometheus.WrapRegistererWith(prometheus.Labels{"mirror": fault.Printable(name)}, m.registry)
	m.runs = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "leat_mirror_runs_total", Help: "Runs, by how they ended: ok, or the code of docs/errors.md."}, []string{"code"})
	m.success = prometheus.NewGauge(prometheus.GaugeOpts{Name: "leat_mirror_last_success_timestamp_seconds", Help: "When the far side last had everything."})
	reg.MustRegister(m.runs, m.success)
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Ran counts a run.
func (m *Mirror) Ran(err error, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ran, m.last = true, err
	if err == nil {
		m.runs.WithLabelValues("ok").Inc()
		m.success.Set(seconds(at))
		return
	}
	code := fault.Internal
	if f := fault.Of(err); f != nil {
		code = f.Code
	}
	m.runs.WithLabelValues(string(code)).Inc()
}

// Ready says why the far side may lack something, nil when it does not.
func (m *Mirror) Ready() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ran {
		return fault.New(fault.MirrorIncomplete, "", "the first run has not ended")
	}
	return m.last
}

// Serve begins to listen; see [Metrics.Serve].
func (m *Mirror) Serve(o ServerOptions) (*Server, error) { return serve(m.registry, o) }
