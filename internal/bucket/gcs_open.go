package bucket

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"cloud.google.com/go/storage"
	"github.com/googleapis/gax-go/v2"
	"golang.org/x/oauth2"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"
	transport "google.golang.org/api/transport/http"

	"github.com/leatdata/leat/internal/fault"
)

func openGCS(ctx context.Context, at place, opts Options) (*gcsBucket, error) {
	wire, err := newTransport(opts.CAFile, opts.Proxy, opts.Stall)
	if err != nil {
		return nil, err
	}
	endpoint, anonymous := opts.gcsEndpoint()
	if err := checkEndpoint(endpoint, opts.AllowHTTP); err != nil {
		return nil, err
	}
	login := []option.ClientOption{option.WithScopes(storage.ScopeReadWrite)}
	if anonymous {
		login = []option.ClientOption{option.WithoutAuthentication()}
	}
	// The SDK can log in only on a transport that it makes itself, or on one wrapped like this.
	signed, err := transport.NewTransport(ctx, wire, login...)
	if err != nil {
		return nil, fault.New(fault.BucketAuth, at.String(), "no usable Google credentials were found").Because(&cause{scrub(err), err})
	}
	with := []option.ClientOption{option.WithHTTPClient(&http.Client{Transport: signed})}
	if endpoint != "" {
		with = append(with, option.WithEndpoint(strings.TrimRight(endpoint, "/")+"/storage/v1/"))
	}
	client, err := storage.NewClient(ctx, with...)
	if err != nil {
		return nil, fault.New(fault.ConfigInvalid, at.String(), "the Google client cannot be set up").Because(&cause{scrub(err), err})
	}
	client.SetRetry(
		storage.WithBackoff(gax.Backoff{Initial: opts.Backoff / 20, Max: opts.Backoff, Multiplier: 2}),
		storage.WithMaxAttempts(opts.MaxRetries+1),
		// Every write is of a whole object and carries a mark: repeating it does no harm.
		storage.WithPolicy(storage.RetryAlways),
	)
	return &gcsBucket{
		at: at, client: client, handle: client.Bucket(at.name), opts: opts, buffers: buffers{keep: 2},
		known: Properties{
			Kind: KindGCS, URL: at.String(), Endpoint: endpoint, Checksums: "crc32c",
			ConditionalPut: Supported, ConditionalMultipart: Supported,
		},
	}, nil
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

// fault judges an error of the SDK. right is the permission that the request needs.
func (b *gcsBucket) fault(ctx context.Context, err error, right, key string) error {
	if err == nil {
		return nil
	}
	where := b.at.object(key)
	var answer *googleapi.Error
	var login *oauth2.RetrieveError
	switch {
	case errors.Is(err, storage.ErrObjectNotExist):
		return fault.New(fault.ObjectMissing, where, "%s", whats[fault.ObjectMissing]).Because(&cause{storage.ErrObjectNotExist.Error(), err})
	case errors.Is(err, storage.ErrBucketNotExist):
		return b.newFault(fault.BucketMissing, where, storage.ErrBucketNotExist.Error(), right, err)
	case errors.As(err, &answer):
	case ctx.Err() != nil:
		return interrupted(ctx, where)
	case errors.As(err, &login):
		return b.newFault(fault.BucketAuth, where, "the login failed: "+login.ErrorCode, right, err)
	default:
		if f := networkFault(err, where); f != nil {
			return f
		}
		return fault.New(fault.BucketFailed, where, "the request failed").Because(&cause{scrub(err), err})
	}
	code := plainStatus(answer.Code)
	if code == fault.ObjectMissing && right == "storage.objects.create" {
		code = fault.BucketMissing // a write needs no object
	}
	return b.newFault(code, where, fmt.Sprintf("%s (HTTP status %d)", answer.Message, answer.Code), right, err)
}

func (b *gcsBucket) newFault(code fault.Code, where, text, right string, err error) error {
	f := fault.New(code, where, "%s", whats[code]).Because(&cause{query.ReplaceAllString(text, "?…"), err})
	switch code {
	case fault.BucketRights:
		f.Mend = fmt.Sprintf("Give this identity the permission %s on the bucket %s (role Storage Object Admin has it).", right, b.at.name)
	case fault.BucketMissing:
		f.Mend = fmt.Sprintf("Create the bucket %s, or correct its name.", b.at.name)
	}
	return f
}
