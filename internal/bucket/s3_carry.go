package bucket

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/encoding/httpbinding"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"golang.org/x/sync/errgroup"

	"github.com/leatdata/leat/internal/fault"
)

// courier sends the few requests that come once an object or page, with the SDK's credentials, but without the rest of the SDK, which
// takes more time than the server and the network for a small object.
type courier struct {
	base   url.URL // of the bucket
	creds  aws.CredentialsProvider
	signer s3Signer
	skew   atomic.Int64 // nanoseconds that the server's clock is ahead of ours, where that is too much for a signature
}

// newCourier asks the SDK's own rules where the bucket is.
func (b *s3Bucket) newCourier(ctx context.Context) (*courier, error) {
	o := b.client.Options()
	at, err := s3.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, s3.EndpointParameters{
		Bucket: &b.at.name, Region: &o.Region, ForcePathStyle: aws.Bool(o.UsePathStyle), Endpoint: o.BaseEndpoint,
	})
	if err != nil {
		return nil, fault.New(fault.ConfigInvalid, b.at.String(), "the bucket's address cannot be made").Because(&cause{scrub(err), err})
	}
	return &courier{base: at.URI, creds: o.Credentials, signer: s3Signer{region: o.Region}}, nil
}

// payload is a request's body with the hash that its signature covers.
type payload struct {
	data []byte
	sum  [sha256.Size]byte
}

// emptySHA256 is the hash of no bytes.
const emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// ask sends a request about an object and returns the answer, or the fault that it tells. right is the permission it needs.
func (b *s3Bucket) ask(ctx context.Context, method, key, query string, header http.Header, body *payload, right string) (*http.Response, error) {
	at, err := b.courier()
	if err != nil {
		return nil, err
	}
	resp, err := b.exchange(ctx, at, method, "/"+b.at.root+key, query, header, body)
	if err != nil {
		return nil, b.fault(ctx, err, right, key)
	}
	return resp, nil
}

// exchange sends a request once and returns the answer, or the error that it tells, in the form of the SDK's own. path begins at the bucket.
func (b *s3Bucket) exchange(
	ctx context.Context, at *courier, method, path, query string, header http.Header, body *payload,
) (*http.Response, error) {
	if b.keys == nil {
		return b.exchangeOnce(ctx, at, method, path, query, header, body)
	}
	used, none := b.keys.Retrieve(ctx)
	resp, err := b.exchangeOnce(ctx, at, method, path, query, header, body)
	if pause, is := outdated(err); is && none == nil && b.keys.renewed(ctx, used, pause) {
		return b.exchangeOnce(ctx, at, method, path, query, header, body)
	}
	return resp, err
}

func (b *s3Bucket) exchangeOnce(
	ctx context.Context, at *courier, method, path, query string, header http.Header, body *payload,
) (*http.Response, error) {
	resp, err := b.send(ctx, at, method, path, query, header, body)
	if err == nil && resp.StatusCode == http.StatusForbidden {
		signed := time.Now().Add(time.Duration(at.skew.Load()))
		if skew, wrong := skewOf(resp.Header, signed); wrong { // this machine's clock: see wrongClock
			at.skew.Add(int64(skew))
			_ = resp.Body.Close()
			resp, err = b.send(ctx, at, method, path, query, header, body)
		}
	}
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 {
		b.seen.Store(true)
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, told(resp)
}

func (b *s3Bucket) send(ctx context.Context, at *courier, method, path, query string, header http.Header, body *payload) (*http.Response, error) {
	where := at.base
	path = cmp.Or(strings.TrimSuffix(where.Path, "/")+path, "/")
	where.Path, where.RawPath, where.RawQuery = path, httpbinding.EscapePath(path, false), query
	req := (&http.Request{Method: method, URL: &where, Host: where.Host, Header: header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}).WithContext(ctx)
	sum := emptySHA256
	if body != nil {
		sum = hex.EncodeToString(body.sum[:])
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body.data)), int64(len(body.data))
		if len(body.data) == 0 {
			req.Body = http.NoBody
		}
	}
	header.Set("X-Amz-Content-Sha256", sum)
	if b.opts.RequesterPays {
		header.Set(payerHeader, requester)
	}
	if at.creds != nil {
		creds, err := at.creds.Retrieve(ctx)
		if err != nil {
			return nil, err
		}
		at.signer.sign(req, creds, sum, time.Now().Add(time.Duration(at.skew.Load())))
	}
	resp, err := b.wire.RoundTrip(req)
	if err != nil {
		// As the SDK has it. net/http has errors without a type; that they came from the network is known here alone.
		return nil, &url.Error{Op: method, Err: err}
	}
	return resp, nil
}

