package bucket

import (
	"context"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/leatdata/leat/internal/fault"
)

// until is the end of the retention as the SDK takes it.
func (l Lock) until() *time.Time {
	if l.Mode == "" {
		return nil
	}
	return &l.Until
}

// status is the legal hold as the SDK takes it.
func (l Lock) status() types.ObjectLockLegalHoldStatus {
	if l.Hold {
		return types.ObjectLockLegalHoldStatusOn
	}
	return ""
}

func (b *s3Bucket) Locks(ctx context.Context) (bool, error) {
	locks, err := b.locks.find(ctx, func(ctx context.Context) (Support, error) {
		out, err := b.client.GetObjectLockConfiguration(ctx, &s3.GetObjectLockConfigurationInput{Bucket: &b.at.name})
		switch {
		case unset(err, "ObjectLockConfigurationNotFoundError"), statusOf(err) == http.StatusNotImplemented, statusOf(err) == http.StatusMethodNotAllowed:
			return Unsupported, nil
		case err != nil:
			return Unknown, b.fault(ctx, err, "s3:GetBucketObjectLockConfiguration", "")
		case out.ObjectLockConfiguration == nil || out.ObjectLockConfiguration.ObjectLockEnabled != types.ObjectLockEnabledEnabled:
			return Unsupported, nil
		}
		return Supported, nil
	})
	return locks == Supported, err
}

// Lock sets what the object's writing has not set.
func (b *s3Bucket) Lock(ctx context.Context, key string, l Lock) error {
	if l.Mode != "" {
		err := b.digested(func(opts ...func(*s3.Options)) error {
			_, err := b.client.PutObjectRetention(ctx, &s3.PutObjectRetentionInput{
				Bucket: &b.at.name, Key: b.key(key), Retention: &types.ObjectLockRetention{Mode: types.ObjectLockRetentionMode(l.Mode), RetainUntilDate: &l.Until},
			}, opts...)
			return err
		})
		if err != nil {
			return b.fault(ctx, err, "s3:PutObjectRetention", key)
		}
	}
	if !l.Hold {
		return nil
	}
	err := b.digested(func(opts ...func(*s3.Options)) error {
		_, err := b.client.PutObjectLegalHold(ctx, &s3.PutObjectLegalHoldInput{
			Bucket: &b.at.name, Key: b.key(key), LegalHold: &types.ObjectLockLegalHold{Status: types.ObjectLockLegalHoldStatusOn},
		}, opts...)
		return err
	})
	return b.fault(ctx, err, "s3:PutObjectLegalHold", key)
}

// Private asks first whether the bucket has lists of grants at all, and who owns it.
func (b *s3Bucket) Private(ctx context.Context, key string) (bool, error) {
	grants, err := b.grants.find(ctx, b.hasGrants)
	if err != nil || grants == Unsupported {
		return err == nil, err
	}
	out, err := b.client.GetObjectAcl(ctx, &s3.GetObjectAclInput{Bucket: &b.at.name, Key: b.key(key)})
	if err = b.fault(ctx, err, "s3:GetObjectAcl", key); err != nil {
		if fault.Is(err, fault.BucketUnsupported) {
			b.grants.set(Unsupported)
			return true, nil
		}
		return false, err
	}
	if out.Owner == nil || len(out.Grants) != 1 || out.Grants[0].Grantee == nil {
		return false, nil
	}
	owner, only := aws.ToString(out.Owner.ID), out.Grants[0]
	if of := b.owner.Load(); of != nil && *of != owner {
		return false, nil
	}
	return only.Permission == types.PermissionFullControl && aws.ToString(only.Grantee.ID) == owner, nil
}

// hasGrants looks whether the bucket's owner owns all that is in it, so that lists of grants count for nothing
// (docs.aws.amazon.com/AmazonS3/latest/userguide/about-object-ownership.html). Where that may not be asked each object is.
func (b *s3Bucket) hasGrants(ctx context.Context) (Support, error) {
	out, err := b.client.GetBucketOwnershipControls(ctx, &s3.GetBucketOwnershipControlsInput{Bucket: &b.at.name})
	if err == nil && out.OwnershipControls != nil {
		for _, rule := range out.OwnershipControls.Rules {
			if rule.ObjectOwnership == types.ObjectOwnershipBucketOwnerEnforced {
				return Unsupported, nil
			}
		}
	}
	if ctx.Err() != nil {
		return Unknown, interrupted(ctx, b.at.String())
	}
	if of, err := b.client.GetBucketAcl(ctx, &s3.GetBucketAclInput{Bucket: &b.at.name}); err == nil && of.Owner != nil {
		b.owner.Store(of.Owner.ID)
	}
	return Supported, nil
}
