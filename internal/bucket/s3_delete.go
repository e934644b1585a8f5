package bucket

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/leatdata/leat/internal/fault"
)

// deleteBatch is how many keys S3 takes at once
// (docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html).
const deleteBatch = 1000

// Delete names keys in XML where XML can say them, many in one request. Others go one by one, in the address of the request.
func (b *s3Bucket) Delete(ctx context.Context, keys ...string) error {
	var many, single []string
	for _, key := range keys {
		if plainInXML(b.at.root + key) {
			many = append(many, key)
		} else {
			single = append(single, key)
		}
	}
	for len(many) > 0 {
		batch := many[:min(len(many), deleteBatch)]
		many = many[len(batch):]
		if err := b.deleteMany(ctx, batch); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(deleteParallel)
	for _, key := range single {
		group.Go(func() (err error) {
			defer fault.Catch(&err, nil, b.at.object(key))
			return b.deleteOne(ctx, key)
		})
	}
	return group.Wait()
}

// plainInXML says whether a key stands in XML so that every reader takes the same bytes out again. XML 1.0 has no control characters, U+FFFE and
// U+FFFF at all (www.w3.org/TR/xml/#charsets), writers put U+FFFD in their place, and readers may change ends of lines and the space around a text.
func plainInXML(key string) bool {
	odd := func(r rune) bool {
		return unicode.IsControl(r) || r == '\uFFFE' || r == '\uFFFF' || r == '\u2028' || r == '\u2029'
	}
	return utf8.ValidString(key) && strings.TrimSpace(key) == key && !strings.ContainsFunc(key, odd)
}

func (b *s3Bucket) deleteOne(ctx context.Context, key string) error {
	_, err := b.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.at.name, Key: b.key(key)})
	if err = b.fault(ctx, err, "s3:DeleteObject", key); fault.Is(err, fault.ObjectMissing) {
		return nil
	}
	return err
}

// deleteMany has the answer tell of every key, and compares: only what the server says of a key that was asked for counts.
func (b *s3Bucket) deleteMany(ctx context.Context, keys []string) error {
	ids, answered := make([]types.ObjectIdentifier, len(keys)), make(map[string]bool, len(keys))
	for i, key := range keys {
		ids[i].Key = b.key(key)
		answered[b.at.root+key] = false
	}
	out, err := b.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{
		Bucket: &b.at.name, Delete: &types.Delete{Objects: ids, Quiet: aws.Bool(false)},
	})
	if err != nil {
		return b.fault(ctx, err, "s3:DeleteObject", keys[0])
	}
	var failed error
	for _, e := range out.Errors {
		key := aws.ToString(e.Key)
		if code := aws.ToString(e.Code); code != "NoSuchKey" && failed == nil {
			failed = b.codeFault(code, aws.ToString(e.Message), "s3:DeleteObject", strings.TrimPrefix(key, b.at.root))
		}
		if err := b.asked(answered, key); err != nil {
			return errors.Join(err, failed)
		}
	}
	for _, d := range out.Deleted {
		if err := b.asked(answered, aws.ToString(d.Key)); err != nil {
			return errors.Join(err, failed)
		}
	}
	for key, told := range answered {
		if !told && failed == nil {
			failed = b.newFault(fault.BucketFailed, fmt.Errorf("the answer to a deletion does not say what became of %q", key), "", strings.TrimPrefix(key, b.at.root))
		}
	}
	return failed
}

// asked notes the answer about a key; about one that was not asked for it is an error.
func (b *s3Bucket) asked(answered map[string]bool, key string) error {
	if _, asked := answered[key]; !asked {
		return b.newFault(fault.BucketFailed, fmt.Errorf("the answer to a deletion tells of %q, which was not asked for", key), "", "")
	}
	answered[key] = true
	return nil
}
