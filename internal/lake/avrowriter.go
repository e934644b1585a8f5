package lake

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"

	"github.com/leatdata/leat/internal/format"
)

// avroWriter writes an object container file, packed by deflate. Records are appended to its block, and counted by
// done.
type avroWriter struct {
	out   bytes.Buffer
	sync  [16]byte
	block []byte // not packed yet
	count int64  // of records in the block
}

const (
	avroCodec     = "deflate"
	avroBlockSize = 64 << 10 // bytes, before they are packed
)

// avroMeta is an entry of a container file's header.
type avroMeta struct{ key, value string }

func newAvroWriter(schema string, meta ...avroMeta) *avroWriter {
	w := &avroWriter{}
	rand.Read(w.sync[:])
	head := append([]byte{}, avroMagic...)
	head = binary.AppendVarint(head, int64(len(meta)+2))
	for _, m := range append([]avroMeta{{"avro.schema", schema}, {"avro.codec", avroCodec}}, meta...) {
		head = appendAvroString(appendAvroString(head, m.key), m.value)
	}
	w.out.Write(binary.AppendVarint(head, 0))
	w.out.Write(w.sync[:])
	return w
}

// done ends a record.
func (w *avroWriter) done() error {
	w.count++
	if len(w.block) < avroBlockSize {
		return nil
	}
	return w.flush()
}

func (w *avroWriter) flush() error {
	err := writeAvroBlock(&w.out, avroCodec, w.count, w.block, w.sync[:])
	w.block, w.count = w.block[:0], 0
	return err
}

// close gives the whole file.
func (w *avroWriter) close() ([]byte, error) {
	if w.count > 0 {
		if err := w.flush(); err != nil {
			return nil, err
		}
	}
	return w.out.Bytes(), nil
}

// writeAvroBlock packs records and writes them as a block.
func writeAvroBlock(out *bytes.Buffer, codec string, count int64, records, sync []byte) error {
	packed, err := format.PackAvro(codec, records)
	if err != nil {
		return err
	}
	out.Write(binary.AppendVarint(binary.AppendVarint(nil, count), int64(len(packed))))
	out.Write(packed)
	out.Write(sync)
	return nil
}

func appendAvroString[T string | []byte](to []byte, v T) []byte {
	return append(binary.AppendVarint(to, int64(len(v))), v...)
}

// The branches of a union of null and something else.
const (
	avroNull = 0
	avroSome = 2 // the number 1
)

func appendAvroOptional(to []byte, v *int64) []byte {
	if v == nil {
		return append(to, avroNull)
	}
	return binary.AppendVarint(append(to, avroSome), *v)
}

func appendAvroOptionalBytes(to, v []byte, there bool) []byte {
	if !there {
		return append(to, avroNull)
	}
	return appendAvroString(append(to, avroSome), v)
}

func appendAvroBool(to []byte, v bool) []byte {
	if v {
		return append(to, 1)
	}
	return append(to, 0)
}
