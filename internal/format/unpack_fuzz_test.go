package format_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"io"
	"runtime"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/leatdata/leat/internal/format"
)

func FuzzUnpack(f *testing.F) {
	text := bytes.Repeat([]byte("leat"), 100)
	var zipped, deflated bytes.Buffer
	z := gzip.NewWriter(&zipped)
	d, err := flate.NewWriter(&deflated, 1)
	enc, err2 := zstd.NewWriter(nil)
	if err != nil || err2 != nil {
		f.Fatal(err, err2)
	}
	for _, w := range []io.WriteCloser{z, d} {
		if _, err := w.Write(text); err != nil || w.Close() != nil {
			f.Fatal(err)
		}
	}
	f.Add(zipped.Bytes())
	f.Add(deflated.Bytes())
	f.Add(enc.EncodeAll(text, nil))
	f.Add(append(s2.EncodeSnappy(nil, text), 1, 2, 3, 4))
	f.Fuzz(func(t *testing.T, packed []byte) {
		var before, after runtime.MemStats
		for codec, unpack := range map[string]func() ([]byte, error){
			"gzip":      func() ([]byte, error) { return format.UnpackGzip(packed) },
			"deflate":   func() ([]byte, error) { return format.UnpackAvro("deflate", packed) },
			"zstandard": func() ([]byte, error) { return format.UnpackAvro("zstandard", packed) },
			"snappy":    func() ([]byte, error) { return format.UnpackAvro("snappy", packed) },
		} {
			runtime.ReadMemStats(&before)
			data, err := unpack()
			runtime.ReadMemStats(&after)
			if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 192 || err == nil && len(data) > format.MostUnpacked {
				t.Errorf("%s makes %d bytes of %d, in %d MiB", codec, len(data), len(packed), used)
			}
		}
	})
}