// strangers404 is the code of a 404 that has a body, as all but answers to HEAD have, and no code in it.
const strangers404 = "NotFoundByAProxy"

// told reads the error that an answer holds, in the form of the SDK's own.
func told(resp *http.Response) error {
	var said struct {
		Code    string `xml:"Code"`
		Message string `xml:"Message"`
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err == nil {
		err = xml.Unmarshal(legible(text), &said)
	}
	if err != nil || said.Code == "" {
		if resp.StatusCode == http.StatusNotFound && resp.Request != nil && resp.Request.Method != http.MethodHead {
			said.Code = strangers404
		}
		said.Code = cmp.Or(said.Code, map[int]string{
			http.StatusNotFound: "NotFound", http.StatusPreconditionFailed: "PreconditionFailed", http.StatusForbidden: "AccessDenied",
		}[resp.StatusCode], "HTTP"+strconv.Itoa(resp.StatusCode))
	}
	return &smithyhttp.ResponseError{
		Response: &smithyhttp.Response{Response: resp},
		Err:      &smithy.GenericAPIError{Code: said.Code, Message: said.Message},
	}
}

// drain reads what is left of an answer, so that the connection can be used again. One without an end is not waited for.
func drain(resp *http.Response) error {
	_, err := io.Copy(io.Discard, io.LimitReader(resp.Body, mostListed))
	return errors.Join(err, resp.Body.Close())
}

func (b *s3Bucket) Fetch(ctx context.Context, key, etag string) (Cargo, io.ReadCloser, error) {
	header := http.Header{}
	if etag != "" {
		header.Set("If-Match", *b.ifMatch(etag))
	}
	resp, err := b.askSums(ctx, http.MethodGet, key, header)
	if err != nil {
		return Cargo{}, nil, b.missing(ctx, err)
	}
	c := cargoOf(key, resp.Header)
	c.Size = resp.ContentLength
	return c, resp.Body, nil
}

func (b *s3Bucket) FetchRange(ctx context.Context, key, etag string, offset, length int64) (io.ReadCloser, error) {
	header := http.Header{"Range": {*rangeHeader(offset, length)}}
	if etag != "" {
		header.Set("If-Match", *b.ifMatch(etag))
	}
	resp, err := b.ask(ctx, http.MethodGet, key, "", header, nil, "s3:GetObject")
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusPartialContent && (offset != 0 || resp.ContentLength != length) {
		_ = resp.Body.Close()
		return nil, fault.New(fault.BucketUnsupported, b.at.object(key), "the server sends the whole object where a part was asked for")
	}
	if err := b.asAsked(key, etag, offset, length, resp); err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	return resp.Body, nil
}

// asAsked makes sure that an answer is the range that was asked for, of the object that was asked for: not all that lies between knows
// If-Match, and some packs what passes.
func (b *s3Bucket) asAsked(key, etag string, offset, length int64, resp *http.Response) error {
	plain := func(etag string) string { return strings.Trim(strings.TrimPrefix(etag, "W/"), `"`) }
	is, asked := plain(resp.Header.Get("Etag")), plain(etag)
	begins := fmt.Sprintf("bytes %d-%d/", offset, offset+length-1)
	said := resp.Header.Get("Content-Range")
	switch {
	case is != "" && asked != "" && is != asked:
		return fault.New(fault.ObjectExists, b.at.object(key), "the object is no longer the one that was asked for")
	case resp.ContentLength >= 0 && resp.ContentLength != length, said != "" && !strings.HasPrefix(said, begins):
		return fault.New(fault.ChecksumMismatch, b.at.object(key), "of %d bytes from %d the answer has %d (%s)", length, offset, resp.ContentLength, said)
	}
	return nil
}

// cargoOf reads what the headers of an answer tell.
func cargoOf(key string, h http.Header) Cargo {
	c := Cargo{
		Object:      Object{Key: key, ETag: h.Get("Etag"), Encryption: h.Get("X-Amz-Server-Side-Encryption")},
		ContentType: h.Get("Content-Type"), CacheControl: h.Get("Cache-Control"), ContentEncoding: h.Get("Content-Encoding"),
		ContentDisposition: h.Get("Content-Disposition"), ContentLanguage: h.Get("Content-Language"), Expires: h.Get("Expires"),
		WebsiteRedirect: h.Get("X-Amz-Website-Redirect-Location"), StorageClass: h.Get("X-Amz-Storage-Class"),
		Lock:      lockOf(h),
		Illegible: counts(h, "X-Amz-Missing-Meta"), Tagged: counts(h, "X-Amz-Tagging-Count"),
	}
	if h.Get("X-Amz-Server-Side-Encryption-Customer-Algorithm") != "" {
		c.Encryption = "SSE-C"
	}
	c.Modified, _ = http.ParseTime(h.Get("Last-Modified")) // the zero time where there is none
	for name, values := range h {
		if meta, ok := strings.CutPrefix(name, "X-Amz-Meta-"); ok {
			if c.Metadata == nil {
				c.Metadata = map[string]string{}
			}
			if meta = strings.ToLower(meta); meta != writeMark {
				c.Metadata[meta] = strings.Join(values, ",")
			}
		}
		sum, ok := strings.CutPrefix(name, "X-Amz-Checksum-")
		if ok && sum != "Type" && !strings.Contains(values[0], "-") && h.Get("X-Amz-Checksum-Type") != "COMPOSITE" {
			if c.Sums == nil {
				c.Sums = map[string]string{}
			}
			c.Sums[strings.ToLower(sum)] = values[0]
		}
	}
	return c
}

// counts says whether a header counts something.
func counts(h http.Header, name string) bool { return h.Get(name) != "" && h.Get(name) != "0" }

func (b *s3Bucket) Describe(ctx context.Context, key string) (Cargo, error) {
	resp, err := b.askSums(ctx, http.MethodHead, key, http.Header{})
	if err != nil {
		return Cargo{}, b.missing(ctx, err)
	}
	_ = resp.Body.Close()
	c := cargoOf(key, resp.Header)
	c.Size = resp.ContentLength
	if !strings.Contains(c.ETag, "-") {
		return c, nil
	}
	if size, err := b.partSize(ctx, c.Object, 1); err == nil {
		c.PartSize = size
	}
	return c, nil
}

// PartSizes asks for the head of each part. A server that does not know the request answers with the whole, or refuses.
func (b *s3Bucket) PartSizes(ctx context.Context, o Object, count int) ([]int64, error) {
	sizes := make([]int64, count)
	first, err := b.partSize(ctx, o, 1)
	if fault.Retryable(err) || fault.Is(err, fault.ObjectExists) || fault.Is(err, fault.Interrupted) {
		return nil, err
	}
	if err != nil || first == 0 {
		return nil, nil //nolint:nilerr // that it refuses is the answer
	}
	sizes[0] = first
	var g errgroup.Group
	g.SetLimit(deleteParallel)
	for i := 1; i < count; i++ {
		g.Go(func() (err error) {
			defer fault.Catch(&err, nil, b.at.object(o.Key))
			sizes[i], err = b.partSize(ctx, o, i+1)
			return err
		})
	}
	return sizes, g.Wait()
}

// partSize asks for the size of a part; it is 0 where the answer is about the whole object.
func (b *s3Bucket) partSize(ctx context.Context, o Object, number int) (int64, error) {
	resp, err := b.ask(ctx, http.MethodHead, o.Key, "partNumber="+strconv.Itoa(number), http.Header{"If-Match": {*b.ifMatch(o.ETag)}}, nil, "s3:GetObject")
	if err != nil {
		return 0, err
	}
	_ = resp.Body.Close()
	if resp.ContentLength >= o.Size {
		return 0, nil
	}
	return max(resp.ContentLength, 0), nil
}

func (b *s3Bucket) Tags(ctx context.Context, key string) (string, error) {
	out, err := b.client.GetObjectTagging(ctx, &s3.GetObjectTaggingInput{Bucket: &b.at.name, Key: b.key(key)})
	if err != nil {
		return "", b.fault(ctx, err, "s3:GetObjectTagging", key)
	}
	tags := url.Values{}
	for _, t := range out.TagSet {
		tags.Set(aws.ToString(t.Key), aws.ToString(t.Value))
	}
	return strings.ReplaceAll(tags.Encode(), "+", "%20"), nil // Ceph takes a plus for itself
}

func (b *s3Bucket) Tag(ctx context.Context, key, tags string) error {
	values, err := url.ParseQuery(tags)
	if err != nil {
		return fault.New(fault.Internal, b.at.object(key), "its tags cannot be understood").Because(err)
	}
	var set []types.Tag
	for _, name := range slices.Sorted(maps.Keys(values)) {
		set = append(set, types.Tag{Key: aws.String(name), Value: aws.String(values.Get(name))})
	}
	_, err = b.client.PutObjectTagging(ctx, &s3.PutObjectTaggingInput{Bucket: &b.at.name, Key: b.key(key), Tagging: &types.Tagging{TagSet: set}})
	return b.fault(ctx, err, "s3:PutObjectTagging", key)
}

// headers are those that make an object of a cargo. What the bucket's options ask for goes before what the source had.
func (b *s3Bucket) headers(c Cargo) http.Header {
	h := http.Header{}
	set := func(name, value string) {
		if value != "" {
			h.Set(name, value)
		}
	}
	set("Content-Type", c.ContentType)
	set("Cache-Control", c.CacheControl)
	set("Content-Encoding", c.ContentEncoding)
	set("Content-Disposition", c.ContentDisposition)
	set("Content-Language", c.ContentLanguage)
	set("Expires", c.Expires)
	set("X-Amz-Website-Redirect-Location", c.WebsiteRedirect)
	set("X-Amz-Tagging", c.Tags)
	set("X-Amz-Storage-Class", c.StorageClass)
	c.Lock.ask(h)
	set(aclHeader, b.opts.ACL)
	set("X-Amz-Server-Side-Encryption", b.opts.SSE)
	set("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id", b.opts.KMSKeyID)
	for k, v := range c.Metadata {
		h.Set("X-Amz-Meta-"+k, v)
	}
	return h
}

func (b *s3Bucket) Deliver(ctx context.Context, c Cargo, data []byte, sum [sha256.Size]byte) (etag, encryption string, err error) {
	if err := b.able(ctx, WriteOptions{}, &b.put, b.probePut); err != nil {
		return "", "", err
	}
	resp, err := b.upload(ctx, c.Key, "", b.headers(c), &payload{data, sum})
	if err != nil {
		return "", "", err
	}
	return resp.Header.Get("Etag"), resp.Header.Get("X-Amz-Server-Side-Encryption"), b.ended(ctx, drain(resp), c.Key)
}

// ended judges the end of an answer whose headers said that all is well.
func (b *s3Bucket) ended(ctx context.Context, err error, key string) error {
	return b.fault(ctx, err, "s3:PutObject", key)
}

func (b *s3Bucket) Begin(ctx context.Context, c Cargo) (string, error) {
	if err := b.able(ctx, WriteOptions{}, &b.put, b.probePut); err != nil {
		return "", err
	}
	out, err := b.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: &b.at.name, Key: b.key(c.Key), ContentType: optional(c.ContentType), CacheControl: optional(c.CacheControl),
		ContentEncoding: optional(c.ContentEncoding), ContentDisposition: optional(c.ContentDisposition), ContentLanguage: optional(c.ContentLanguage),
		Metadata: c.Metadata, Tagging: optional(c.Tags), ServerSideEncryption: types.ServerSideEncryption(b.opts.SSE), SSEKMSKeyId: optional(b.opts.KMSKeyID),
		WebsiteRedirectLocation: optional(c.WebsiteRedirect), StorageClass: types.StorageClass(c.StorageClass),
		ObjectLockMode: types.ObjectLockMode(c.Lock.Mode), ObjectLockRetainUntilDate: c.Lock.until(), ObjectLockLegalHoldStatus: c.Lock.status(),
	}, besideSDK(c))
	if err != nil {
		return "", b.fault(ctx, err, "s3:PutObject", c.Key)
	}
	return aws.ToString(out.UploadId), nil
}

