package lake

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/crc32"

	"github.com/apache/arrow-go/v18/parquet/compress"
)

// avroPack packs a block of an Avro file as it was; the codec is one that format.UnpackAvro knows.
func avroPack(codec string, data []byte) ([]byte, error) {
	switch codec {
	case "deflate":
		var out bytes.Buffer
		w, err := flate.NewWriter(&out, flate.DefaultCompression)
		if err == nil {
			_, err = w.Write(data)
		}
		if err == nil {
			err = w.Close()
		}
		return out.Bytes(), err
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
