package format

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"sync"

	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/klauspost/compress/flate"
)

// deflaters are used again: one is a few hundred kilobytes, and a block of a manifest often less than one.
var deflaters sync.Pool // of *flate.Writer

// PackAvro packs a block of an Avro file. The codec is named as in the file's header, and is one that UnpackAvro knows.
func PackAvro(codec string, data []byte) ([]byte, error) {
	switch codec {
	case "deflate":
		return deflate(data)
	case "zstandard":
		c, err := compress.GetCodec(compress.Codecs.Zstd)
		if err != nil {
			return nil, err
		}
		return c.Encode(nil, data), nil
	case "snappy":
		c, err := compress.GetCodec(compress.Codecs.Snappy)
		if err != nil {
			return nil, err
		}
		return binary.BigEndian.AppendUint32(c.Encode(nil, data), crc32.ChecksumIEEE(data)), nil
	}
	return data, nil
}

func deflate(data []byte) ([]byte, error) {
	var out bytes.Buffer
	w, ok := deflaters.Get().(*flate.Writer)
	if ok {
		w.Reset(&out)
	} else {
		var err error
		if w, err = flate.NewWriter(&out, flate.DefaultCompression); err != nil {
			return nil, err
		}
	}
	defer deflaters.Put(w)
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	err := w.Close()
	return out.Bytes(), err
}