// besideSDK sets the headers that the SDK leaves out or changes: metadata without a value, and times in the source's own words.
func besideSDK(c Cargo) func(*s3.Options) {
	return func(o *s3.Options) {
		for k, v := range c.Metadata {
			if v == "" {
				o.APIOptions = append(o.APIOptions, smithyhttp.SetHeaderValue("X-Amz-Meta-"+k, ""))
			}
		}
		if c.Expires != "" {
			o.APIOptions = append(o.APIOptions, smithyhttp.SetHeaderValue("Expires", c.Expires))
		}
	}
}

func (b *s3Bucket) Unfinished(ctx context.Context, key string) ([]Unfinished, error) {
	var found []s3Begun
	for u, err := range b.uploads(ctx, key) {
		if err != nil {
			return nil, err
		}
		if u.key == key {
			found = append(found, u)
		}
	}
	slices.SortFunc(found, func(x, y s3Begun) int { return y.begun.Compare(x.begun) })
	out := make([]Unfinished, 0, len(found))
	for _, u := range found {
		parts, err := b.partsOf(ctx, key, u.id)
		if fault.Is(err, fault.ObjectMissing) {
			continue // it was ended meanwhile, or it is another key's, which the list cannot say
		}
		if err != nil {
			return nil, err
		}
		out = append(out, Unfinished{u.id, parts})
	}
	return out, nil
}

