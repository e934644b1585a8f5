package bucket

import (
	"context"
	"iter"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/leatdata/leat/internal/fault"
)

func (b *s3Bucket) OldVersions(ctx context.Context) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		// Without it a key with a character that XML does not know breaks the listing.
		in := &s3.ListObjectVersionsInput{Bucket: &b.at.name, Prefix: &b.at.root, EncodingType: types.EncodingTypeUrl}
		for {
			page, err := b.client.ListObjectVersions(ctx, in)
			if err != nil {
				yield(Object{}, b.setting(ctx, err, "s3:ListBucketVersions"))
				return
			}
			said := func(text *string) string {
				if page.EncodingType == types.EncodingTypeUrl {
					if plain, ok := unescapeQuery([]byte(aws.ToString(text))); ok {
						return string(plain)
					}
				}
				return aws.ToString(text)
			}
			for _, v := range page.Versions {
				key, below := strings.CutPrefix(said(v.Key), b.at.root)
				if aws.ToBool(v.IsLatest) || !below {
					continue
				}
				if !yield(Object{Key: key, Size: aws.ToInt64(v.Size), ETag: aws.ToString(v.ETag), Modified: aws.ToTime(v.LastModified)}, nil) {
					return
				}
			}
			if !aws.ToBool(page.IsTruncated) {
				return
			}
			key, version := said(page.NextKeyMarker), aws.ToString(page.NextVersionIdMarker)
			if key == "" || key == aws.ToString(in.KeyMarker) && version == aws.ToString(in.VersionIdMarker) {
				yield(Object{}, b.newFault(fault.BucketFailed, badXML("it says that there is more and not where"), "", ""))
				return
			}
			in.KeyMarker, in.VersionIdMarker = &key, page.NextVersionIdMarker
		}
	}
}
