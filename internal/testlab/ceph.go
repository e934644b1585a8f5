package testlab

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"text/template"
)

//go:embed ceph.conf.tmpl
var cephConf string

// ceph is a cluster of one monitor, one store in memory and one gateway. It needs no manager, no systemd, no
// block device and no root, and starts in about two seconds.
type ceph struct {
	FSID, Dir, Cert, Key   string
	MonPort, Port, TLSPort int

	conf   string
	store  Store
	tenant Keys // of a user of a tenant
}

// Ceph returns a fresh bucket on a Ceph gateway that the tests of this process share. Store.Stranger is a
// second user of it. SSE-KMS works with the key id "testkey-1".
func Ceph(t testing.TB) Store {
	t.Helper()
	c, err := sharedCeph()
	need(t, err)
	return c.store.withBucket(t)
}

// CephTLS is Ceph over https.
func CephTLS(t testing.TB) Store {
	t.Helper()
	c, err := sharedCeph()
	need(t, err)
	s := c.store
	s.Endpoint, s.CA = "https://"+address(c.TLSPort), c.Cert
	return s.withBucket(t)
}

// CephTenant is a fresh bucket of a user who belongs to a tenant, by its name with the tenant: tenant:bucket.
func CephTenant(t testing.TB) Store {
	t.Helper()
	c, err := sharedCeph()
	need(t, err)
	s := c.store.As(c.tenant).withBucket(t)
	s.Bucket = cephTenant + ":" + s.Bucket
	return s
}

const cephTenant = "acme"

var sharedCeph = sync.OnceValues(startCeph)

func startCeph() (*ceph, error) {
	for _, program := range []string{"ceph-mon", "ceph-osd", "radosgw", "ceph", "radosgw-admin", "monmaptool"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, &notInstalled{"Ceph", "apt-get install ceph-mon ceph-osd radosgw ceph-common, or " + mendDeps}
		}
	}
	c := &ceph{}
	for _, step := range []func() error{c.configure, c.startMonitor, c.startStore, c.startGateway, c.addUsers} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("ceph: %w", err)
		}
	}
	return c, nil
}

func (c *ceph) configure() (err error) {
	if c.Dir, err = scratch("ceph"); err != nil {
		return err
	}
	for _, sub := range []string{"mon", "osd", "rgw"} {
		if err := os.Mkdir(filepath.Join(c.Dir, sub), 0o755); err != nil {
			return err
		}
	}
	if c.Cert, c.Key, err = certify(c.Dir); err != nil {
		return err
	}
	for _, port := range []*int{&c.MonPort, &c.Port, &c.TLSPort} {
		if *port, err = freePort(); err != nil {
			return err
		}
	}
	c.FSID = uuid()
	var text bytes.Buffer
	if err := template.Must(template.New("ceph.conf").Parse(cephConf)).Execute(&text, c); err != nil {
		return err
	}
	c.conf = filepath.Join(c.Dir, "ceph.conf")
	return os.WriteFile(c.conf, text.Bytes(), 0o644)
}

func (c *ceph) startMonitor() error {
	// One keyring for all: radosgw does not start without keys, and the monitor's mkfs imports the lot.
	keyring, monmap := filepath.Join(c.Dir, "keyring"), filepath.Join(c.Dir, "monmap")
	commands := [][]string{{"ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *"}}
	for _, entity := range []string{"client.admin", "client.rgw", "osd.0"} {
		commands = append(commands, []string{
			"ceph-authtool", keyring, "--gen-key", "-n", entity,
			"--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *",
		})
	}
	commands = append(commands,
		// A map by hand: mkfs does not take a loopback address from `mon host`.
		[]string{"monmaptool", "--create", "--clobber", "--fsid", c.FSID, "--set-min-mon-release", "16", "--addv", "a", fmt.Sprintf("[v2:127.0.0.1:%d]", c.MonPort), monmap},
		[]string{"ceph-mon", "-c", c.conf, "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring},
	)
	for _, command := range commands {
		if err := c.run(command...); err != nil {
			return err
		}
	}
	mon, err := c.daemon("ceph-mon", "-i", "a")
	if err != nil {
		return err
	}
	return mon.ready(func() error {
		return c.run("ceph", "-c", c.conf, "--connect-timeout", "5", "mon", "stat")
	})
}

func (c *ceph) startStore() error {
	id := uuid()
	if err := c.run("ceph", "-c", c.conf, "osd", "new", id); err != nil {
		return err
	}
	if err := c.run("ceph-osd", "-c", c.conf, "-i", "0", "--mkfs", "--osd-uuid", id); err != nil {
		return err
	}
	_, err := c.daemon("ceph-osd", "-i", "0")
	return err
}

func (c *ceph) startGateway() error {
	rgw, err := c.daemon("radosgw", "-n", "client.rgw")
	if err != nil {
		return err
	}
	c.store = Store{Endpoint: "http://" + address(c.Port), Region: "default"}
	return rgw.ready(func() error {
		reply, err := http.Get(c.store.Endpoint)
		if err != nil {
			return err
		}
		if err := reply.Body.Close(); err != nil {
			return err
		}
		if reply.StatusCode != http.StatusOK {
			return errStillStarting
		}
		return nil
	})
}

func (c *ceph) addUsers() error {
	users := map[string]Keys{
		"owner":    {"labcephaccess0000001", Secret("lab-ceph-secret-0001-Rw3mQz")},
		"stranger": {"labcephaccess0000002", Secret("lab-ceph-secret-0002-Hb7nYt")},
	}
	for name, keys := range users {
		if err := c.run("radosgw-admin", "-c", c.conf, "user", "create", "--uid="+name, "--display-name="+name,
			"--access-key="+keys.AccessKey, "--secret="+keys.SecretKey); err != nil {
			return err
		}
	}
	c.tenant = Keys{"labcephaccess0000003", Secret("lab-ceph-secret-0003-Kd5vPs")}
	if err := c.run("radosgw-admin", "-c", c.conf, "user", "create", "--tenant="+cephTenant, "--uid=owner", "--display-name=owner",
		"--access-key="+c.tenant.AccessKey, "--secret="+c.tenant.SecretKey); err != nil {
		return err
	}
	c.store = c.store.As(users["owner"])
	c.store.Stranger = users["stranger"]
	return nil
}

// daemon starts a part in the foreground. Its store is in memory, so there is nothing to save: it is killed.
func (c *ceph) daemon(program string, args ...string) (*child, error) {
	cmd := exec.Command(program, append(args, "-c", c.conf, "-f")...)
	d, err := start(program, filepath.Join(c.Dir, program+".out"), cmd, nil, syscall.SIGKILL)
	if err != nil {
		return nil, err
	}
	onStop(func() { d.stop(syscall.SIGKILL) })
	return d, nil
}

// run runs a command to its end. Ceph's tools wait for ever for a cluster that is stuck: we do not.
func (c *ceph) run(command ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", command[0], err, bytes.TrimSpace(out))
	}
	return nil
}

// uuid is a random UUID (RFC 9562, version 4).
func uuid() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
