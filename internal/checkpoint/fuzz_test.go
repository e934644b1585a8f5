package checkpoint_test

import (
	"context"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/checkpoint"
	"github.com/leatdata/leat/internal/fault"
)

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"version":1,"position":"0/5","tables":{"7":{"phase":"streaming","oid":7,"leaves":[1],"truncated":[3]}},"control":{"paused":true,"done":["x"]}}`),
		[]byte(`{"version":1,"owner":"o","epoch":3,"host":"h","pid":4,"ttl":30000000000}`))
	f.Add([]byte(`{"version":1,"tables":null}`), []byte(`{"version":1,"epoch":-1,"ttl":-1}`))
	b, err := bucket.Open(context.Background(), "mem://", bucket.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, state, lease []byte) {
		for key, data := range map[string][]byte{"p/state.json": state, "p/lease.json": lease} {
			if _, err := bucket.WriteAll(t.Context(), b, key, data, bucket.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		s, l, err := checkpoint.Read(t.Context(), b, "p")
		if err != nil {
			if fault.Of(err) == nil {
				t.Errorf("an error that is no fault: %v", err)
			}
			return
		}
		if s.Version > checkpoint.Version || l.Version > checkpoint.Version {
			t.Errorf("a state of version %d and a lease of version %d are read", s.Version, l.Version)
		}
	})
}
