package bucket

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"

	"github.com/leatdata/leat/internal/fault"
)

// gcsScope lets read and write objects, and nothing else.
const gcsScope = "https://www.googleapis.com/auth/devstorage.read_write"

func openGCS(ctx context.Context, at place, opts Options) (*gcsBucket, error) {
	wire, err := newTransport(opts.CAFile, opts.Proxy, opts.Stall)
	if err != nil {
		return nil, err
	}
	endpoint, anonymous := opts.gcsEndpoint()
	if err := checkEndpoint(endpoint, opts.AllowHTTP); err != nil {
		return nil, err
	}
	client := &http.Client{Transport: wire, CheckRedirect: noRedirect}
	if !anonymous {
		if client.Transport, err = gcsLogin(ctx, wire); err != nil {
			return nil, fault.New(fault.BucketAuth, at.String(), "no usable Google credentials were found").Because(&cause{scrub(err), err})
		}
	}
	usual := "https://storage." + cmp.Or(os.Getenv("GOOGLE_CLOUD_UNIVERSE_DOMAIN"), "googleapis.com")
	return &gcsBucket{
		at: at, client: client, wire: wire, base: strings.TrimRight(cmp.Or(endpoint, usual), "/"), opts: opts, buffers: buffers{keep: 2},
		known: Properties{
			Kind: KindGCS, URL: at.String(), Endpoint: endpoint, Checksums: "crc32c",
			ConditionalPut: Supported, ConditionalMultipart: Supported,
		},
	}, nil
}

// gcsLogin asks Google's default chain for credentials and puts their tokens on each request. The tokens are fetched over the same wire,
// so that its proxy and its authorities hold for the login too.
func gcsLogin(ctx context.Context, wire *watchdog) (http.RoundTripper, error) {
	// Tokens are renewed as long as the bucket is used, also while it is being stopped.
	ctx = context.WithValue(context.WithoutCancel(ctx), oauth2.HTTPClient, &http.Client{Transport: wire})
	creds, err := google.FindDefaultCredentials(ctx, gcsScope)
	if err != nil {
		return nil, err
	}
	var file struct {
		QuotaProject string `json:"quota_project_id"`
	}
	_ = json.Unmarshal(creds.JSON, &file) // there is none on Google's own machines
	login := &oauth2.Transport{Source: creds.TokenSource, Base: wire}
	if pays := cmp.Or(os.Getenv("GOOGLE_CLOUD_QUOTA_PROJECT"), file.QuotaProject); pays != "" {
		return &billed{login, pays}, nil
	}
	return login, nil
}

// billed names the project that requests are charged to.
type billed struct {
	http.RoundTripper
	project string
}

func (b *billed) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("X-Goog-User-Project", b.project)
	return b.RoundTripper.RoundTrip(req)
}

// gcsEndpoint is the server to ask where it is not Google's. A plain-http one, which is allowed on
// this machine only unless the options say otherwise, is a fake that knows no logins.
func (o Options) gcsEndpoint() (endpoint string, anonymous bool) {
	endpoint = o.Endpoint
	if endpoint == "" {
		endpoint = os.Getenv("STORAGE_EMULATOR_HOST")
		if endpoint != "" && !strings.Contains(endpoint, "://") {
			endpoint = "http://" + endpoint
		}
	}
	return endpoint, strings.HasPrefix(endpoint, "http://")
}
