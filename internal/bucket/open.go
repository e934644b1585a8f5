package bucket

import (
	"context"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/leatdata/leat/internal/fault"
)

// Options say how to reach a place. The zero value works wherever the provider's own defaults do.
type Options struct {
	// Endpoint is the server's URL where it is not the provider's usual one. For S3 it goes
	// before AWS_ENDPOINT_URL; for Azure it includes the account where the server wants it in
	// the path (Azurite: http://127.0.0.1:10000/devstoreaccount1).
	Endpoint string
	Region   string // S3 only; the provider's chain is asked if empty

	// AccessKeyID and the two functions below are static credentials; without them the provider's
	// default chain is asked (for S3: environment, shared config, web identity, instance role).
	// Azure takes the account's name as AccessKeyID, its key as SecretAccessKey or a SAS
	// token as SessionToken. They are functions so that printing Options shows no secret.
	AccessKeyID     string
	SecretAccessKey func() string
	SessionToken    func() string
	// Keys reads the static credentials again where they come from, once a server says that those it got are no
	// longer good; nil where they cannot change. S3 only. The provider's default chain is read again without it.
	Keys func() (id, secret, token string, err error)

	// RequesterPays takes the costs of requests to a bucket whose owner wants that. S3 only.
	RequesterPays bool
	// ACL is the canned list of grants that objects are written with: "" or "bucket-owner-full-control". S3 only.
	ACL string

	// PathStyle puts the bucket into the path instead of the host's name. It is always on with
	// an endpoint outside amazonaws.com.
	PathStyle bool
	// CAFile holds the certificates, as PEM, of further authorities to trust. AWS_CA_BUNDLE is
	// honoured for S3 when it is empty.
	CAFile string
	// Proxy is the HTTP proxy for this place alone, http://host:port. The environment's counts when it is empty.
	Proxy string
	// AllowHTTP permits plain http to a host other than this machine.
	AllowHTTP bool

	// ReadOnly says that the place is only read, so that a folder that is not there is not made.
	ReadOnly bool

	// SSE is the encryption at rest to ask for: "", "AES256" or "aws:kms". S3 only.
	SSE string
	// KMSKeyID is the key for aws:kms; the account's default key if empty.
	KMSKeyID string
	// Checksums says what protects bytes on their way to S3: "auto" (or ""), "required", "off".
	//
	// Every request's payload is covered by the SHA-256 that Signature Version 4 signs, so the
	// server refuses a body that changed on its way; this does not depend on the setting.
	// "required" adds the SDK's CRC32, which S3 also stores and checks again on reading; over TLS
	// the CRC32 goes as a trailer and then stands in for the SHA-256. "auto" does that on AWS and
	// not elsewhere, because older servers (Ceph before 18) refuse trailers.
	Checksums string

	PartSize     int64 // bytes of the first parts; 8 MiB if 0, at least 5 MiB
	PartParallel int   // parts of one upload sent at once; 2 if 0
	MaxRetries   int   // attempts after the first; 7 if 0, none if negative
	MaxRate      int64 // bytes per second, over all uploads and readers; unlimited if 0

	// Stall is how long a request may make no progress; 60 s if 0.
	Stall time.Duration
	// Grace is how long cleaning up may take after a context has ended; 5 s if 0.
	Grace time.Duration
	// Backoff is the longest pause between two attempts; 20 s if 0. Pauses grow by doubling,
	// with jitter.
	Backoff time.Duration
}

// The limits of [Options.PartSize], in bytes: 5 MiB and 5 GiB are S3's
// (docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html); since parts grow by 2^9, the first
// may have 8 MiB at most times 1.25.
const (
	minPartSize     = 5 << 20
	defaultPartSize = 8 << 20
	maxPartSize     = 10 << 20
)

func (o Options) withDefaults() (Options, error) {
	for _, d := range []struct{ field, otherwise *time.Duration }{
		{&o.Stall, new(60 * time.Second)},
		{&o.Grace, new(5 * time.Second)},
		{&o.Backoff, new(20 * time.Second)},
	} {
		if *d.field == 0 {
			*d.field = *d.otherwise
		}
	}
	if o.PartSize == 0 {
		o.PartSize = defaultPartSize
	}
	if o.PartParallel == 0 {
		o.PartParallel = 2
	}
	if o.MaxRetries == 0 {
		o.MaxRetries = 7
	}
	o.MaxRetries = max(o.MaxRetries, 0)
	if o.Checksums == "" {
		o.Checksums = "auto"
	}
	return o, o.check()
}

func (o Options) check() error {
	switch {
	case o.PartSize < minPartSize || o.PartSize > maxPartSize:
		return fault.New(fault.ConfigInvalid, "part size", "%d bytes is not between %d and %d", o.PartSize, minPartSize, maxPartSize)
	case o.PartParallel < 1 || o.PartParallel > 64:
		return fault.New(fault.ConfigInvalid, "parts in parallel", "%d is not between 1 and 64", o.PartParallel)
	case o.SSE != "" && o.SSE != "AES256" && o.SSE != "aws:kms":
		return fault.New(fault.ConfigInvalid, "encryption", "%q is neither AES256 nor aws:kms", o.SSE)
	case o.KMSKeyID != "" && o.SSE != "aws:kms":
		return fault.New(fault.ConfigInvalid, "encryption", "a KMS key is named, but the encryption is not aws:kms")
	case o.ACL != "" && o.ACL != ownerFullControl:
		return fault.New(fault.ConfigInvalid, "acl", "%q is not %s", o.ACL, ownerFullControl)
	case o.Checksums != "auto" && o.Checksums != "required" && o.Checksums != "off":
		return fault.New(fault.ConfigInvalid, "checksums", "%q is none of auto, required, off", o.Checksums)
	case o.MaxRate < 0:
		return fault.New(fault.ConfigInvalid, "max rate", "%d bytes per second is below zero", o.MaxRate)
	case (o.AccessKeyID == "") != (o.SecretAccessKey == nil) && o.SessionToken == nil:
		return fault.New(fault.SecretMissing, "credentials", "an access key needs both its id and its secret")
	}
	return checkEndpoint(o.Endpoint, o.AllowHTTP)
}

