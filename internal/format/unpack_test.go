package format_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"hash/crc32"
	"io"
	"testing"

	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/leatdata/leat/internal/format"
)

// packers pack as the files of others are packed.
var packers = map[string]func(data []byte) ([]byte, error){
	"deflate": func(data []byte) ([]byte, error) {
		return streamed(data, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, 1) })
	},
	"gzip": func(data []byte) ([]byte, error) {
		return streamed(data, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, 1) })
	},
	"zstandard": func(data []byte) ([]byte, error) {
		return streamed(data, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }) // its length is not told
	},
	"zstandard with its length": func(data []byte) ([]byte, error) {
		z, err := zstd.NewWriter(nil)
		if err != nil {
			return nil, err
		}
		return z.EncodeAll(data, nil), nil
	},
	"snappy": func(data []byte) ([]byte, error) {
		return binary.BigEndian.AppendUint32(s2.EncodeSnappy(nil, data), crc32.ChecksumIEEE(data)), nil
	},
}

func streamed(data []byte, open func(io.Writer) (io.WriteCloser, error)) ([]byte, error) {
	var out bytes.Buffer
	w, err := open(&out)
	if err == nil {
		if _, err = w.Write(data); err == nil {
			err = w.Close()
		}
	}
	return out.Bytes(), err
}

func TestUnpackingEndsAtItsBound(t *testing.T) {
	t.Parallel()
	data := make([]byte, format.MostUnpacked+1)
	for codec, pack := range packers {
		for _, size := range []int{format.MostUnpacked, format.MostUnpacked + 1} {
			packed, err := pack(data[:size])
			if err != nil {
				t.Fatal(err)
			}
			unpack := func(p []byte) ([]byte, error) { return format.UnpackAvro(codec, p) }
			switch codec {
			case "gzip":
				unpack = format.UnpackGzip
			case "zstandard with its length":
				unpack = func(p []byte) ([]byte, error) { return format.UnpackAvro("zstandard", p) }
			}
			got, err := unpack(packed)
			if fits := size == format.MostUnpacked; fits != (err == nil) || fits && len(got) != size {
				t.Errorf("%s: %d bytes became %d: %v", codec, size, len(got), err)
			}
		}
	}
}

func TestAPageIsUnpackedIntoItsRoomOnly(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte("leat"), 250)
	for name, pack := range map[compress.Compression]func(data []byte) ([]byte, error){
		compress.Codecs.Snappy: func(data []byte) ([]byte, error) { return s2.EncodeSnappy(nil, data), nil },
		compress.Codecs.Zstd:   packers["zstandard"],
	} {
		packed, err := pack(data)
		if err != nil {
			t.Fatal(err)
		}
		codec, err := compress.GetCodec(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, room := range []int{len(data), len(data) - 1, 10} {
			got, err := compress.Decode(codec, make([]byte, room), packed)
			if fits := room == len(data); fits != (err == nil) || fits && !bytes.Equal(got, data) {
				t.Errorf("%v: %d bytes in room for %d became %d: %v", name, len(data), room, len(got), err)
			}
		}
	}
}
