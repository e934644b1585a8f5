package fault_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/fault"
)

func work(log *slog.Logger, do func() error) (err error) {
	defer fault.Catch(&err, log, "public.orders")
	return do()
}

func TestAPanicBecomesAnErrorOfItsPlace(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var none []int
	err := work(log, func() error { _ = none[len(none)]; return nil })
	if !fault.Is(err, fault.Internal) || !strings.Contains(err.Error(), "public.orders: ") || !strings.Contains(err.Error(), "index out of range") {
		t.Errorf("the panic became: %v", err)
	}
	if !strings.Contains(out.String(), "catch_test.go") {
		t.Errorf("the debug log has no stack: %s", out.String())
	}
	if err := work(nil, func() error { panic("no log") }); !fault.Is(err, fault.Internal) {
		t.Errorf("without a log the panic became: %v", err)
	}
	done := make(chan error)
	go func() { done <- fault.Catching(nil, "public.orders", func() error { panic("elsewhere") })() }()
	if err := fault.Wrap(<-done, fault.Internal, "", "the table failed"); !fault.Panicked(err) || fault.Panicked(fault.New(fault.Internal, "", "a bug")) {
		t.Errorf("a goroutine's panic became: %v", err)
	}
}

func TestWithoutAPanicAnErrorStaysWhatItIs(t *testing.T) {
	t.Parallel()
	own := errors.New("its own")
	if err := work(nil, func() error { return own }); !errors.Is(err, own) {
		t.Errorf("the error became %v", err)
	}
	if err := work(nil, func() error { return nil }); err != nil {
		t.Errorf("an error from nothing: %v", err)
	}
}
