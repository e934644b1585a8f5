package bucket

import "github.com/leatdata/leat/internal/fault"

func openAzure(at place, _ Options) (Bucket, error) {
	return nil, fault.New(fault.BucketUnsupported, at.String(), "this kind is not built in")
}
