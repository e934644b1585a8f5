package testlab

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
)

// GlueServer is moto's AWS Glue: a server that is not ours and speaks Glue's protocol.
type GlueServer struct{ Endpoint string }

// Glue returns the Glue that the tests of this process share. Its tables live as long as the process: tests keep apart by
// namespaces of their own.
func Glue(t testing.TB) GlueServer {
	t.Helper()
	python := Python(t)
	oneGlue.Do(func() { sharedGlue.GlueServer, sharedGlue.err = startGlue(python) })
	need(t, sharedGlue.err)
	return sharedGlue.GlueServer
}

var (
	oneGlue    sync.Once
	sharedGlue struct {
		GlueServer
		err error
	}
)

// Env lets leat reach the server, which takes any keys.
func (GlueServer) Env() []string {
	return []string{"AWS_ACCESS_KEY_ID=glue", "AWS_SECRET_ACCESS_KEY=any", "AWS_REGION=us-east-1"}
}

// PyIcebergSettings let PyIceberg read the server's tables.
func (g GlueServer) PyIcebergSettings() map[string]string {
	return map[string]string{
		"type": "glue", "glue.endpoint": g.Endpoint, "glue.region": "us-east-1", "glue.access-key-id": "glue", "glue.secret-access-key": "any",
	}
}

func startGlue(python string) (GlueServer, error) {
	port, err := freePort()
	if err != nil {
		return GlueServer{}, err
	}
	dir, err := scratch("glue")
	if err != nil {
		return GlueServer{}, err
	}
	cmd := exec.Command(python, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", strconv.Itoa(port))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LANG=C.UTF-8"}
	c, err := start("Glue", filepath.Join(dir, "log"), cmd, nil, syscall.SIGKILL)
	if err != nil {
		return GlueServer{}, err
	}
	onStop(func() { c.stop(syscall.SIGKILL) })
	g := GlueServer{Endpoint: "http://" + address(port)}
	return g, c.ready(func() error {
		reply, err := http.Get(g.Endpoint + "/moto-api/")
		if err != nil {
			return err
		}
		reply.Body.Close()
		if reply.StatusCode != http.StatusOK {
			return errStillStarting
		}
		return nil
	})
}
