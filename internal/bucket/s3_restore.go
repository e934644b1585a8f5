package bucket

import (
	"context"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Restore looks first how the object is kept: an object that tiers by itself comes back for good, and no days may be named for it
// (docs.aws.amazon.com/AmazonS3/latest/API/API_RestoreObject.html).
func (b *s3Bucket) Restore(ctx context.Context, key string, days int, tier string) error {
	resp, err := b.ask(ctx, http.MethodHead, key, "", http.Header{}, nil, "s3:GetObject")
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if strings.Contains(resp.Header.Get("X-Amz-Restore"), `ongoing-request="true"`) {
		return nil
	}
	request := &types.RestoreRequest{GlacierJobParameters: &types.GlacierJobParameters{Tier: types.Tier(tier)}}
	if resp.Header.Get("X-Amz-Storage-Class") != string(types.StorageClassIntelligentTiering) {
		request.Days = aws.Int32(int32(days))
	}
	_, err = b.client.RestoreObject(ctx, &s3.RestoreObjectInput{Bucket: &b.at.name, Key: b.key(key), RestoreRequest: request})
	if unset(err, "RestoreAlreadyInProgress") {
		return nil
	}
	return b.fault(ctx, err, "s3:RestoreObject", key)
}
