package bucket

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/encoding/httpbinding"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/leatdata/leat/internal/fault"
)

func (b *s3Bucket) Place() (name, root string) { return b.at.name, b.at.root }

// cephRequest is the shape of the ids that Ceph gives to requests.
var cephRequest = regexp.MustCompile(`^tx[0-9a-f]{8,}-[0-9a-f]+-[0-9a-f]+-`)

func (b *s3Bucket) Server(ctx context.Context) (Server, error) {
	if b.known.Endpoint == "" || isAWS(b.known.Endpoint) {
		return ServerAWS, nil
	}
	_, header, err := b.unsigned(ctx, http.MethodHead, "")
	if err != nil {
		return "", err
	}
	if cephRequest.MatchString(header.Get("X-Amz-Request-Id")) {
		return ServerCeph, nil
	}
	return ServerOther, nil
}

func (b *s3Bucket) Make(ctx context.Context) (bool, error) {
	_, headErr := b.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &b.at.name})
	if headErr == nil {
		// Another user's bucket may be open to us: what is ours is in our list. Only without the right to read it, making tells.
		if mine, err := b.Buckets(ctx); err == nil && slices.Contains(mine, b.at.name) {
			return false, nil
		}
	} else if err := b.fault(ctx, headErr, "s3:ListBucket", ""); statusOf(headErr) == 0 || fault.Is(err, fault.BucketAuth) {
		return false, err
	}
	in := &s3.CreateBucketInput{Bucket: &b.at.name}
	// Elsewhere regions are names for things of the server's own, and most refuse what they do not know.
	if r := b.known.Region; r != "us-east-1" && (b.known.Endpoint == "" || isAWS(b.known.Endpoint)) {
		in.CreateBucketConfiguration = &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(r)}
	}
	_, err := b.client.CreateBucket(ctx, in)
	var api smithy.APIError
	switch {
	case err == nil && statusOf(headErr) == http.StatusNotFound:
		return true, nil
	case err == nil:
		return false, nil
	case errors.As(err, &api) && api.ErrorCode() == "BucketAlreadyOwnedByYou":
		return false, nil
	case errors.As(err, &api) && api.ErrorCode() == "BucketAlreadyExists":
		return false, b.newFault(fault.BucketForeign, err, "", "")
	}
	return false, b.setting(ctx, err, "s3:CreateBucket")
}

// setting judges the error of a request about the bucket's settings. A server that does not know such a request says so in many ways.
func (b *s3Bucket) setting(ctx context.Context, err error, right string) error {
	if err == nil {
		return nil
	}
	f := fault.Of(b.fault(ctx, err, right, ""))
	f.Where = b.at.String()
	if f.Code == fault.BucketRights {
		f.Mend = "Allow " + right + " on " + arnOf(b.at.name) + "."
	}
	return f
}

// unset says whether an error means only that nobody made the setting.
func unset(err error, codes ...string) bool {
	var api smithy.APIError
	return errors.As(err, &api) && slices.Contains(codes, api.ErrorCode())
}

func (b *s3Bucket) lacks(what string) error {
	return fault.New(fault.BucketUnsupported, b.at.String(), "the server has no %s", what)
}

func (b *s3Bucket) Encryption(ctx context.Context) (Encryption, error) {
	out, err := b.client.GetBucketEncryption(ctx, &s3.GetBucketEncryptionInput{Bucket: &b.at.name})
	if unset(err, "ServerSideEncryptionConfigurationNotFoundError") {
		return Encryption{}, nil
	}
	if err != nil {
		return Encryption{}, b.setting(ctx, err, "s3:GetEncryptionConfiguration")
	}
	if out.ServerSideEncryptionConfiguration == nil || len(out.ServerSideEncryptionConfiguration.Rules) == 0 {
		// Older Ceph does not know the request and answers with the list of objects.
		return Encryption{}, b.lacks("default encryption of a bucket")
	}
	for _, rule := range out.ServerSideEncryptionConfiguration.Rules {
		if by := rule.ApplyServerSideEncryptionByDefault; by != nil {
			return Encryption{string(by.SSEAlgorithm), aws.ToString(by.KMSMasterKeyID)}, nil
		}
	}
	return Encryption{}, nil
}

