package bucket

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// chain reads the AWS configuration: environment, files, and what they lead to.
func (o Options) chain(ctx context.Context) (aws.Config, error) {
	return config.LoadDefaultConfig(ctx, config.WithLogger(logging.Nop{}), func(load *config.LoadOptions) error {
		if o.Region != "" {
			load.Region = o.Region
		}
		if o.AccessKeyID != "" {
			load.Credentials = o.static()
		}
		return nil
	})
}

// static are the credentials that the options hold.
func (o Options) static() aws.CredentialsProvider {
	return aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		c := aws.Credentials{AccessKeyID: o.AccessKeyID, SecretAccessKey: o.SecretAccessKey(), Source: "leat"}
		if o.SessionToken != nil {
			c.SessionToken = o.SessionToken()
		}
		return c, nil
	})
}

// again reads the credentials once more where they come from; nil where they cannot change.
func (o Options) again(ctx context.Context) (aws.CredentialsProvider, error) {
	if o.Keys == nil && o.AccessKeyID != "" {
		return nil, nil
	}
	if o.Keys == nil {
		cfg, err := o.chain(ctx)
		return cfg.Credentials, err
	}
	id, secret, token, err := o.Keys()
	if err != nil {
		return nil, err
	}
	o.AccessKeyID = id
	o.SecretAccessKey, o.SessionToken = func() string { return secret }, func() string { return token }
	return o.static(), nil
}

// keyring hands out credentials. Those of files and of the environment have no end that anything tells: they are read
// again when a server says that they are no longer good, and while a job goes on for weeks others are put in their
// place.
type keyring struct {
	read func(context.Context) (aws.CredentialsProvider, error)
	now  atomic.Pointer[aws.CredentialsCache]

	mu    sync.Mutex
	tried time.Time // when they were last read again
}

func newKeyring(o Options, first aws.CredentialsProvider) *keyring {
	k := &keyring{read: o.again}
	k.now.Store(aws.NewCredentialsCache(judgedCredentials{first}))
	return k
}

// Retrieve returns the credentials of the moment.
func (k *keyring) Retrieve(ctx context.Context) (aws.Credentials, error) {
	return k.now.Load().Retrieve(ctx)
}

// renewed reads the credentials again and says whether they are others than those that were refused. Many requests are
// refused at once, and a server may refuse everything: within the pause they are read once.
func (k *keyring) renewed(ctx context.Context, refused aws.Credentials, pause time.Duration) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now, err := k.Retrieve(ctx); err == nil && !sameKeys(now, refused) {
		return true // another request has read them
	}
	if time.Since(k.tried) < pause {
		return false
	}
	k.tried = time.Now()
	chain, err := k.read(ctx)
	if err != nil || chain == nil {
		return false
	}
	fresh := aws.NewCredentialsCache(judgedCredentials{chain})
	if now, err := fresh.Retrieve(ctx); err != nil || sameKeys(now, refused) {
		return false
	}
	k.now.Store(fresh)
	return true
}

func sameKeys(a, b aws.Credentials) bool {
	return a.AccessKeyID == b.AccessKeyID && a.SecretAccessKey == b.SecretAccessKey && a.SessionToken == b.SessionToken
}

// The pauses between two readings of credentials: where a server says that they are the reason, and where it may mean
// something else, as in its answer to a HEAD, which has no body that could say.
const (
	renewSoon = time.Second
	renewLate = 10 * time.Second
)

// outdated says whether an error may come from credentials that are no longer good, and how soon they are read again.
func outdated(err error) (pause time.Duration, is bool) {
	var api smithy.APIError
	var answer *smithyhttp.ResponseError
	if !errors.As(err, &api) {
		return 0, false
	}
	switch api.ErrorCode() {
	case "ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId",
		"InvalidClientTokenId", "SignatureDoesNotMatch":
		return renewSoon, true
	}
	if !errors.As(err, &answer) || answer.Response == nil || answer.Response.Request == nil {
		return 0, false
	}
	status := answer.HTTPStatusCode()
	refused := status == http.StatusBadRequest || status == http.StatusForbidden
	return renewLate, refused && answer.Response.Request.Method == http.MethodHead
}

// renewing has the SDK send a request once more when other credentials have been put in the place of those that were
// refused.
func (b *s3Bucket) renewing(stack *middleware.Stack) error {
	return stack.Finalize.Add(middleware.FinalizeMiddlewareFunc("leatRenewing", func(
		ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler,
	) (middleware.FinalizeOutput, middleware.Metadata, error) {
		if b.keys == nil {
			return next.HandleFinalize(ctx, in)
		}
		used, none := b.keys.Retrieve(ctx)
		out, about, err := next.HandleFinalize(ctx, in)
		req, ok := in.Request.(*smithyhttp.Request)
		pause, is := outdated(err)
		if !is || none != nil || !ok || !b.keys.renewed(ctx, used, pause) || req.RewindStream() != nil {
			return out, about, err
		}
		return next.HandleFinalize(ctx, in)
	}), middleware.Before)
}

// ownerFullControl gives the owner of a bucket all rights on an object that another account writes into it
// (docs.aws.amazon.com/AmazonS3/latest/userguide/acl-overview.html#canned-acl).
const ownerFullControl = "bucket-owner-full-control"

// The headers that the options ask for.
const (
	payerHeader = "X-Amz-Request-Payer" // AmazonS3/latest/userguide/RequesterPaysBuckets.html
	requester   = "requester"
	aclHeader   = "X-Amz-Acl"
)

// writes are the requests of the SDK that make an object.
var writes = map[string]bool{"PutObject": true, "CreateMultipartUpload": true, "CopyObject": true}

// ownHeaders puts what the options ask for on each request of the SDK, before it is signed.
func (b *s3Bucket) ownHeaders(stack *middleware.Stack) error {
	return stack.Build.Add(middleware.BuildMiddlewareFunc("leatHeaders", func(
		ctx context.Context, in middleware.BuildInput, next middleware.BuildHandler,
	) (middleware.BuildOutput, middleware.Metadata, error) {
		if req, ok := in.Request.(*smithyhttp.Request); ok {
			if b.opts.RequesterPays {
				req.Header.Set(payerHeader, requester)
			}
			if b.opts.ACL != "" && writes[middleware.GetOperationName(ctx)] {
				req.Header.Set(aclHeader, b.opts.ACL)
			}
		}
		return next.HandleBuild(ctx, in)
	}), middleware.After)
}

// judgedCredentials marks the errors of a credentials' chain: seen from a request they could not
// be told from the request's own.
type judgedCredentials struct{ chain aws.CredentialsProvider }

func (j judgedCredentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := j.chain.Retrieve(ctx)
	if err != nil {
		return c, &credentialsError{err}
	}
	return c, nil
}

type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return "no credentials: " + e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }
