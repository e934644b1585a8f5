package testlab

import (
	"context"
	"encoding/base64"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
)

// Azure is a container of the test's own on azurite.
type Azure struct {
	Endpoint  string // http://127.0.0.1:port/account
	Account   string
	Key       string // base64, as Azure writes it
	Container string
}

type azurite struct {
	port int
	key  string
}

const azuriteAccount = "labaccount"

// Azurite returns a fresh container on the azurite that the tests of this process share.
func Azurite(t testing.TB) Azure {
	t.Helper()
	server, err := sharedAzurite()
	need(t, err)
	a := Azure{
		Endpoint: "http://" + address(server.port) + "/" + azuriteAccount, Account: azuriteAccount,
		Key: server.key, Container: unique(t, "-"),
	}
	_, err = a.Client(t).CreateContainer(context.Background(), a.Container, nil)
	need(t, err)
	return a
}

// Client is a plain SDK client, past the code under test.
func (a Azure) Client(t testing.TB) *azblob.Client {
	t.Helper()
	key, err := azblob.NewSharedKeyCredential(a.Account, a.Key)
	need(t, err)
	client, err := azblob.NewClientWithSharedKeyCredential(a.Endpoint+"/", key, nil)
	need(t, err)
	return client
}

// Env is the store in the variables that gocloud.dev reads, for a child process.
func (a Azure) Env() []string {
	host := strings.TrimSuffix(strings.TrimPrefix(a.Endpoint, "http://"), "/"+a.Account)
	return []string{
		"AZURE_STORAGE_ACCOUNT=" + a.Account, "AZURE_STORAGE_KEY=" + a.Key, "AZURE_STORAGE_PROTOCOL=http",
		"AZURE_STORAGE_IS_LOCAL_EMULATOR=true", "AZURE_STORAGE_DOMAIN=" + host,
	}
}

var sharedAzurite = sync.OnceValues(startAzurite)

func startAzurite() (*azurite, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, &notInstalled{"node", mendDeps}
	}
	program := filepath.Join(cacheDir(), "azurite", "node_modules", ".bin", "azurite-blob")
	if _, err := os.Stat(program); err != nil {
		return nil, &notInstalled{"azurite", mendDeps}
	}
	dir, err := scratch("azurite")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	a := &azurite{port: port, key: Secret(base64.StdEncoding.EncodeToString([]byte("lab-azure-key-of-this-process-01")))}
	cmd := exec.Command(node, program, "--inMemoryPersistence", "--blobHost", "127.0.0.1", "--blobPort", strconv.Itoa(port),
		"--skipApiVersionCheck", "--disableTelemetry")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + dir, "AZURITE_ACCOUNTS=" + azuriteAccount + ":" + a.key}
	c, err := start("azurite", filepath.Join(dir, "log"), cmd, nil, syscall.SIGKILL)
	if err != nil {
		return nil, err
	}
	onStop(func() { c.stop(syscall.SIGKILL) })
	return a, c.ready(func() error {
		conn, err := net.Dial("tcp", address(port))
		if err != nil {
			return err
		}
		return conn.Close()
	})
}