func (b *s3Bucket) SetEncryption(ctx context.Context, e Encryption) error {
	_, err := b.client.PutBucketEncryption(ctx, &s3.PutBucketEncryptionInput{
		Bucket: &b.at.name,
		ServerSideEncryptionConfiguration: &types.ServerSideEncryptionConfiguration{Rules: []types.ServerSideEncryptionRule{{
			ApplyServerSideEncryptionByDefault: &types.ServerSideEncryptionByDefault{SSEAlgorithm: types.ServerSideEncryption(e.Algorithm), KMSMasterKeyID: optional(e.KeyID)},
		}}},
	})
	if unset(err, "InvalidArgument") && e.KeyID == "" { // what Ceph before 17 says
		return b.lacks("default encryption of a bucket")
	}
	return b.setting(ctx, err, "s3:PutEncryptionConfiguration")
}

// lifecycle is what a bucket's rules are read and written as, so that a change of one keeps all the rest.
type lifecycle struct {
	rules   []types.LifecycleRule
	minimum types.TransitionDefaultMinimumObjectSize // AWS alone has it
}

func (b *s3Bucket) lifecycle(ctx context.Context) (lifecycle, error) {
	out, err := b.client.GetBucketLifecycleConfiguration(ctx, &s3.GetBucketLifecycleConfigurationInput{Bucket: &b.at.name})
	if unset(err, "NoSuchLifecycleConfiguration") {
		return lifecycle{}, nil
	}
	if err != nil {
		return lifecycle{}, b.setting(ctx, err, "s3:GetLifecycleConfiguration")
	}
	return lifecycle{out.Rules, out.TransitionDefaultMinimumObjectSize}, nil
}

func (b *s3Bucket) setLifecycle(ctx context.Context, l lifecycle) error {
	rules := l.rules
	if len(rules) == 0 {
		_, err := b.client.DeleteBucketLifecycle(ctx, &s3.DeleteBucketLifecycleInput{Bucket: &b.at.name})
		return b.setting(ctx, err, "s3:PutLifecycleConfiguration")
	}
	for i := range rules {
		if r := &rules[i]; r.Filter == nil { // the old form, which may not stand beside the new one
			r.Filter, r.Prefix = &types.LifecycleRuleFilter{Prefix: aws.String(prefixOf(*r))}, nil //nolint:staticcheck // servers still answer in it
		}
	}
	_, err := b.client.PutBucketLifecycleConfiguration(ctx, &s3.PutBucketLifecycleConfigurationInput{
		Bucket: &b.at.name, LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: rules}, TransitionDefaultMinimumObjectSize: l.minimum,
	})
	return b.setting(ctx, err, "s3:PutLifecycleConfiguration")
}

// prefixOf is the prefix that a rule holds for, in whichever of its three places it stands.
func prefixOf(r types.LifecycleRule) string {
	switch {
	case r.Filter == nil:
		return aws.ToString(r.Prefix) //nolint:staticcheck // servers still answer in it
	case r.Filter.And != nil:
		return aws.ToString(r.Filter.And.Prefix)
	}
	return aws.ToString(r.Filter.Prefix)
}

func expiryOf(r types.LifecycleRule) Expiry {
	e := Expiry{ID: aws.ToString(r.ID), Enabled: r.Status == types.ExpirationStatusEnabled, Prefix: prefixOf(r)}
	if f := r.Filter; f != nil {
		e.Narrow = f.Tag != nil || f.ObjectSizeGreaterThan != nil || f.ObjectSizeLessThan != nil || f.And != nil
	}
	if x := r.Expiration; x != nil {
		e.Days = int(aws.ToInt32(x.Days))
	}
	// A number of versions to keep keeps some for ever.
	if x := r.NoncurrentVersionExpiration; x != nil && aws.ToInt32(x.NewerNoncurrentVersions) == 0 {
		e.NoncurrentDays = int(aws.ToInt32(x.NoncurrentDays))
	}
	if x := r.AbortIncompleteMultipartUpload; x != nil {
		e.AbortDays = int(aws.ToInt32(x.DaysAfterInitiation))
	}
	return e
}

