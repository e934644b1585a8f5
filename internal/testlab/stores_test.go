package testlab_test

import (
	"context"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

func TestAzuriteKeepsWhatIsPut(t *testing.T) {
	t.Parallel()
	store, other := testlab.Azurite(t), testlab.Azurite(t)
	if store.Container == other.Container {
		t.Error("two tests share a container")
	}
	ctx := context.Background()
	if _, err := store.Client(t).UploadBuffer(ctx, store.Container, "a/b.txt", []byte("some text"), nil); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len("some text"))
	if _, err := store.Client(t).DownloadBuffer(ctx, store.Container, "a/b.txt", got, nil); err != nil {
		t.Fatal(err)
	}
	if string(got) != "some text" {
		t.Errorf("the blob holds %q", got)
	}
}

func TestPythonReadsWithEveryLibrary(t *testing.T) {
	t.Parallel()
	for range 2 {
		out, told := testlab.RunPython(t, "import sys, pyarrow, duckdb, fastavro, pyiceberg; print(sys.argv[1]); print('ü', file=sys.stderr); sys.argv = None", "ä")
		if out != "ä\n" || told != "ü\n" {
			t.Errorf("it prints %q and %q", out, told)
		}
	}
}