func (b *s3Bucket) partsOf(ctx context.Context, key, id string) (parts []Part, err error) {
	pages := s3.NewListPartsPaginator(b.client, &s3.ListPartsInput{Bucket: &b.at.name, Key: b.key(key), UploadId: &id})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, b.fault(ctx, err, "s3:ListMultipartUploadParts", key)
		}
		for _, p := range page.Parts {
			parts = append(parts, Part{Number: int(aws.ToInt32(p.PartNumber)), Size: aws.ToInt64(p.Size), ETag: aws.ToString(p.ETag)})
		}
	}
	return parts, nil
}

func (b *s3Bucket) Send(ctx context.Context, key, id string, number int, data []byte) (string, error) {
	query := url.Values{"partNumber": {strconv.Itoa(number)}, "uploadId": {id}}
	resp, err := b.upload(ctx, key, query.Encode(), http.Header{}, &payload{data, sha256.Sum256(data)})
	if err != nil {
		return "", err
	}
	return resp.Header.Get("Etag"), b.ended(ctx, drain(resp), key)
}

func (b *s3Bucket) Complete(ctx context.Context, key, id string, parts []Part) (string, error) {
	in := &s3.CompleteMultipartUploadInput{Bucket: &b.at.name, Key: b.key(key), UploadId: &id, MultipartUpload: &types.CompletedMultipartUpload{}}
	for _, p := range parts {
		in.MultipartUpload.Parts = append(in.MultipartUpload.Parts, types.CompletedPart{PartNumber: aws.Int32(int32(p.Number)), ETag: aws.String(p.ETag)})
	}
	out, err := b.client.CompleteMultipartUpload(ctx, in)
	if err != nil {
		return "", b.fault(ctx, err, "s3:PutObject", key)
	}
	if aws.ToString(out.ETag) != "" {
		return *out.ETag, nil
	}
	o, _, err := b.look(ctx, key) // Ceph's answer may hold none
	return o.ETag, err
}