func (b *s3Bucket) Expiries(ctx context.Context) ([]Expiry, error) {
	l, err := b.lifecycle(ctx)
	if err != nil {
		return nil, err
	}
	var out []Expiry
	for _, r := range l.rules {
		if e := expiryOf(r); e.Days+e.NoncurrentDays+e.AbortDays > 0 {
			out = append(out, e)
		}
	}
	return out, nil
}

func (b *s3Bucket) SetExpiry(ctx context.Context, e Expiry) error {
	l, err := b.lifecycle(ctx)
	if err != nil {
		return err
	}
	l.rules = slices.DeleteFunc(l.rules, func(r types.LifecycleRule) bool { return aws.ToString(r.ID) == e.ID })
	rule := types.LifecycleRule{ID: &e.ID, Status: types.ExpirationStatusEnabled, Filter: &types.LifecycleRuleFilter{Prefix: &e.Prefix}}
	if e.Days > 0 {
		rule.Expiration = &types.LifecycleExpiration{Days: aws.Int32(int32(e.Days))}
	}
	if e.NoncurrentDays > 0 {
		rule.NoncurrentVersionExpiration = &types.NoncurrentVersionExpiration{NoncurrentDays: aws.Int32(int32(e.NoncurrentDays))}
	}
	if e.AbortDays > 0 {
		rule.AbortIncompleteMultipartUpload = &types.AbortIncompleteMultipartUpload{DaysAfterInitiation: aws.Int32(int32(e.AbortDays))}
	}
	if e.Days+e.NoncurrentDays+e.AbortDays > 0 {
		l.rules = append(l.rules, rule)
	}
	return b.setLifecycle(ctx, l)
}

func (b *s3Bucket) PublicBlock(ctx context.Context) (PublicBlock, error) {
	out, err := b.client.GetPublicAccessBlock(ctx, &s3.GetPublicAccessBlockInput{Bucket: &b.at.name})
	if unset(err, "NoSuchPublicAccessBlockConfiguration") {
		return PublicBlock{}, nil
	}
	if err != nil {
		return PublicBlock{}, b.setting(ctx, err, "s3:GetBucketPublicAccessBlock")
	}
	c := out.PublicAccessBlockConfiguration
	if c == nil {
		return PublicBlock{}, b.lacks("block of public access")
	}
	return PublicBlock{aws.ToBool(c.BlockPublicAcls), aws.ToBool(c.IgnorePublicAcls), aws.ToBool(c.BlockPublicPolicy), aws.ToBool(c.RestrictPublicBuckets)}, nil
}

func (b *s3Bucket) SetPublicBlock(ctx context.Context, p PublicBlock) error {
	if p == (PublicBlock{}) {
		_, err := b.client.DeletePublicAccessBlock(ctx, &s3.DeletePublicAccessBlockInput{Bucket: &b.at.name})
		return b.setting(ctx, err, "s3:PutBucketPublicAccessBlock")
	}
	_, err := b.client.PutPublicAccessBlock(ctx, &s3.PutPublicAccessBlockInput{
		Bucket: &b.at.name, PublicAccessBlockConfiguration: &types.PublicAccessBlockConfiguration{
			BlockPublicAcls: &p.RefuseACLs, IgnorePublicAcls: &p.IgnoreACLs, BlockPublicPolicy: &p.RefusePolicy, RestrictPublicBuckets: &p.RestrictToOwn,
		},
	})
	return b.setting(ctx, err, "s3:PutBucketPublicAccessBlock")
}

func (b *s3Bucket) Versioning(ctx context.Context) (string, error) {
	out, err := b.client.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: &b.at.name})
	if err != nil {
		return "", b.setting(ctx, err, "s3:GetBucketVersioning")
	}
	return string(out.Status), nil
}

