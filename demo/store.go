package main

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/testlab"
)

// store is a bucket on an S3 server inside this process.
type store struct{ testlab.Store }

func openStore(ctx context.Context) (*store, error) {
	s, err := testlab.StartS3()
	if err != nil {
		return nil, err
	}
	s.Bucket = "egress"
	_, err = s.Client().CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &s.Bucket})
	return &store{s}, err
}

func (s *store) url(path string) string { return "s3://" + s.Bucket + "/" + path }

// open gives a folder of the bucket to read.
func (s *store) open(ctx context.Context, path string) (bucket.Bucket, error) {
	return bucket.Open(ctx, s.url(path), bucket.Options{
		Endpoint: s.Endpoint, Region: s.Region, AccessKeyID: s.AccessKey, SecretAccessKey: func() string { return s.SecretKey },
	})
}
