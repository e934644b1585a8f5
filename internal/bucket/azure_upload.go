package bucket

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"

	"github.com/leatdata/leat/internal/fault"
)

// azureWrite is one blob on its way. Its parts are Azure's blocks.
type azureWrite struct {
	bucket *azureBucket
	client *blockblob.Client
	key    string
	opts   WriteOptions
	mark   string
	size   atomic.Int64
	blocks atomic.Int64
}

// checkKey refuses a key that Azure would take for another one and say nothing
// (learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata).
func (b *azureBucket) checkKey(key string) error {
	for segment := range strings.SplitSeq(key, "/") {
		if strings.Contains(segment, `\`) || strings.HasSuffix(segment, ".") {
			return fault.New(fault.BucketUnsupported, b.at.object(key), "Azure changes keys with a backslash or with a dot at a segment's end").
				WithMend("Choose another key.")
		}
	}
	return nil
}

func (b *azureBucket) Create(ctx context.Context, key string, opts WriteOptions) (Upload, error) {
	if ctx.Err() != nil {
		return nil, interrupted(ctx, b.at.object(key))
	}
	w := &azureWrite{bucket: b, client: b.client.NewBlockBlobClient(b.at.root + key), key: key, opts: opts, mark: rand.Text()}
	return newPartUpload(ctx, sending{
		where: b.at.object(key), whole: w.whole, begin: w.begin,
		partSize: b.opts.PartSize, parallel: b.opts.PartParallel, grace: b.opts.Grace, buffers: &b.buffers,
	}), nil
}

// checksum covers a request's body: Azure refuses one that changed on its way. It is MD5 and not
// the quicker CRC-64, which not every server that speaks Azure's protocol knows.
func checksum(data []byte) blob.TransferValidationType {
	sum := md5.Sum(data)
	return blob.TransferValidationTypeMD5(sum[:])
}

func (w *azureWrite) headers() *blob.HTTPHeaders {
	return &blob.HTTPHeaders{BlobContentType: optional(w.opts.ContentType)}
}

func (w *azureWrite) whole(ctx context.Context, data []byte) (Object, error) {
	out, err := w.client.Upload(ctx, streaming.NopCloser(bytes.NewReader(data)), &blockblob.UploadOptions{
		Metadata: toAzure(marked(w.opts.Metadata, w.mark)), HTTPHeaders: w.headers(),
		AccessConditions: azureConditions(w.opts), TransactionalValidation: checksum(data),
	})
	if err != nil {
		return w.settle(ctx, err)
	}
	return Object{
		Key: w.key, Size: int64(len(data)), ETag: quoted(out.ETag), Modified: value(out.LastModified),
		Encryption: encryption(out.IsServerEncrypted), Metadata: w.opts.Metadata,
	}, nil
}

// begin asks nothing of the server: a blob's first block begins it.
func (w *azureWrite) begin(context.Context) (parts, error) { return w, nil }

// block is the id of a block. All ids of a blob must have one length; the mark keeps those of
// uploads to the same key apart.
func (w *azureWrite) block(number int64) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%s-%05d", w.mark, number))
}

func (w *azureWrite) put(ctx context.Context, number int, data []byte) error {
	_, err := w.client.StageBlock(ctx, w.block(int64(number)), streaming.NopCloser(bytes.NewReader(data)),
		&blockblob.StageBlockOptions{TransactionalValidation: checksum(data)})
	w.size.Add(int64(len(data)))
	w.blocks.Add(1)
	return writeFailed(w.bucket.fault(ctx, err, w.key), w.bucket.at.object(w.key), w.opts)
}

func (w *azureWrite) complete(ctx context.Context) (Object, error) {
	var ids []string
	for number := range w.blocks.Load() {
		ids = append(ids, w.block(number+1))
	}
	late, cancel := linger(ctx, w.bucket.opts.Grace)
	defer cancel()
	out, err := w.client.CommitBlockList(late, ids, &blockblob.CommitBlockListOptions{
		Metadata: toAzure(marked(w.opts.Metadata, w.mark)), HTTPHeaders: w.headers(), AccessConditions: azureConditions(w.opts),
	})
	if err != nil {
		return w.settle(ctx, err)
	}
	return Object{
		Key: w.key, Size: w.size.Load(), ETag: quoted(out.ETag), Modified: value(out.LastModified),
		Encryption: encryption(out.IsServerEncrypted), Metadata: w.opts.Metadata,
	}, nil
}

// abort has nothing to do; see Sweep.
func (w *azureWrite) abort(context.Context) error { return nil }

func (w *azureWrite) settle(ctx context.Context, err error) (Object, error) {
	failed := writeFailed(w.bucket.fault(ctx, err, w.key), w.bucket.at.object(w.key), w.opts)
	return settle(ctx, w.bucket.opts.Grace, failed, w.mark, func(ctx context.Context) (Object, string, error) {
		return w.bucket.look(ctx, w.key)
	})
}