func (b *s3Bucket) SetVersioning(ctx context.Context) error {
	return b.setVersioning(ctx, types.BucketVersioningStatusEnabled)
}

func (b *s3Bucket) setVersioning(ctx context.Context, status types.BucketVersioningStatus) error {
	_, err := b.client.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{
		Bucket: &b.at.name, VersioningConfiguration: &types.VersioningConfiguration{Status: status},
	})
	return b.setting(ctx, err, "s3:PutBucketVersioning")
}

func (b *s3Bucket) Policy(ctx context.Context) (string, error) {
	out, err := b.client.GetBucketPolicy(ctx, &s3.GetBucketPolicyInput{Bucket: &b.at.name})
	if unset(err, "NoSuchBucketPolicy") {
		return "", nil
	}
	if err != nil {
		return "", b.setting(ctx, err, "s3:GetBucketPolicy")
	}
	return aws.ToString(out.Policy), nil
}

func (b *s3Bucket) SetPolicy(ctx context.Context, policy string) error {
	_, err := b.client.PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: &b.at.name, Policy: &policy})
	return b.setting(ctx, err, "s3:PutBucketPolicy")
}

// Restate leaves out what cannot be read: it could not be written as it is.
func (b *s3Bucket) Restate(ctx context.Context) ([]Restated, error) {
	var done []Restated
	did := func(setting, right string, err error) { done = append(done, Restated{setting, right, err}) }
	policy, err := b.Policy(ctx)
	if err == nil && policy != "" {
		did("policy", "s3:PutBucketPolicy", b.SetPolicy(ctx, policy))
	}
	l, lcErr := b.lifecycle(ctx)
	if lcErr == nil && len(l.rules) > 0 {
		did("lifecycle", "s3:PutLifecycleConfiguration", b.setLifecycle(ctx, l))
	}
	status, verErr := b.Versioning(ctx)
	if verErr == nil && status != "" {
		did("versioning", "s3:PutBucketVersioning", b.setVersioning(ctx, types.BucketVersioningStatus(status)))
	}
	if len(done) > 0 {
		return done, nil
	}
	return nil, cmp.Or(err, lcErr, verErr)
}

func (b *s3Bucket) Put(ctx context.Context, key string, asking bool) error {
	in := &s3.PutObjectInput{Bucket: &b.at.name, Key: b.key(key), ContentType: aws.String("text/plain")}
	if asking {
		in.ServerSideEncryption, in.SSEKMSKeyId = types.ServerSideEncryption(b.opts.SSE), optional(b.opts.KMSKeyID)
	}
	err := b.digested(func(opts ...func(*s3.Options)) error {
		in.Body = bytes.NewReader([]byte("leat bucket: this object may be deleted\n"))
		_, err := b.client.PutObject(ctx, in, opts...)
		return err
	})
	return b.fault(ctx, err, "s3:PutObject", key)
}

// expiryDate is in the header that tells when an object goes.
var expiryDate = regexp.MustCompile(`expiry-date="([^"]+)"`)

func (b *s3Bucket) Look(ctx context.Context, key string) (Sight, error) {
	out, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.at.name, Key: b.key(key)})
	if err != nil {
		return Sight{}, b.missing(ctx, b.fault(ctx, err, "s3:GetObject", key))
	}
	s := Sight{Encryption: string(out.ServerSideEncryption)}
	if said := expiryDate.FindStringSubmatch(aws.ToString(out.Expiration)); said != nil {
		s.Expires, _ = time.Parse(time.RFC1123, said[1]) // what cannot be read is not told
	}
	return s, nil
}

func (b *s3Bucket) Anonymous(ctx context.Context, method, key string) (int, error) {
	status, _, err := b.unsigned(ctx, method, key)
	return status, err
}

