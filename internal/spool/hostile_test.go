package spool_test

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"runtime"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/spool"
)

const segmentName = "spool/0000000000000005-0000000000000009-00000001-000000.spool"

// segment is an object of one block with the right checksum.
func segment(t testing.TB, raw []byte) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil)
	must(t, err)
	body := enc.EncodeAll(raw, nil)
	out := binary.LittleEndian.AppendUint32([]byte("LEATSPL1"), uint32(len(body)))
	out = binary.LittleEndian.AppendUint32(out, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	return append(out, body...)
}

// readAll reads a spool of one segment to its end.
func readAll(ctx context.Context, t testing.TB, object []byte) (n int, err error) {
	t.Helper()
	b, err := bucket.Open(ctx, "mem://", bucket.Options{})
	must(t, err)
	_, err = bucket.WriteAll(ctx, b, segmentName, object, bucket.WriteOptions{})
	must(t, err)
	s, err := spool.Open(ctx, b, "spool", spool.Options{From: 9, Epoch: 1})
	must(t, err)
	for _, err := range s.Read(ctx, 0, nil) {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// It measures memory, so no other test runs beside it.
func TestABombInTheSpoolIsRefusedInLittleMemory(t *testing.T) {
	bomb := segment(t, make([]byte, 300<<20))
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := readAll(t.Context(), t, bomb)
	runtime.ReadMemStats(&after)
	if used := (after.TotalAlloc - before.TotalAlloc) >> 20; !fault.Is(err, fault.StateUnusable) || used > 160 {
		t.Errorf("%d bytes that unpack to 300 MiB took %d MiB: %v", len(bomb), used, err)
	}
}

// It measures memory, so no other test runs beside it.
func TestABlockThatIsLongerThanItsObjectTakesNoMemory(t *testing.T) {
	object := append([]byte("LEATSPL1"), 0xf0, 0xff, 0xff, 0xff, 1, 2, 3, 4)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := readAll(t.Context(), t, object)
	runtime.ReadMemStats(&after)
	if used := (after.TotalAlloc - before.TotalAlloc) >> 20; !fault.Is(err, fault.StateUnusable) || used > 64 {
		t.Errorf("it took %d MiB: %v", used, err)
	}
}

func FuzzSegment(f *testing.F) {
	f.Add([]byte("T\x01\x7fa"))
	f.Add([]byte("R\x01\x01\x7frow"))
	f.Add([]byte("B\x05\x05\x0a\x05begin" + "T\x01\x01a" + "D\x01\x03rel" + "R\x01\x01\x03row" + "C\x09\x06commit"))
	f.Add([]byte("B\x05\x05\x0a\x00" + "T\x01\x01a" + "P\x80\x80\x80\x80\x04\x03row" + "R\x01\x01\x03row" + "C\x09\x00"))
	f.Add([]byte("R\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		began := time.Now()
		for _, object := range [][]byte{segment(t, raw), append([]byte("LEATSPL1"), raw...), raw} {
			n, err := readAll(t.Context(), t, object)
			if err != nil && !fault.Is(err, fault.StateUnusable) && !fault.Is(err, fault.ChecksumMismatch) {
				t.Errorf("got %v", err)
			}
			if n > 5*len(raw)+5 {
				t.Errorf("%d bytes have %d records", len(raw), n)
			}
		}
		if time.Since(began) > 10*time.Second {
			t.Errorf("%d bytes took too long", len(raw))
		}
	})
}
