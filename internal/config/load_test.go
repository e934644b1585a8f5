package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/config"
	"github.com/leatdata/leat/internal/fault"
)

func flagged(key string, values ...string) config.Override {
	return config.Override{Key: key, Values: values, Flag: "--flag"}
}

func TestTheNearerLayerWins(t *testing.T) {
	t.Parallel()
	const file = "dump: {format: avro, tables: [in_file]}"
	for name, c := range map[string]struct {
		file   string
		env    []string
		flags  []config.Override
		format config.Format
		tables string
	}{
		"nothing":                      {"", nil, nil, "parquet", "[]"},
		"file":                         {file, nil, nil, "avro", "[in_file]"},
		"variable over file":           {file, []string{"LEAT_DUMP_FORMAT", "csv", "LEAT_DUMP_TABLES", `a,b "Odd, Name"`}, nil, "csv", `[a b "Odd, Name"]`},
		"flag over variable":           {file, []string{"LEAT_DUMP_FORMAT", "csv"}, []config.Override{flagged("dump.format", "jsonl"), flagged("dump.tables", "x", "y")}, "jsonl", "[x y]"},
		"the last flag":                {file, nil, []config.Override{flagged("dump.format", "jsonl"), flagged("dump.format", "csv")}, "csv", "[in_file]"},
		"the version has no variable":  {file, []string{"LEAT_VERSION", "v1.2.3"}, nil, "avro", "[in_file]"},
		"an empty variable is unset":   {file, []string{"LEAT_DUMP_FORMAT", ""}, nil, "avro", "[in_file]"},
		"TABLES without a file":        {"", []string{"TABLES", "a b"}, nil, "parquet", "[a b]"},
		"TABLES never over a file":     {"log: {level: warn}", []string{"TABLES", "a b"}, nil, "parquet", "[]"},
		"LEAT_DUMP_TABLES over TABLES": {"", []string{"TABLES", "a", "LEAT_DUMP_TABLES", "b"}, nil, "parquet", "[b]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := load(t, c.file, c.flags, c.env...)
			if got.Dump.Format != c.format || fmt.Sprint(got.Dump.Tables) != c.tables {
				t.Errorf("got %s of %v, want %s of %s", got.Dump.Format, got.Dump.Tables, c.format, c.tables)
			}
		})
	}
}

func TestTheEnvironmentAloneIsTheOldDumpJob(t *testing.T) {
	t.Parallel()
	c := load(t, "", nil, "S3_OUTPUT", "s3://bucket/path", "TABLES", "tally_snapshots subscription_capacity", "PGHOST", "postgresql", "S3_ENDPOINT", "https://ceph.example.com")
	if !c.DropIn || c.Dump.Format != config.FormatCSVGz || c.Dump.Layout != config.LayoutDate || c.Dump.CSVForm != config.CSVRole || len(c.Dump.Tables) != 2 || c.To.URL != "s3://bucket/path" || c.To.Endpoint != "https://ceph.example.com" {
		t.Errorf("got %+v", c)
	}
	if c := load(t, "", []config.Override{flagged("dump.format", "parquet")}, "S3_OUTPUT", "s3://b/p"); !c.DropIn || c.Dump.Format != config.FormatParquet || c.Dump.Layout != config.LayoutDate {
		t.Errorf("a flag must win over the old job's format: %+v", c.Dump)
	}
	if c := load(t, "", []config.Override{flagged("to.url", "s3://other")}, "S3_OUTPUT", "s3://b/p"); c.DropIn || c.Dump.Format != config.FormatParquet {
		t.Error("with a target of its own it is not the old job")
	}
	if c := load(t, "dump: {keep: 1}", nil, "S3_OUTPUT", "s3://b/p"); c.DropIn || c.To.URL != "" {
		t.Error("S3_OUTPUT must not reach into a file")
	}
}

