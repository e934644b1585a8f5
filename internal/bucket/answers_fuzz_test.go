package bucket_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// fuzzedAnswer is what a server answers to everything.
type fuzzedAnswer struct {
	status int
	header http.Header
	body   []byte
}

// servers are buckets of each kind, at a server that answers with what is stored.
func servers(f *testing.F) (answer *atomic.Pointer[fuzzedAnswer], s3, gcs, azure bucket.Bucket) {
	f.Helper()
	answer = &atomic.Pointer[fuzzedAnswer]{}
	answer.Store(&fuzzedAnswer{status: 404})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		a := answer.Load()
		for name, values := range a.header {
			w.Header()[name] = values
		}
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body)
	}))
	f.Cleanup(server.Close)
	once := bucket.Options{MaxRetries: -1, Backoff: time.Millisecond, Endpoint: server.URL, Region: "r", AccessKeyID: "devstoreaccount1",
		SecretAccessKey: func() string { return "c2VjcmV0" }}
	all := make([]bucket.Bucket, 0, 3)
	for _, at := range []string{"s3://bucket/root", "gs://bucket/root", "azblob://container/root"} {
		b, err := bucket.Open(context.Background(), at, once)
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(func() { b.Close() })
		all = append(all, b)
	}
	return answer, all[0], all[1], all[2]
}

// listing reads a list as far as a few pages go: the server says for ever that there is more.
func listing(ctx context.Context, b bucket.Bucket) (err error) {
	n := 0
	for _, err = range b.List(ctx, "") {
		if n++; err != nil || n > 10_000 {
			break
		}
	}
	return err
}

func FuzzAnswersOfServers(f *testing.F) {
	const tag = `"6654c734ccab8f440ff0825eb443dc7f"`
	for _, body := range []string{
		`<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken><Contents><Key>root/a</Key><Size>5</Size><LastModified>2020-01-01T00:00:00Z</LastModified><ETag>&quot;x&quot;</ETag></Contents></ListBucketResult>`,
		`<DeleteResult><Deleted><Key>root/a</Key></Deleted><Error><Key>root/b</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>`,
		`<Error><Code>SlowDown</Code><Message>Please &#x1b;[2J wait</Message></Error>`,
		`<ListVersionsResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><NextKeyMarker>root/a</NextKeyMarker><Version><Key>root/a%20b</Key><VersionId>1</VersionId><IsLatest>false</IsLatest><Size>1</Size></Version><DeleteMarker><Key>x</Key></DeleteMarker></ListVersionsResult>`,
		`<ListMultipartUploadsResult><IsTruncated>false</IsTruncated><Upload><Key>root/a</Key><UploadId>u</UploadId><Initiated>2020-01-01T00:00:00Z</Initiated></Upload></ListMultipartUploadsResult>`,
		`<ListPartsResult><Part><PartNumber>1</PartNumber><ETag>"x"</ETag><Size>-5</Size></Part></ListPartsResult>`,
		`<LifecycleConfiguration><Rule><ID>a</ID><Filter><And><Prefix>x</Prefix></And></Filter><Status>Enabled</Status><Expiration><Days>1</Days></Expiration></Rule></LifecycleConfiguration>`,
		`<Tagging><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tagging>`,
		`<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>`,
		`<ListAllMyBucketsResult><Buckets><Bucket><Name>b</Name></Bucket></Buckets></ListAllMyBucketsResult>`,
		`<GetObjectAttributesResponse><ObjectParts><PartsCount>1</PartsCount><Part><PartNumber>1</PartNumber><Size>1</Size></Part></ObjectParts></GetObjectAttributesResponse>`,
		`<CompleteMultipartUploadResult><ETag>"x-1"</ETag></CompleteMultipartUploadResult>`,
		`{"items":[{"name":"root/a","size":"5","generation":"1","etag":"x","updated":"2020-01-01T00:00:00Z","metadata":{"a":"b"}}],"nextPageToken":"t"}`,
		`{"error":{"code":404,"message":"not here"}}`,
		`<?xml version="1.0"?><EnumerationResults ContainerName="c"><Blobs><Blob><Name>root/a</Name><Properties><Content-Length>5</Content-Length><Etag>x</Etag><Last-Modified>Wed, 01 Jan 2020 00:00:00 GMT</Last-Modified></Properties></Blob></Blobs><NextMarker>m</NextMarker></EnumerationResults>`,
	} {
		for _, status := range []uint16{200, 403, 404} {
			f.Add(status, []byte(body), "5", tag, "bytes 0-4/5")
		}
	}
	f.Add(uint16(200), []byte("hello"), "9223372036854775807", `"x-3"`, "bytes 9-1/-3")
	answer, s3, gcs, azure := servers(f)
	carrier, _ := bucket.CarrierOf(s3)
	keeper, _ := bucket.KeeperOf(s3)
	f.Fuzz(func(t *testing.T, status uint16, body []byte, length, etag, span string) {
		if len(body) > 1<<16 {
			return
		}
		h := http.Header{"Etag": {clean(etag)}, "X-Amz-Meta-A": {clean(span)}, "Content-Range": {clean(span)}, "X-Goog-Stored-Content-Length": {clean(length)},
			"X-Amz-Mp-Parts-Count": {clean(length)}, "Last-Modified": {clean(span)}, "X-Amz-Object-Lock-Retain-Until-Date": {clean(length)}, "X-Amz-Restore": {clean(span)}}
		answer.Store(&fuzzedAnswer{[]int{200, 206, 204, 308, 400, 403, 404, 412, 416}[status%9], h, body})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var errs []error
		add := func(err error) { errs = append(errs, err) }
		for _, b := range []bucket.Bucket{s3, gcs, azure} {
			add(listing(ctx, b))
			_, err := b.Stat(ctx, "a")
			add(err)
			add(b.Delete(ctx, "a", "b"))
			if _, err = bucket.ReadAll(ctx, b, "a", 1<<20); fault.Of(err) != nil {
				add(err)
			}
			_, err = bucket.WriteAll(ctx, b, "a", []byte("x"), bucket.WriteOptions{IfAbsent: true})
			add(err)
		}
		errs = append(errs, carried(ctx, carrier)...)
		errs = append(errs, kept(ctx, keeper)...)
		runtime.ReadMemStats(&after)
		if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 512 || ctx.Err() != nil {
			t.Errorf("%d bytes took %d MiB; %v", len(body), used, ctx.Err())
		}
		for i, err := range errs {
			if err != nil && fault.Of(err) == nil || fault.Panicked(err) {
				t.Errorf("call %d ends with %v", i, err)
			}
		}
	})
}

