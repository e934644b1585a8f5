package bucket

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/leatdata/leat/internal/fault"
)

func openS3(ctx context.Context, at place, opts Options) (*s3Bucket, error) {
	cfg, err := opts.chain(ctx)
	if err != nil {
		return nil, fault.New(fault.ConfigInvalid, at.String(), "the AWS configuration cannot be read").Because(&cause{scrub(err), err})
	}
	// The SDK can put this one only into its own client, and ours needs the watchdog.
	caFile := opts.CAFile
	if caFile == "" {
		caFile = os.Getenv("AWS_CA_BUNDLE")
	}
	wire, err := newTransport(caFile, opts.Proxy, opts.Stall)
	if err != nil {
		return nil, err
	}
	b := &s3Bucket{at: at, wire: wire, opts: opts, buffers: buffers{keep: opts.PartParallel + 1}}
	if cfg.Credentials != nil {
		b.keys = newKeyring(opts, cfg.Credentials)
		cfg.Credentials = b.keys
	}
	b.client = s3.NewFromConfig(cfg, b.configure)
	b.courier = sync.OnceValues(func() (*courier, error) { return b.newCourier(context.WithoutCancel(ctx)) })
	return b, b.describe()
}

// configure sets the client up; the SDK has already taken endpoint and region from the
// environment and the shared configuration.
func (b *s3Bucket) configure(o *s3.Options) {
	if b.opts.Endpoint != "" {
		o.BaseEndpoint = &b.opts.Endpoint
	}
	elsewhere := o.BaseEndpoint != nil && !isAWS(*o.BaseEndpoint)
	if o.Region == "" && elsewhere {
		o.Region = "us-east-1" // what servers outside AWS take when they have no regions
	}
	o.UsePathStyle = o.UsePathStyle || b.opts.PathStyle || elsewhere
	o.HTTPClient = &http.Client{Transport: legibleXML{b.wire}, CheckRedirect: noRedirect}
	o.Logger = logging.Nop{}
	o.DisableLogOutputChecksumValidationSkipped = true
	o.Retryer = newRetryer(b.opts.MaxRetries, b.opts.Backoff)

	o.APIOptions = append(o.APIOptions, b.ownHeaders, b.renewing)
	sums := b.opts.Checksums == "required" || b.opts.Checksums == "auto" && !elsewhere
	if sums {
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenSupported
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenSupported
	} else {
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		o.APIOptions = append(o.APIOptions, signPayload)
	}
	b.known = Properties{
		Kind: KindS3, URL: b.at.String(), Region: o.Region, PathStyle: o.UsePathStyle,
		Encryption: b.opts.SSE, Checksums: "sha256",
	}
	if sums {
		b.known.Checksums = "crc32"
	}
	if o.BaseEndpoint != nil {
		b.known.Endpoint = *o.BaseEndpoint
	}
	if !elsewhere {
		// Documented: AmazonS3/latest/userguide/conditional-writes.html.
		b.put.set(Supported)
		b.multi.set(Supported)
		b.sse.set(Supported)
		for kind := range b.keeps {
			b.keeps[kind].set(Supported)
		}
	}
}

func (b *s3Bucket) describe() error {
	if b.known.Region == "" {
		return fault.New(fault.ConfigMissing, b.at.String(), "the bucket's region is not known").
			WithMend("Set the region, AWS_REGION, or the region of the AWS profile.")
	}
	// The endpoint may have come from the environment: the same rules hold.
	return checkEndpoint(b.known.Endpoint, b.opts.AllowHTTP)
}

func isAWS(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil {
		return false
	}
	host := u.Hostname()
	return strings.HasSuffix(host, ".amazonaws.com") || strings.HasSuffix(host, ".amazonaws.com.cn")
}

// noRedirect returns redirections as answers: the SDK signs for one host, so following can only
// fail in a way that hides the reason.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// signPayload makes every request carry the SHA-256 of its payload, also over TLS, where the SDK
// would leave it unsigned when it sends no other checksum.
func signPayload(stack *middleware.Stack) error {
	payload := &v4.ComputePayloadSHA256{}
	if _, found := stack.Finalize.Get(payload.ID()); !found {
		return nil
	}
	_, err := stack.Finalize.Swap(payload.ID(), payload)
	return err
}

// newRetryer repeats what can heal: 408, 429, 5xx, throttling, timeouts, broken connections and
// bodies that changed on their way. It does not repeat 400, 403, 404.
func newRetryer(retries int, longest time.Duration) aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = retries + 1
		o.MaxBackoff = longest
		o.Backoff = retry.NewExponentialJitterBackoff(longest)
		// The SDK's token bucket gives up early when many requests fail at once, which is
		// just when a dump must be patient; attempts and backoff bound it.
		o.RateLimiter = ratelimit.None
		o.Retryables = append(o.Retryables,
			retry.RetryableHTTPStatusCode{Codes: map[int]struct{}{http.StatusRequestTimeout: {}, http.StatusTooManyRequests: {}}},
			retry.RetryableErrorCode{Codes: map[string]struct{}{
				"BadDigest": {}, "XAmzContentSHA256Mismatch": {},
				"ConditionalRequestConflict": {}, "OperationAborted": {}, "InternalError": {},
				// versitygw, also when the folder of a new object was just removed with the last one in it
				"ExistingObjectIsDirectory": {},
			}},
			retry.IsErrorRetryableFunc(brokenAnswer), retry.IsErrorRetryableFunc(wrongClock))
	})
}

// brokenAnswer says yes to an answer that ended in the middle.
func brokenAnswer(err error) aws.Ternary {
	if networkReason(err) != "" {
		return aws.TrueTernary
	}
	return aws.UnknownTernary
}

// wrongClock says yes to a refusal that comes from this machine's clock: the SDK corrects its own by the answer's Date, but the answer
// to a HEAD has no body that could say RequestTimeTooSkewed.
func wrongClock(err error) aws.Ternary {
	var answer *smithyhttp.ResponseError
	if !errors.As(err, &answer) || answer.HTTPStatusCode() != http.StatusForbidden || answer.Response == nil {
		return aws.UnknownTernary
	}
	if _, wrong := skewOf(answer.Response.Header, time.Now()); wrong {
		return aws.TrueTernary
	}
	return aws.UnknownTernary
}

// skewOf is how far the server's clock is ahead of a time, and whether that is too far for a signature. S3 allows 15 minutes
// (docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html); the answer may have taken some.
func skewOf(h http.Header, now time.Time) (skew time.Duration, wrong bool) {
	at, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return 0, false
	}
	skew = at.Sub(now)
	return skew, skew.Abs() > 10*time.Minute
}