// checkEndpoint refuses plain http to another machine: signatures and data would cross the
// network in the clear.
func checkEndpoint(endpoint string, allowHTTP bool) error {
	if endpoint == "" {
		return nil
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return fault.New(fault.URLInvalid, "endpoint", "it is not an http or https URL")
	}
	if u.User != nil || u.RawQuery != "" {
		return fault.New(fault.URLInvalid, "endpoint", "user, password and query are not allowed in it").
			WithMend("Give credentials by the provider's own ways.")
	}
	if u.Scheme == "http" && !allowHTTP && !loopback(u.Hostname()) {
		return fault.New(fault.ConfigInvalid, "endpoint "+u.Scheme+"://"+u.Host, "plain http to another machine").
			WithMend("Use https, or allow plain http explicitly.")
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Open makes a Bucket from s3://bucket/path, gs://bucket/path, azblob://container/path,
// file:///path, a plain path, or mem:// (a place of its own, gone with the Bucket). The path
// becomes the root: keys are relative to it. Open reads credentials but does not ask the server
// anything; a folder is made if it does not exist.
//
// Keys have at most 1024 bytes with the root, are valid UTF-8 without control characters, and none of
// their segments is empty, "." or "..". What breaks this is usage-invalid on every kind.
func Open(ctx context.Context, rawURL string, opts Options) (Bucket, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	at, err := parse(rawURL)
	if err != nil {
		return nil, err
	}
	var b Bucket
	switch at.kind {
	case KindS3:
		b, err = openS3(ctx, at, opts)
	case KindGCS:
		b, err = openGCS(ctx, at, opts)
	case KindAzure:
		b, err = openAzure(at, opts)
	case KindFolder:
		b, err = openFolder(at, opts.ReadOnly)
	default:
		b = newMemory()
	}
	if err != nil {
		return nil, err
	}
	return newFront(b, at, opts.MaxRate), nil
}

// place is a parsed URL.
type place struct {
	kind Kind
	name string // of the bucket or container; the path of a folder
	root string // "" or a path that ends with a slash
}

// String is the URL, without anything secret: a place holds nothing of the kind.
func (p place) String() string {
	switch p.kind {
	case KindFolder:
		return "file://" + p.name
	case KindMemory:
		return "mem://"
	}
	return strings.TrimSuffix(string(p.kind)+"://"+p.name+"/"+p.root, "/")
}

func (p place) object(key string) string {
	if p.kind == KindMemory {
		return "mem://" + key
	}
	return p.String() + "/" + key
}

func parse(raw string) (place, error) {
	scheme, rest, isURL := strings.Cut(raw, "://")
	if !isURL {
		return folderPlace(raw)
	}
	switch kind := Kind(scheme); kind {
	case KindMemory:
		return place{kind: kind}, nil
	case KindFolder:
		return folderURL(raw)
	case KindS3, KindGCS, KindAzure:
		// The path is taken as it stands, without decoding: keys hold % and ? as they are.
		name, root, _ := strings.Cut(rest, "/")
		root = strings.TrimRight(root, "/")
		plain := name
		if tenant, its, ok := strings.Cut(name, ":"); ok && kind == KindS3 && tenant != "" { // as Ceph has them
			plain = its
		}
		if plain == "" || strings.ContainsAny(name, "@?*#% ") || strings.Contains(plain, ":") {
			return place{}, fault.New(fault.URLInvalid, scheme+"://…", "the name of the bucket is missing or has characters no name has").
				WithMend("Write %s://bucket/path; credentials and settings do not go into the URL.", scheme)
		}
		if root != "" {
			err := checkKey(scheme+"://"+name, root)
			if err == nil && strings.ContainsAny(root, "\uFFFE\uFFFF") { // the rules of a bucket, which are XML, would be another path's
				err = fault.New(fault.UsageInvalid, root, "it has a character that XML does not have")
			}
			if err != nil {
				return place{}, fault.New(fault.URLInvalid, scheme+"://"+name, "the path cannot be the beginning of keys").Because(err)
			}
			root += "/"
		}
		return place{kind, name, root}, nil
	}
	return place{}, fault.New(fault.URLInvalid, "", "no kind of bucket begins with this scheme")
}

func folderURL(raw string) (place, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host != "" && u.Host != "localhost" || u.RawQuery != "" || u.User != nil {
		return place{}, fault.New(fault.URLInvalid, "file://…", "it is not the URL of a local folder").WithMend("Write file:///path/to/folder.")
	}
	return folderPlace(u.Path)
}

func folderPlace(path string) (place, error) {
	if path == "" || strings.ContainsRune(path, 0) {
		return place{}, fault.New(fault.URLInvalid, "", "the path of the folder is empty or holds a NUL byte")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return place{}, fault.New(fault.URLInvalid, path, "the path cannot be made absolute").Because(err)
	}
	return place{kind: KindFolder, name: abs}, nil
}
