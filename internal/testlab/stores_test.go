package testlab_test

import (
	"context"
	"io"
	"net/http"
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

func TestGCSServesOverItsOwnAddress(t *testing.T) {
	t.Parallel()
	store := testlab.GCS(t)
	reply, err := http.Get(store.Endpoint + "/storage/v1/b/" + store.Bucket)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	if body, _ := io.ReadAll(reply.Body); reply.StatusCode != http.StatusOK {
		t.Errorf("the bucket is not there: %s %s", reply.Status, body)
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