// unsigned sends a request that no key has signed; its answer's body is dropped.
func (b *s3Bucket) unsigned(ctx context.Context, method, key string) (int, http.Header, error) {
	at, err := b.courier()
	if err != nil {
		return 0, nil, err
	}
	where := at.base
	if key != "" {
		path := strings.TrimSuffix(where.Path, "/") + "/" + b.at.root + key
		where.Path, where.RawPath = path, httpbinding.EscapePath(path, false)
	} else {
		where.RawQuery = url.Values{"list-type": {"2"}, "max-keys": {"1"}, "prefix": {b.at.root}}.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, where.String(), nil)
	if err != nil {
		return 0, nil, fault.New(fault.Internal, b.at.object(key), "the request cannot be made").Because(&cause{scrub(err), err})
	}
	resp, err := b.wire.RoundTrip(req)
	if err != nil {
		return 0, nil, b.fault(ctx, err, "", key)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // only so that the connection can be used again
	return resp.StatusCode, resp.Header, nil
}

func (b *s3Bucket) Buckets(ctx context.Context) (names []string, err error) {
	out, err := b.client.ListBuckets(ctx, &s3.ListBucketsInput{})
	if err != nil {
		return nil, b.setting(ctx, err, "s3:ListAllMyBuckets")
	}
	_, own, tenant := strings.Cut(b.at.name, ":")
	for _, found := range out.Buckets {
		name := aws.ToString(found.Name)
		if tenant && name == own { // a list of one's own buckets is without the tenant
			name = b.at.name
		}
		names = append(names, name)
	}
	return names, nil
}

// inRegion tries a request about another bucket, and once more in the region that the server says it lies in.
func (b *s3Bucket) inRegion(try func(...func(*s3.Options)) error) error {
	err := try()
	var answer *smithyhttp.ResponseError
	if errors.As(err, &answer) && answer.Response != nil {
		if region := answer.Response.Header.Get("X-Amz-Bucket-Region"); region != "" && region != b.known.Region {
			err = try(func(o *s3.Options) { o.Region = region })
		}
	}
	return err
}

func (b *s3Bucket) Lists(ctx context.Context, name string) (bool, error) {
	err := b.inRegion(func(opts ...func(*s3.Options)) error {
		_, err := b.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &name, MaxKeys: aws.Int32(1)}, opts...)
		return err
	})
	switch statusOf(err) {
	case http.StatusForbidden, http.StatusNotFound:
		return false, nil
	}
	return err == nil, b.setting(ctx, err, "")
}

func (b *s3Bucket) Writes(ctx context.Context, name string) (bool, error) {
	err := b.inRegion(func(opts ...func(*s3.Options)) error {
		_, err := b.client.UploadPart(ctx, &s3.UploadPartInput{
			Bucket: &name, Key: aws.String(".leat-nothing-is-written"), UploadId: aws.String("2~nobody-began-this"), PartNumber: aws.Int32(1), Body: bytes.NewReader([]byte("x")),
		}, opts...)
		return err
	})
	switch {
	case unset(err, "NoSuchUpload"):
		return true, nil
	case statusOf(err) == http.StatusForbidden, statusOf(err) == http.StatusNotFound:
		return false, nil
	}
	return err == nil, b.setting(ctx, err, "")
}

func (b *s3Bucket) Beside(ctx context.Context) ([]string, error) {
	const enough = 5
	var found []string
	above := ""
	for segment := range strings.SplitSeq(strings.TrimSuffix(b.at.root, "/"), "/") {
		if segment == "" {
			break // the path is the whole bucket
		}
		out, err := b.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &b.at.name, Prefix: &above, Delimiter: aws.String("/"), MaxKeys: aws.Int32(100)})
		if err != nil {
			return found, b.setting(ctx, err, "s3:ListBucket")
		}
		for _, p := range out.CommonPrefixes {
			if aws.ToString(p.Prefix) != above+segment+"/" {
				found = append(found, aws.ToString(p.Prefix))
			}
		}
		for _, o := range out.Contents {
			if aws.ToString(o.Key) != above { // the marker that some consoles leave for a "folder"
				found = append(found, aws.ToString(o.Key))
			}
		}
		if len(found) >= enough {
			return found[:enough], nil
		}
		above += segment + "/"
	}
	return found, nil
}
