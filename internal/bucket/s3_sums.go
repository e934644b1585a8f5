package bucket

import (
	"context"
	"net/http"
)

// checksumMode asks for the checksums that the server keeps of an object (docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html).
const checksumMode = "X-Amz-Checksum-Mode"

// askSums sends a request about an object that asks for its checksums too. A server that refuses the request because of that is asked
// without from then on.
func (b *s3Bucket) askSums(ctx context.Context, method, key string, header http.Header) (*http.Response, error) {
	if b.sumless.Load() {
		return b.ask(ctx, method, key, "", header, nil, "s3:GetObject")
	}
	plain := header.Clone()
	header.Set(checksumMode, "ENABLED")
	resp, err := b.ask(ctx, method, key, "", header, nil, "s3:GetObject")
	if status := statusOf(err); status != http.StatusBadRequest && status != http.StatusNotImplemented {
		return resp, err
	}
	again, failed := b.ask(ctx, method, key, "", plain, nil, "s3:GetObject")
	if failed != nil {
		return nil, err
	}
	b.sumless.Store(true)
	return again, nil
}
