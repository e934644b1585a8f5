package gcslab_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/leatdata/leat/internal/testlab/gcslab"
)

func TestGCSServesOverItsOwnAddress(t *testing.T) {
	t.Parallel()
	store := gcslab.Start(t)
	reply, err := http.Get(store.Endpoint + "/storage/v1/b/" + store.Bucket)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	if body, _ := io.ReadAll(reply.Body); reply.StatusCode != http.StatusOK {
		t.Errorf("the bucket is not there: %s %s", reply.Status, body)
	}
}
