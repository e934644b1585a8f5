package config_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/leatdata/leat/internal/config"
	"github.com/leatdata/leat/internal/fault"
)

func TestAddressesBecomeConnectionStrings(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"postgres://app@db/shop":                              `user='app' host='db' dbname='shop' sslmode='require'`,
		"postgresql://app@db:5433/shop?sslmode=disable":       `user='app' port='5433' host='db' dbname='shop' sslmode='disable'`,
		"postgres://db?ssl=true":                              `host='db' sslmode='require'`,
		"postgres://a:5433,b,[::1]:5434/shop":                 `port='5433,,5434' host='a,b,::1' dbname='shop' sslmode='require'`,
		"postgres://[2001:db8::1]/shop":                       `host='2001:db8::1' dbname='shop' sslmode='require'`,
		"postgres:///shop?host=/run/postgresql":               `dbname='shop' host='/run/postgresql' sslmode='prefer'`,
		"postgres://%2Frun%2Fpostgresql/shop":                 `host='/run/postgresql' dbname='shop' sslmode='prefer'`,
		"postgres://o%27brien%40x@localhost/a%20b":            `user='o\'brien@x' host='localhost' dbname='a b' sslmode='prefer'`,
		"host=db  dbname = 'my \\'shop\\\\' user=a\\ b":       `host='db' dbname='my \'shop\\' user='a b' sslmode='require'`,
		"database=shop host=127.0.0.1 host=127.0.0.9":         `dbname='shop' host='127.0.0.9' sslmode='prefer'`,
		"postgres://db/shop?options=-c%20search_path%3Dsales": `host='db' dbname='shop' options='-c search_path=sales' sslmode='require'`,
		"postgres://${env:AT}@${env:HOST}:${env:PORT}/shop":   `user='a@b/c?d' port='5433' host='db' dbname='shop' sslmode='require'`,
		"postgres://app:${env:AT}@localhost/shop":             `user='app' host='localhost' dbname='shop' sslmode='prefer'`,
		"": `sslmode='prefer'`,
	} {
		got, err := load(t, "", []config.Override{flagged("from.url", address)}, "AT", "a@b/c?d", "HOST", "db", "PORT", "5433").From.ConnString()
		if err != nil || got != want {
			t.Errorf("%s\n got %s, %v\nwant %s", address, got, err, want)
		}
	}
}

func TestTLSIsRequiredOffLoopbackUnlessSomebodySaysOtherwise(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	services := "[far]\nhost=db.example.com\n# [near]\n[near]\nhost = localhost\n[settled]\nhost=db\nsslmode=verify-ca\n"
	if err := os.WriteFile(filepath.Join(dir, ".pg_service.conf"), []byte(services), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file string
		env  []string
		want config.SSLMode
	}{
		"nothing said":                {"", nil, "prefer"},
		"host in PGHOST":              {"", []string{"PGHOST", "db"}, "require"},
		"loopback in PGHOST":          {"", []string{"PGHOST", "127.0.0.5"}, "prefer"},
		"IPv6 loopback":               {"", []string{"PGHOST", "::1"}, "prefer"},
		"socket in PGHOST":            {"", []string{"PGHOST", "/run/postgresql"}, "prefer"},
		"abstract socket":             {"", []string{"PGHOST", "@pg"}, "prefer"},
		"one of two hosts is far":     {"from: postgres://localhost,db/shop", nil, "require"},
		"a host that begins like one": {"from: postgres://localhost.example.com/shop", nil, "require"},
		"address over PGHOST":         {"from: postgres://localhost/shop", []string{"PGHOST", "db"}, "prefer"},
		"PGSSLMODE":                   {"from: postgres://db/shop", []string{"PGSSLMODE", "disable"}, ""},
		"key over PGSSLMODE":          {"from: {url: postgres://db/shop, sslmode: verify-full}", []string{"PGSSLMODE", "disable"}, "verify-full"},
		"in the address":              {"from: postgres://db/shop?sslmode=allow", nil, ""},
		"system certificates":         {"from: {url: postgres://db/shop, sslrootcert: system}", nil, ""},
		"service with a far host":     {"", []string{"HOME", dir, "PGSERVICE", "far"}, "require"},
		"service with a near host":    {"", []string{"HOME", dir, "PGSERVICE", "near"}, "prefer"},
		"service over PGHOST":         {"", []string{"HOME", dir, "PGSERVICE", "near", "PGHOST", "db"}, "prefer"},
		"service with an sslmode":     {"from: service=settled", []string{"PGSERVICEFILE", filepath.Join(dir, ".pg_service.conf")}, ""},
		"service nobody has":          {"", []string{"HOME", dir, "PGSERVICE", "none", "PGHOST", "db"}, "require"},
		"IAM token, even on loopback": {"from: {url: postgres://localhost/shop, iam: eu-west-1}", nil, "require"},
	} {
		if got := load(t, c.file, nil, c.env...).From.SSLMode; got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestAnIAMTokenNeverGoesInTheClear(t *testing.T) {
	t.Parallel()
	_, err := config.Parse("leat.yaml", []byte("from: {url: postgres://db/shop, iam: true}"), config.LoadOptions{Env: env("PGSSLMODE", "disable")})
	if !fault.Is(err, fault.ConfigInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestTheApplicationsNameComesFromKeyThenAddressThenDefault(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{
		"from: postgres://db/shop":                                                          "leat",
		"from: postgres://db/shop?application_name=nightly":                                 "nightly",
		"from: {url: 'postgres://db/shop?application_name=nightly', application_name: own}": "own",
	} {
		if got := load(t, file, nil).From.ApplicationName; got != want {
			t.Errorf("%s: got %s, want %s", file, got, want)
		}
	}
}

func TestAChangedConfigIsCheckedAgain(t *testing.T) {
	t.Parallel()
	for _, change := range []func(c *config.Config){
		func(c *config.Config) { c.From.URL = "postgres://app:" + password + "@db/shop" },
		func(c *config.Config) { c.From.URL = "nonsense" },
		func(c *config.Config) { c.To.URL = "ftp://x" },
		func(c *config.Config) { c.Dump.FileSize = 0 },
		func(c *config.Config) { c.To.SessionToken = config.NewSecret(password) },
	} {
		c := config.Default()
		change(c)
		if err := c.Validate(); fault.Of(err) == nil {
			t.Errorf("got %v, want a fault", err)
		}
	}
}
