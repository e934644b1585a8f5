package dump_test

import (
	"context"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/fault"
)

func FuzzManifestOfADump(f *testing.F) {
	f.Add([]byte(`{"format_version":1,"leat_version":"dev","id":"x","folder":"2020-01-01","tables":[{"schema":"public","name":"a","rows":1,"bytes":2,
		"columns":[{"name":"id","attnum":1,"type":"integer"}],"files":[{"key":"2020-01-01/a","rows":1,"bytes":2,"sha256":"00","chunks":[{"from_page":0,"to_page":0}]}]}],
		"totals":{"tables":1},"snapshot":{"lsn":"0/5","lsn_exact":true,"time":"2020-01-01T00:00:00Z"}}`))
	f.Add([]byte(`{"format_version":1,"tables":[null,{"files":[null,{"bytes":-1}]}]}`))
	b, err := bucket.Open(context.Background(), "mem://", bucket.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := bucket.WriteAll(t.Context(), b, dump.ManifestKey("d"), data, bucket.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		m, err := dump.ReadManifest(t.Context(), b, "d")
		if err != nil {
			if fault.Of(err) == nil {
				t.Errorf("an error that is no fault: %v", err)
			}
			return
		}
		for _, table := range m.Tables {
			for _, file := range table.Files {
				if file.Bytes < 0 || file.Rows < 0 {
					t.Errorf("a file of %d bytes and %d rows is taken", file.Bytes, file.Rows)
				}
			}
		}
	})
}