// clean is a text that can be a header: no server can send another one.
func clean(text string) string {
	out := []byte(text)
	for i, c := range out {
		if c < ' ' || c >= 0x7f {
			out[i] = '.'
		}
	}
	return string(out)
}

func carried(ctx context.Context, c bucket.Carrier) (errs []error) {
	add := func(err error) { errs = append(errs, err) }
	add(c.Answers(ctx))
	cargo, body, err := c.Fetch(ctx, "a", "")
	add(err)
	if err == nil {
		_, _ = io.Copy(io.Discard, body)
		_ = body.Close()
	}
	if body, err = c.FetchRange(ctx, "a", `"x"`, 0, 5); err == nil {
		_ = body.Close()
	}
	add(err)
	cargo, err = c.Describe(ctx, "a")
	add(err)
	if cargo.Size >= 0 {
		_, err = c.PartSizes(ctx, cargo.Object, 3)
		add(err)
	}
	_, err = c.Tags(ctx, "a")
	add(err)
	_, err = c.Unfinished(ctx, "a")
	add(err)
	id, err := c.Begin(ctx, bucket.Cargo{Object: bucket.Object{Key: "a", Size: 1}})
	add(err)
	_, err = c.Complete(ctx, "a", id, []bucket.Part{{Number: 1, ETag: `"x"`, Size: 1}})
	add(err)
	return errs
}

func kept(ctx context.Context, k bucket.Keeper) (errs []error) {
	add := func(err error) { errs = append(errs, err) }
	_, err := k.Encryption(ctx)
	add(err)
	_, err = k.Expiries(ctx)
	add(err)
	_, err = k.PublicBlock(ctx)
	add(err)
	_, err = k.Versioning(ctx)
	add(err)
	_, err = k.Policy(ctx)
	add(err)
	_, err = k.Look(ctx, "a")
	add(err)
	n := 0
	for _, err = range k.OldVersions(ctx) {
		if n++; err != nil || n > 1000 {
			break
		}
	}
	add(err)
	return errs
}
