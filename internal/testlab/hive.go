package testlab

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/beltran/gohive"
	"github.com/beltran/gohive/hive_metastore"
)

// HiveServer is a Hive metastore. It makes the folders of its tables itself, so they must lie in a folder, not in a bucket.
type HiveServer struct {
	URI     string // thrift://127.0.0.1:port
	Address string // 127.0.0.1:port
}

// Hive returns the metastore that the tests of this process share. Its tables live as long as the process: tests keep apart by
// namespaces of their own.
func Hive(t testing.TB) HiveServer {
	t.Helper()
	h, err := sharedHive()
	need(t, err)
	return h
}

// PyIcebergSettings let PyIceberg read the server's tables.
func (h HiveServer) PyIcebergSettings() map[string]string {
	return map[string]string{"type": "hive", "uri": h.URI}
}

var sharedHive = sync.OnceValues(startHive)

func startHive() (HiveServer, error) {
	home := filepath.Join(cacheDir(), "hive")
	if _, err := os.Stat(filepath.Join(home, "VERSION")); err != nil {
		return HiveServer{}, &notInstalled{"Hive's metastore", mendDeps}
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return HiveServer{}, &notInstalled{"java", mendDeps}
	}
	port, err := freePort()
	if err != nil {
		return HiveServer{}, err
	}
	dir, err := scratch("hive")
	if err != nil {
		return HiveServer{}, err
	}
	if err := writeHiveSettings(dir); err != nil {
		return HiveServer{}, err
	}
	cmd := exec.Command(java, "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", dir+":"+filepath.Join(home, "jars", "*"),
		"org.apache.hadoop.hive.metastore.HiveMetaStore", "-p", strconv.Itoa(port))
	cmd.Dir = dir // of Derby's log
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LANG=C.UTF-8"}
	c, err := start("Hive", filepath.Join(dir, "log"), cmd, nil, syscall.SIGKILL)
	if err != nil {
		return HiveServer{}, err
	}
	onStop(func() { c.stop(syscall.SIGKILL) })
	h := HiveServer{URI: "thrift://" + address(port), Address: address(port)}
	return h, c.ready(func() error {
		conn, err := net.Dial("tcp", h.Address)
		if err != nil {
			return err
		}
		_ = conn.Close() // it has served
		return firstLock(port)
	})
}

// firstLock lets the metastore make the tables of its locks. Several who ask at once while there are none get errors.
func firstLock(port int) error {
	how := gohive.NewMetastoreConnectConfiguration()
	how.TransportMode = "binary"
	c, err := gohive.ConnectToMetastore("127.0.0.1", port, "NOSASL", how)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, done := context.WithTimeout(context.Background(), patience)
	defer done()
	lock, err := c.Client.Lock(ctx, &hive_metastore.LockRequest{User: "lab", Hostname: "lab", Component: []*hive_metastore.LockComponent{
		{Type: hive_metastore.LockType_EXCLUSIVE, Level: hive_metastore.LockLevel_TABLE, Dbname: "lab", Tablename: new("first")},
	}})
	if err != nil {
		return err
	}
	return c.Client.Unlock(ctx, &hive_metastore.UnlockRequest{Lockid: lock.Lockid})
}

// writeHiveSettings writes the file that the metastore looks for in its class path. Its database lives in its memory.
func writeHiveSettings(dir string) error {
	settings := []string{
		"javax.jdo.option.ConnectionURL", "jdbc:derby:memory:hive;create=true",
		"javax.jdo.option.ConnectionDriverName", "org.apache.derby.jdbc.EmbeddedDriver",
		"metastore.warehouse.dir", "file://" + filepath.Join(dir, "warehouse"),
		"metastore.thrift.bind.host", "127.0.0.1",
		"metastore.schema.verification", "false", "datanucleus.schema.autoCreateAll", "true", // there is no schema to begin with
		"hive.in.test", "true", // makes the tables of locks
		// What else would need the rest of Hive.
		"metastore.expression.proxy", "org.apache.hadoop.hive.metastore.DefaultPartitionExpressionProxy",
		"metastore.task.threads.always", "org.apache.hadoop.hive.metastore.events.EventCleanerTask",
		"metastore.event.db.notification.api.auth", "false", "metastore.execute.setugi", "false",
		"metastore.try.direct.sql", "false", "metastore.client.capability.check", "false",
	}
	var page strings.Builder
	page.WriteString("<configuration>\n")
	for i := 0; i < len(settings); i += 2 {
		fmt.Fprintf(&page, "<property><name>%s</name><value>%s</value></property>\n", settings[i], settings[i+1])
	}
	page.WriteString("</configuration>\n")
	if err := os.WriteFile(filepath.Join(dir, "metastore-site.xml"), []byte(page.String()), 0o644); err != nil {
		return fmt.Errorf("settings of Hive: %w", err)
	}
	return nil
}
