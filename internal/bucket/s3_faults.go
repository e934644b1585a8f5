package bucket

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/leatdata/leat/internal/fault"
)

// s3Codes judges the codes of S3
// (docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html), and those that Ceph and others
// add. What is not here is judged by its HTTP status.
var s3Codes = map[string]fault.Code{
	"NoSuchBucket": fault.BucketMissing,
	"NoSuchKey":    fault.ObjectMissing,
	"NotFound":     fault.ObjectMissing,
	// What says so without S3's own words is something before the server, such as a proxy whose server is being replaced.
	strangers404: fault.BucketBusy,

	"ExpiredToken":                 fault.BucketAuth,
	"ExpiredTokenException":        fault.BucketAuth,
	"InvalidToken":                 fault.BucketAuth,
	"TokenRefreshRequired":         fault.BucketAuth,
	"InvalidAccessKeyId":           fault.BucketAuth,
	"SignatureDoesNotMatch":        fault.BucketAuth,
	"AuthorizationHeaderMalformed": fault.BucketAuth,
	"RequestTimeTooSkewed":         fault.BucketAuth,
	"RequestExpired":               fault.BucketAuth,
	"UserSuspended":                fault.BucketAuth,
	"InvalidClientTokenId":         fault.BucketAuth,

	"AccessDenied":      fault.BucketRights,
	"AllAccessDisabled": fault.BucketRights,
	"AccountProblem":    fault.BucketRights,

	"PreconditionFailed": fault.ObjectExists,

	// Of a GET and of a copy
	// (docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html, API_CopyObject.html).
	"InvalidObjectState":         fault.ObjectArchived,
	"ObjectNotInActiveTierError": fault.ObjectArchived,

	"SlowDown":                   fault.BucketBusy,
	"ServiceUnavailable":         fault.BucketBusy,
	"InternalError":              fault.BucketBusy,
	"RequestTimeout":             fault.BucketBusy,
	"Throttling":                 fault.BucketBusy,
	"ThrottlingException":        fault.BucketBusy,
	"OperationAborted":           fault.BucketBusy,
	"ConditionalRequestConflict": fault.BucketBusy,

	// Servers on file systems cannot have a file and a folder of one name: versitygw, and MinIO.
	"ObjectParentIsFile":            fault.KeyRefused,
	"ExistingObjectIsDirectory":     fault.KeyRefused,
	"XMinioParentIsObject":          fault.KeyRefused,
	"XMinioObjectExistsAsDirectory": fault.KeyRefused,

	"QuotaExceeded":       fault.BucketFull,
	"InsufficientStorage": fault.BucketFull,
	"XMinioStorageFull":   fault.BucketFull,

	"NotImplemented":            fault.BucketUnsupported,
	"BadDigest":                 fault.ChecksumMismatch,
	"InvalidDigest":             fault.ChecksumMismatch,
	"XAmzContentSHA256Mismatch": fault.ChecksumMismatch,
}

// statusOf returns the HTTP status that came with err, 0 if none did.
func statusOf(err error) int {
	var answer *smithyhttp.ResponseError
	if errors.As(err, &answer) {
		return answer.HTTPStatusCode()
	}
	return 0
}

// fault judges an error of the SDK. right is the permission that the request needs.
func (b *s3Bucket) fault(ctx context.Context, err error, right, key string) error {
	if err == nil {
		return nil
	}
	var api smithy.APIError
	var creds *credentialsError
	answered := errors.As(err, &api)
	switch {
	case fault.Is(err, fault.Internal):
		return err
	case ctx.Err() != nil && !answered:
		return interrupted(ctx, b.at.object(key))
	case errors.As(err, &creds):
		return fault.New(fault.BucketAuth, b.at.object(key), "no usable credentials were found").
			Because(&cause{scrub(creds.err), err})
	case !answered && statusOf(err) < 400:
		if f := networkFault(err, b.at.object(key)); f != nil {
			return f
		}
		return fault.New(fault.BucketFailed, b.at.object(key), "the request failed").Because(&cause{scrub(err), err})
	}
	code := plainStatus(statusOf(err))
	if answered {
		if known, found := s3Codes[api.ErrorCode()]; found {
			code = known
		}
	}
	return b.newFault(code, err, right, key)
}

// codeFault judges a code that came inside an answer, as DeleteObjects gives them.
func (b *s3Bucket) codeFault(code, message, right, key string) error {
	return b.fault(context.Background(), &smithy.GenericAPIError{Code: code, Message: message}, right, key)
}

func (b *s3Bucket) newFault(code fault.Code, err error, right, key string) error {
	f := fault.New(code, b.at.object(key), "%s", whats[code]).Because(&cause{s3Text(err), err})
	if mend := b.mend(code, err, right); mend != "" {
		f.Mend = mend
	}
	return f
}

// s3Text is what the server said, without the request's URL.
func s3Text(err error) string {
	var api smithy.APIError
	status := statusOf(err)
	switch {
	case !errors.As(err, &api):
		return scrub(err)
	case api.ErrorMessage() == "" || api.ErrorMessage() == "UnknownError":
		return fmt.Sprintf("%s (HTTP status %d)", api.ErrorCode(), status)
	}
	return fmt.Sprintf("%s: %s (HTTP status %d)", api.ErrorCode(), strings.TrimSpace(api.ErrorMessage()), status)
}

// arnOf is how policies name a bucket. Ceph has the tenant in the place of the account
// (docs.ceph.com/en/latest/radosgw/bucketpolicy/).
func arnOf(name string) string {
	if tenant, its, ok := strings.Cut(name, ":"); ok {
		return "arn:aws:s3::" + tenant + ":" + its
	}
	return "arn:aws:s3:::" + name
}

func (b *s3Bucket) mend(code fault.Code, err error, right string) string {
	var api smithy.APIError
	name := ""
	if errors.As(err, &api) {
		name = api.ErrorCode()
	}
	switch {
	case code == fault.BucketRights && right != "":
		what := arnOf(b.at.name)
		if !strings.HasPrefix(right, "s3:ListBucket") {
			what += "/" + b.at.root + "*"
		}
		if b.opts.SSE == "aws:kms" {
			return fmt.Sprintf("Allow %s on %s, and kms:GenerateDataKey and kms:Decrypt on the key.", right, what)
		}
		if !b.opts.RequesterPays && (b.known.Endpoint == "" || isAWS(b.known.Endpoint)) {
			return fmt.Sprintf("Allow %s on %s. If the bucket's owner lets requesters pay, set requester_pays: true.", right, what)
		}
		return fmt.Sprintf("Allow %s on %s.", right, what)
	case name == "RequestTimeTooSkewed":
		return "Set this machine's clock: it and the server's differ by too much."
	case name == "AuthorizationHeaderMalformed", statusOf(err) == http.StatusMovedPermanently, statusOf(err) == http.StatusTemporaryRedirect:
		return "Set the region that the bucket is in."
	case code == fault.BucketMissing:
		return fmt.Sprintf("Create the bucket %s, or correct its name.", b.at.name)
	case name == "XAmzContentSHA256Mismatch" && b.known.Checksums == "crc32":
		return "If it happens always, the server does not know the SDK's checksums: set checksums to off."
	}
	return ""
}

// query is the part of a URL that may hold signatures and tokens.
var query = regexp.MustCompile(`\?[^\s"']+`)

// scrub is err's text without the queries of URLs in it.
func scrub(err error) string { return query.ReplaceAllString(err.Error(), "?…") }