func TestAmbientEndpointsCountForS3Only(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file string
		env  []string
		want string
	}{
		"S3_ENDPOINT first":       {"to: s3://b", []string{"AWS_ENDPOINT_URL", "https://aws", "S3_ENDPOINT", "https://s3"}, "https://s3"},
		"then the S3 one":         {"to: s3://b", []string{"AWS_ENDPOINT_URL", "https://aws", "AWS_ENDPOINT_URL_S3", "https://awss3"}, "https://awss3"},
		"then the general one":    {"to: s3://b", []string{"AWS_ENDPOINT_URL", "https://aws"}, "https://aws"},
		"the file over them":      {"to: {url: s3://b, endpoint: https://file}", []string{"S3_ENDPOINT", "https://s3"}, "https://file"},
		"not for Google":          {"to: gs://b", []string{"S3_ENDPOINT", "https://s3"}, ""},
		"not for a folder":        {"to: /srv/dumps", []string{"S3_ENDPOINT", "https://s3"}, ""},
		"also behind a reference": {"to: ${env:T}", []string{"T", "s3://b", "S3_ENDPOINT", "https://s3"}, "https://s3"},
	} {
		if got := load(t, c.file, nil, c.env...).To.Endpoint; got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestErrorsNameTheFlagOrVariable(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		flags []config.Override
		env   []string
		code  fault.Code
		want  string
	}{
		"flag":              {[]config.Override{{Key: "dump.format", Values: []string{"cvs"}, Flag: "--format"}}, nil, fault.ConfigInvalid, `dump.format (--format): "cvs" is not one of parquet, csv, csv.gz, jsonl, jsonl.gz, avro; did you mean csv?`},
		"variable":          {nil, []string{"LEAT_DUMP_KEEP", "x"}, fault.ConfigInvalid, `dump.keep (LEAT_DUMP_KEEP): "x" is not a whole number`},
		"open quote":        {nil, []string{"TABLES", `a "b`}, fault.ConfigInvalid, `dump.tables (TABLES): "a \"b" has a quote that does not end`},
		"unknown key":       {[]config.Override{{Key: "dump.formt", Values: []string{"csv"}, Flag: "--set"}}, nil, fault.ConfigUnknown, `dump.formt (--set): unknown key; did you mean dump.format?`},
		"table in the key":  {[]config.Override{{Key: "lake.partition_by.public.orders", Values: []string{"day(at)"}, Flag: "--set"}}, nil, fault.ConfigUnknown, `lake.partition_by.public.orders (--set): unknown key; did you mean lake.partition_by='public.orders = day(at)'?`},
		"several values":    {[]config.Override{{Key: "dump.format", Values: []string{"csv", "avro"}, Flag: "--format"}}, nil, fault.UsageInvalid, `dump.format (--format): takes one value, not 2`},
		"literal secret":    {[]config.Override{{Key: "from.password", Values: []string{password}, Flag: "--set"}}, nil, fault.ConfigInvalid, "from.password (--set): a secret is not written down here; give a reference: ${env:NAME} or ${file:/path}"},
		"url with password": {[]config.Override{{Key: "from.url", Values: []string{"postgres://a:" + password + "@db/x"}, Flag: "--from"}}, nil, fault.ConfigInvalid, "from.url (--from): a password does not belong in the address"},
		"no such file":      {nil, []string{"LEAT_CONFIG", "/nowhere/leat.yaml"}, fault.ConfigMissing, "/nowhere/leat.yaml: there is no such file: open /nowhere/leat.yaml: no such file or directory"},
		"a folder":          {nil, []string{"LEAT_CONFIG", "/"}, fault.ConfigInvalid, "/: the file cannot be read: read /: is a directory"},
	} {
		_, err := config.Load(config.LoadOptions{Env: env(c.env...), Overrides: c.flags})
		if fault.Of(err) == nil || fault.Of(err).Code != c.code || err.Error() != c.want {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
}

func TestSecretsComeFromFilesAndVariables(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(password+"\r\n\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file string
		env  []string
	}{
		"a file, its line break left out":    {"from: {password: '${file:" + path + "}'}", nil},
		"a variable":                         {"from: {password: '${env:X}'}", []string{"X", password}},
		"spaces around":                      {"from: {password: ' ${env:X} '}", []string{"X", password}},
		"leat's own variable":                {"", []string{"LEAT_FROM_PASSWORD", password}},
		"a reference in leat's own variable": {"", []string{"LEAT_FROM_PASSWORD", "${file:" + path + "}"}},
		"leat's own variable over the file":  {"from: {password: '${env:X}'}", []string{"X", "other", "LEAT_FROM_PASSWORD", password}},
		"the address in leat's own variable": {"", []string{"LEAT_FROM", "postgres://app:" + password + "@db/shop"}},
		"the query of such an address":       {"", []string{"LEAT_FROM_URL", "postgres://app@db/shop?password=" + password}},
	} {
		if got := load(t, c.file, nil, c.env...).From.Password.Reveal(); got != password {
			t.Errorf("%s: the password did not arrive", name)
		}
	}
}

func TestASecretOfAFileIsReadAgain(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(password + "\n")
	secret := load(t, "to: {access_key_id: '${env:X}', secret_access_key: '${env:X}', session_token: '${file:"+path+"}'}", nil, "X", password).To.SessionToken
	write("another\n")
	if now, err := secret.Again(); secret.Reveal() != password || now != "another" || err != nil {
		t.Errorf("it was another one, and then %d bytes: %v", len(now), err)
	}
	write("")
	if _, err := secret.Again(); !fault.Is(err, fault.SecretMissing) {
		t.Errorf("of an empty file: %v", err)
	}
	fixed := config.NewSecret(password)
	if now, err := fixed.Again(); now != password || err != nil {
		t.Errorf("one that cannot change: %v", err)
	}
}

func TestASecretWrittenIntoTheFileIsRefusedThoughAnotherLayerWins(t *testing.T) {
	t.Parallel()
	_, err := config.Parse("leat.yaml", []byte("from: {password: "+password+"}"), config.LoadOptions{Env: env("LEAT_FROM_PASSWORD", "other")})
	if !fault.Is(err, fault.ConfigInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestReferencesStandInAnyText(t *testing.T) {
	t.Parallel()
	c := load(t, "to: 's3://${env:BUCKET}/${env:TEAM}'\ndump: {tables: ['${env:SCHEMA}.*'], file_size: '${env:SIZE}'}\nfrom: {application_name: '$${env:X}'}",
		nil, "BUCKET", "egress", "TEAM", "shop", "SCHEMA", "sales", "SIZE", "1GiB")
	if c.To.URL != "s3://egress/shop" || !c.Dump.Tables[0].Match("sales", "x") || c.Dump.FileSize != 1<<30 || c.From.ApplicationName != "${env:X}" {
		t.Errorf("got %q, %v, %v, %q", c.To.URL, c.Dump.Tables, c.Dump.FileSize, c.From.ApplicationName)
	}
}

func TestRequireNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	c := load(t, "from: postgres://db/shop", nil)
	for _, key := range []string{"to.url", "dump.tables"} {
		err := c.Require(key)
		if !fault.Is(err, fault.ConfigMissing) || !strings.HasPrefix(err.Error(), key) {
			t.Errorf("%s: got %v", key, err)
		}
	}
	if err := load(t, "to: s3://b\ndump: {tables: [a]}", nil).Require("to.url", "dump.tables"); err != nil {
		t.Error(err)
	}
}

func TestTheDefaultIsValid(t *testing.T) {
	t.Parallel()
	c := config.Default()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	for cores, want := range map[int]int{1: 2, 2: 4, 64: 8} {
		if got := c.Dump.Workers(cores); got != want {
			t.Errorf("%d cores: %d workers, want %d", cores, got, want)
		}
	}
}

// load reads a file's content, or no file if it is empty.
func load(t *testing.T, file string, flags []config.Override, variables ...string) *config.Config {
	t.Helper()
	opts := config.LoadOptions{Env: env(variables...), Overrides: flags}
	read := func() (*config.Config, error) { return config.Load(opts) }
	if file != "" {
		read = func() (*config.Config, error) { return config.Parse("leat.yaml", []byte(file), opts) }
	}
	c, err := read()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTheSyncJobsVariablesGiveBothSides(t *testing.T) {
	t.Parallel()
	job := map[string]string{
		"INPUT_URL": "https://s3.amazonaws.com", "INPUT_PATH": "egress/app/", "INPUT_ACCESS_KEY_ID": "near-id", "INPUT_SECRET_ACCESS_KEY": "near-secret",
		"OUTPUT_URL": "https://ceph.internal", "OUTPUT_PATH": "dh-secure", "OUTPUT_ACCESS_KEY_ID": "far-id", "OUTPUT_SECRET_ACCESS_KEY": "far-secret",
	}
	env := func(name string) (string, bool) { v, ok := job[name]; return v, ok }
	c, err := config.Load(config.LoadOptions{Env: env})
	if err != nil {
		t.Fatal(err)
	}
	m := c.Mirror
	got := []string{m.From.URL, m.From.Endpoint, m.From.AccessKeyID.Reveal(), m.From.SecretAccessKey.Reveal(), m.To.URL, m.To.Endpoint, m.To.AccessKeyID.Reveal(), m.To.SecretAccessKey.Reveal()}
	want := []string{"s3://egress/app", "https://s3.amazonaws.com", "near-id", "near-secret", "s3://dh-secure", "https://ceph.internal", "far-id", "far-secret"}
	if !slices.Equal(got, want) || !c.MirrorDropIn() {
		t.Errorf("got %q, drop-in %v", got, c.MirrorDropIn())
	}
	if text := fmt.Sprintf("%+v", c); strings.Contains(text, "near-secret") || strings.Contains(text, "far-secret") {
		t.Error("a secret shows")
	}
	// Names as common as these do not reach into somebody's file.
	c, err = config.Parse("leat.yaml", []byte("version: 1\nmirror: {from: s3://a, to: s3://b}\n"), config.LoadOptions{Env: env})
	if err != nil {
		t.Fatal(err)
	}
	if c.Mirror.From.URL != "s3://a" || c.Mirror.From.Endpoint != "" || c.MirrorDropIn() {
		t.Errorf("with a file: %+v", c.Mirror.From)
	}
}

func TestChangeFilesHoldNoLatestState(t *testing.T) {
	t.Parallel()
	for file, key := range map[string]string{
		"lake: {target: files}\nrun: {keep: both}": "run.keep", "lake: {target: files}\nrun: {keep: current}": "run.keep",
		"lake: {target: files}\nrun: {keep_current: [public.orders]}": "run.keep_current",
	} {
		_, err := config.Parse("leat.yaml", []byte(file), config.LoadOptions{Env: env()})
		if !fault.Is(err, fault.ConfigInvalid) || !strings.HasPrefix(err.Error(), key+" ") && !strings.HasPrefix(err.Error(), key+":") {
			t.Errorf("%s: %v", file, err)
		}
	}
	load(t, "lake: {target: files}\nrun: {keep: history}", nil)
}
