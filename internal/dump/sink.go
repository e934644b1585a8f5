package dump

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"hash"

	"github.com/leatdata/leat/internal/bucket"
)

// sink is one object in the making: what is written is hashed, counted and uploaded.
type sink struct {
	key    string
	upload bucket.Upload
	hash   hash.Hash
	bytes  int64
}

func (r *run) newSink(ctx context.Context, key string) (*sink, error) {
	up, err := r.bucket.Create(ctx, key, bucket.WriteOptions{ContentType: r.opts.Format.ContentType(), Lazy: true})
	if err != nil {
		return nil, err
	}
	return &sink{key: key, upload: up, hash: sha256.New()}, nil
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.upload.Write(p)
	s.hash.Write(p[:n])
	s.bytes += int64(n)
	return n, err
}

// commit makes the object visible. Before the first one of a run, an older manifest that names the
// same keys must go, or it would lie from then on (Invariant 1).
func (s *sink) commit(ctx context.Context, r *run) (FileManifest, error) {
	if err := r.dropOldManifest(ctx); err != nil {
		s.upload.Abort()
		return FileManifest{}, err
	}
	if _, err := s.upload.Commit(ctx); err != nil {
		return FileManifest{}, err
	}
	return FileManifest{Key: s.key, Bytes: s.bytes, SHA256: hex.EncodeToString(s.hash.Sum(nil))}, nil
}

func (s *sink) abort() { s.upload.Abort() }
