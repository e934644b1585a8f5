package mirror_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/mirror"
	"github.com/leatdata/leat/internal/testlab"
)

func TestAnUploadOfAKilledRunBringsNoMetadataOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	from, to := open(t, near, "app"), open(t, far, "app")
	inParts(t, near, "app/big", 8<<20, 8<<20, 4<<20)
	begun, err := far.Client().CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{
		Bucket: &far.Bucket, Key: aws.String("app/big"), ContentType: aws.String("text/old"), Metadata: map[string]string{"was": "old"}, Tagging: aws.String("old=yes"),
	})
	must(t, err)
	_, err = far.Client().UploadPart(t.Context(), &s3.UploadPartInput{
		Bucket: &far.Bucket, Key: aws.String("app/big"), UploadId: begun.UploadId, PartNumber: aws.Int32(1), Body: bytes.NewReader(noise(0, 8<<20)),
	})
	must(t, err)
	r, _, err := run(t, from, to, nil)
	must(t, err)
	got, err := far.Client().HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &far.Bucket, Key: aws.String("app/big")})
	must(t, err)
	if aws.ToString(got.ContentType) == "text/old" || got.Metadata["was"] != "" || r.Carried.Objects != 1 {
		t.Errorf("%q, %v, %d carried", aws.ToString(got.ContentType), got.Metadata, r.Carried.Objects)
	}
	c, _ := bucket.CarrierOf(to)
	if tags, err := c.Tags(t.Context(), "big"); err != nil || tags != "" {
		t.Errorf("its tags are %q (%v)", tags, err)
	}
}

func TestAnObjectWithAsMuchMetadataAsThereMayBeIsCarried(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	const most = 2 << 10
	refusing := testlab.FaultyS3(t, far, testlab.Always(func(r *http.Request) bool {
		n := 0
		for name := range r.Header {
			if meta, ok := strings.CutPrefix(strings.ToLower(name), "x-amz-meta-"); ok {
				n += len(meta) + len(r.Header.Get(name))
			}
		}
		return n > most
	}, testlab.Fail(400, "MetadataTooLarge")))
	full := map[string]string{"x": strings.Repeat("y", most-1)}
	key := aws.String("app/parts")
	begun, err := near.Client().CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &near.Bucket, Key: key, Metadata: full})
	must(t, err)
	part, err := near.Client().UploadPart(t.Context(), &s3.UploadPartInput{
		Bucket: &near.Bucket, Key: key, UploadId: begun.UploadId, PartNumber: aws.Int32(1), Body: strings.NewReader("parts"),
	})
	must(t, err)
	_, err = near.Client().CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{
		Bucket: &near.Bucket, Key: key, UploadId: begun.UploadId,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{ETag: part.ETag, PartNumber: aws.Int32(1)}}},
	})
	must(t, err)
	put(t, near, s3.PutObjectInput{Key: aws.String("app/whole"), Metadata: full}, []byte("whole"))
	_, _, err = run(t, open(t, near, "app"), open(t, refusing.Store, "app"), nil)
	must(t, err)
	for _, key := range []string{"app/parts", "app/whole"} {
		got, err := far.Client().HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &far.Bucket, Key: &key})
		must(t, err)
		if got.Metadata["x"] != full["x"] {
			t.Errorf("%s has %d bytes of its metadata", key, len(got.Metadata["x"]))
		}
	}
}

func TestAFileWhoseManifestTheFilterLeavesOutDoesNotHideItsDump(t *testing.T) {
	t.Parallel()
	from, to := folder(t, nil), folder(t, nil)
	for key, text := range map[string]string{
		"day/customers.csv.gz": "one", "day/manifest.json": dumpOf("1", map[string]string{"customers.csv.gz": "one"}),
	} {
		_, err := bucket.WriteAll(t.Context(), from, key, []byte(text), bucket.WriteOptions{})
		must(t, err)
	}
	_, _, err := run(t, from, to, nil)
	must(t, err)
	_, err = bucket.WriteAll(t.Context(), from, "day/customers.csv.gz", []byte("renewed"), bucket.WriteOptions{})
	must(t, err)
	glob, err := mirror.ParseGlob("**/customers.csv.gz")
	must(t, err)
	r, _, err := run(t, from, to, func(o *mirror.Options) { o.Filter.Include = []mirror.Glob{glob} })
	if !fault.Is(err, fault.MirrorIncomplete) || r.FailedBy[fault.MirrorIncomplete] != 1 {
		t.Errorf("%v, failed by %v", err, r.FailedBy)
	}
	if _, err := to.Stat(t.Context(), "day/manifest.json"); err != nil {
		t.Errorf("the target's dump: %v", err)
	}
}
