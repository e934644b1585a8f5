package config

import (
	"net/netip"
	"net/url"
	"strings"

	"github.com/leatdata/leat/internal/fault"
)

// Validate checks what concerns several settings or the form of an address. Load calls it;
// whoever changes a Config afterwards calls it again.
func (c *Config) Validate() error {
	for _, check := range []func() error{c.checkVersion, c.checkFrom, c.checkTarget, c.checkEndpoint, c.checkKeys, c.checkSizes, c.checkFormat, c.checkRun} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// Require is for verbs that cannot do without certain settings: it gives ConfigMissing for
// the first key, of to.url and dump.tables, that was named and has no value.
func (c *Config) Require(paths ...string) error {
	missing := map[string]bool{
		"to.url": c.To.URL == "", "dump.tables": len(c.Dump.Tables) == 0, "mirror.from.url": c.Mirror.From.URL == "", "mirror.to.url": c.Mirror.To.URL == "",
	}
	for _, path := range paths {
		if missing[path] {
			return fault.New(fault.ConfigMissing, path, "is not given").WithMend("%s", howToGive[path])
		}
	}
	return nil
}

var howToGive = map[string]string{
	"to.url":      "Say where to write: --to s3://bucket/path, LEAT_TO, S3_OUTPUT, or to: in leat.yaml.",
	"dump.tables": "Name the tables: --table 'public.*', LEAT_DUMP_TABLES, TABLES, or dump.tables in leat.yaml.",

	"mirror.from.url": "Say what to carry: leat mirror s3://from/path s3://to/path, LEAT_MIRROR_FROM_URL, INPUT_PATH, or mirror.from in leat.yaml.",
	"mirror.to.url":   "Say where to: leat mirror s3://from/path s3://to/path, LEAT_MIRROR_TO_URL, OUTPUT_PATH, or mirror.to in leat.yaml.",
}

func (c *Config) checkVersion() error {
	if c.Version != 1 {
		return c.invalid("version", "version %d is not known; this leat knows version 1", c.Version)
	}
	return nil
}

func (c *Config) checkFrom() error {
	address, err := c.From.conninfo()
	if err != nil {
		return fault.New(fault.URLInvalid, c.where("from.url"), "%s", err.Error())
	}
	if address.value("password") != "" {
		return c.invalid("from.url", "a password does not belong in the address")
	}
	if (c.From.SSLCert == "") != (c.From.SSLKey == "") {
		return c.invalid(c.oneGiven("from.sslcert", "from.sslkey"), "sslcert and sslkey belong together; give both or none")
	}
	return nil
}

// checkTarget looks at the form of to.url. It quotes nothing: people put keys in there.
func (c *Config) checkTarget() error {
	target := c.To.URL
	if target == "" {
		return nil
	}
	bad := func(what string) error { return fault.New(fault.URLInvalid, c.where("to.url"), "%s", what) }
	scheme, rest, ok := strings.Cut(target, "://")
	switch {
	case !ok:
		return nil // a plain path
	case scheme == "file" || scheme == "mem":
		return nil
	case scheme != "s3" && scheme != "gs" && scheme != "azblob":
		return bad("the address has an unknown scheme; use s3://bucket/path, gs://bucket/path, azblob://container/path, file:///path or a plain path")
	}
	bucket, path, _ := strings.Cut(rest, "/")
	switch {
	case strings.Contains(bucket, "@"):
		return bad("keys do not belong in the address; set to.access_key_id and to.secret_access_key to references, or use the AWS environment")
	case bucket == "":
		return bad("the address has no bucket; write " + scheme + "://bucket/path")
	case strings.ContainsAny(rest, "?#"):
		return bad("the address has options after ? or #; the keys under to: take their place")
	case strings.Contains("/"+path+"/", "/../") || strings.Contains("/"+path+"/", "/./"):
		return bad("the path has a . or .. in it; write it out")
	}
	return nil
}

func (c *Config) checkEndpoint() error {
	if c.To.Endpoint == "" {
		return nil
	}
	u, err := url.Parse(c.To.Endpoint)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return c.invalid("to.endpoint", "the endpoint must be an address such as https://ceph.example.com:8443")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return c.invalid("to.endpoint", "the endpoint is scheme, host and port alone; user, password, ? and # do not belong there")
	case u.Scheme == "http" && !c.To.AllowHTTP && !loopback(u.Hostname()):
		return c.invalid("to.endpoint", "plain http to %s would send data and signatures unencrypted; use https://, or set to.allow_http: true", u.Hostname())
	}
	return nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func (c *Config) checkKeys() error {
	id, secret, token := c.To.AccessKeyID, c.To.SecretAccessKey, c.To.SessionToken
	switch {
	case id.IsZero() != secret.IsZero():
		return c.invalid(c.oneGiven("to.access_key_id", "to.secret_access_key"), "access_key_id and secret_access_key belong together; give both, or none for the AWS SDK's default chain")
	case !token.IsZero() && id.IsZero():
		return c.invalid("to.session_token", "a session token needs access_key_id and secret_access_key")
	case c.To.KMSKeyID != "" && c.To.Encryption != EncryptionKMS:
		return c.invalid("to.kms_key_id", "a KMS key is for encryption aws:kms, but encryption is %s", c.To.Encryption)
	}
	return nil
}

// 5 MiB is S3's least for a part ("Amazon S3 multipart upload limits"). Parts double every thousand, so with more than
// 10 MiB at first the last would be past S3's 5 GiB.
const (
	minPart Size = 5 << 20
	maxPart Size = 10 << 20
)

func (c *Config) checkSizes() error {
	switch {
	case c.To.PartSize < minPart || c.To.PartSize > maxPart:
		return c.invalid("to.part_size", "%s is not from %s to %s", c.To.PartSize, minPart, maxPart)
	case c.Dump.FileSize < 1<<20:
		return c.invalid("dump.file_size", "%s is too small; the least is 1MiB", c.Dump.FileSize)
	}
	return nil
}

// checkFormat refuses options that the format has no place for: ignoring them would be a
// setting that says one thing and does another.
func (c *Config) checkFormat() error {
	f := c.Dump.Format
	switch {
	case !f.Typed() && c.isGiven("dump.compression"):
		return fault.New(fault.FormatUnusable, c.where("dump.compression"), "compression is for parquet and avro, but the format is %s", f).
			WithMend("Drop dump.compression; for compressed text take csv.gz or jsonl.gz.")
	case f != FormatParquet && len(c.Dump.Bloom) > 0:
		return fault.New(fault.FormatUnusable, c.where("dump.bloom"), "bloom filters are for parquet, but the format is %s", f).
			WithMend("Drop dump.bloom, or take parquet.")
	}
	return nil
}

// oneGiven is the one of two keys that somebody wrote.
func (c *Config) oneGiven(a, b string) string {
	if c.isGiven(a) {
		return a
	}
	return b
}

func (c *Config) invalid(path, format string, args ...any) error {
	return fault.New(fault.ConfigInvalid, c.where(path), format, args...)
}
