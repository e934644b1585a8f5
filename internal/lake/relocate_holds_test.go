package lake

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

func TestARelocationWritesNothingWhereAnotherKeyLies(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	if err := os.MkdirAll(filepath.Join(top, "releases"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("releases", filepath.Join(top, "t")); err != nil {
		t.Fatal(err)
	}
	m := &mover{Relocation: Relocation{To: openFolder(t, top)}}
	for name, write := range map[string]func(ctx context.Context, key string) error{
		"metadata": func(ctx context.Context, key string) error {
			return m.put(ctx, key, []byte("x"), bucket.WriteOptions{})
		},
		"position deletes": func(ctx context.Context, key string) error {
			_, err := m.writeStream(ctx, key, func(w io.Writer) error { _, err := w.Write([]byte("x")); return err })
			return err
		},
		"manifests": func(ctx context.Context, key string) error {
			_, err := m.writeAvroFile(ctx, key, &avroFile{}, nil, nil)
			return err
		},
	} {
		if err := write(t.Context(), "t/"+name); !fault.Is(err, fault.KeyRefused) {
			t.Errorf("%s: %v", name, err)
		}
		if err := write(t.Context(), "plain/"+name); err != nil {
			t.Errorf("%s elsewhere: %v", name, err)
		}
	}
	if left, err := os.ReadDir(filepath.Join(top, "releases")); err != nil || len(left) != 0 {
		t.Errorf("where the link leads there are %v, %v", left, err)
	}
}
