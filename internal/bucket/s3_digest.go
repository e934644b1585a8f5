package bucket

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// wantsDigest says whether a server may have refused an upload because it had no Content-MD5: buckets with Object Lock and a default
// retention do (docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html). What it says has many forms, so that trying decides.
func wantsDigest(err error) bool {
	var said smithy.APIError
	return statusOf(err) == http.StatusBadRequest && errors.As(err, &said) && (said.ErrorCode() == "InvalidRequest" || said.ErrorCode() == "MissingContentMD5")
}

// upload sends the body of an object or a part, with its MD5 where the bucket wants that beside the SHA-256 that is signed.
func (b *s3Bucket) upload(ctx context.Context, key, query string, header http.Header, body *payload) (*http.Response, error) {
	digest := func() {
		sum := md5.Sum(body.data)
		header.Set("Content-Md5", base64.StdEncoding.EncodeToString(sum[:]))
	}
	if b.digests.Load() {
		digest()
	}
	resp, err := b.ask(ctx, http.MethodPut, key, query, header, body, "s3:PutObject")
	if wantsDigest(err) && header.Get("Content-Md5") == "" {
		digest()
		if resp, err = b.ask(ctx, http.MethodPut, key, query, header, body, "s3:PutObject"); err == nil {
			b.digests.Store(true)
		}
	}
	return resp, err
}

// digested is upload for what the SDK sends. send is called once or twice, each time with a new body.
func (b *s3Bucket) digested(send func(...func(*s3.Options)) error) error {
	digest := func(o *s3.Options) { o.APIOptions = append(o.APIOptions, smithyhttp.AddContentChecksumMiddleware) }
	if b.digests.Load() {
		return send(digest)
	}
	err := send()
	if !wantsDigest(err) {
		return err
	}
	if err = send(digest); err == nil {
		b.digests.Store(true)
	}
	return err
}
