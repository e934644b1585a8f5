package bucket

import (
	"context"

	"github.com/leatdata/leat/internal/fault"
)

func openGCS(_ context.Context, at place, _ Options) (Bucket, error) {
	return nil, fault.New(fault.BucketUnsupported, at.String(), "this kind is not built in")
}