func (b *s3Bucket) Cancel(ctx context.Context, key, id string) error {
	_, err := b.abortUpload(ctx, key, id)
	return err
}

// Reaches compares server, region and keys.
func (b *s3Bucket) Reaches(other Carrier) bool {
	o, ok := other.(*s3Bucket)
	if !ok || b.known.Endpoint != o.known.Endpoint || b.known.Region != o.known.Region || b.opts.AccessKeyID != o.opts.AccessKeyID {
		return false
	}
	return (b.opts.SecretAccessKey == nil) == (o.opts.SecretAccessKey == nil)
}

func (b *s3Bucket) Copy(ctx context.Context, from Carrier, c Cargo) (string, error) {
	source, ok := from.(*s3Bucket)
	if !ok {
		return "", fault.New(fault.BucketUnsupported, b.at.object(c.Key), "the server cannot reach the source")
	}
	opts := func(*s3.Options) {}
	in := &s3.CopyObjectInput{
		WebsiteRedirectLocation: optional(c.WebsiteRedirect), // it goes with no copy by itself, nor do these
		StorageClass:            types.StorageClass(c.StorageClass),
		ObjectLockMode:          types.ObjectLockMode(c.Lock.Mode), ObjectLockRetainUntilDate: c.Lock.until(), ObjectLockLegalHoldStatus: c.Lock.status(),
		Bucket: &b.at.name, Key: b.key(c.Key), CopySource: aws.String(httpbinding.EscapePath(source.at.name+"/"+source.at.root+c.Key, false)),
		CopySourceIfMatch: source.ifMatch(c.ETag), ServerSideEncryption: types.ServerSideEncryption(b.opts.SSE), SSEKMSKeyId: optional(b.opts.KMSKeyID),
	}
	if c.Metadata != nil { // else the copy has what its source has
		in.MetadataDirective, in.Metadata = types.MetadataDirectiveReplace, c.Metadata
		in.ContentType, in.CacheControl, in.ContentEncoding = optional(c.ContentType), optional(c.CacheControl), optional(c.ContentEncoding)
		in.ContentDisposition, in.ContentLanguage = optional(c.ContentDisposition), optional(c.ContentLanguage)
		opts = besideSDK(c)
	}
	out, err := b.client.CopyObject(ctx, in, opts)
	if err != nil {
		return "", b.fault(ctx, err, "s3:PutObject", c.Key)
	}
	if out.CopyObjectResult == nil {
		return "", fault.New(fault.BucketFailed, b.at.object(c.Key), "the server does not say that it has copied the object")
	}
	return aws.ToString(out.CopyObjectResult.ETag), nil
}
