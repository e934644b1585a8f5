package lake

import (
	"runtime"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/leatdata/leat/internal/scratch"
)

// Not parallel: what other tests allocate would count as well.
func TestALargeValueWhoseKeyMovesIsNotCopiedIntoMemory(t *testing.T) {
	const size = 96 << 20
	values := func(v []byte) arrow.Array {
		b := array.NewBinaryBuilder(memory.DefaultAllocator, arrow.BinaryTypes.Binary)
		defer b.Release()
		b.Append(v)
		return b.NewArray()
	}
	now, old := values(make([]byte, size)), values(nil)
	pick := array.NewInt64Builder(memory.DefaultAllocator)
	defer pick.Release()
	pick.AppendValues([]int64{1, 0}, nil) // the old key's end, and the row
	rows := pick.NewArray()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got, err := pickOf(now, old, rows)
	if err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > size/2 {
		t.Errorf("a value of %d MiB takes %d MiB", size>>20, n>>20)
	}
	if both := got.(*array.Binary); both.ValueLen(0) != 0 || both.ValueLen(1) != size {
		t.Errorf("the rows have %d and %d bytes", both.ValueLen(0), both.ValueLen(1))
	}
	if got.Release(); scratch.Held() > 0 {
		t.Errorf("%d large buffers are not given back", scratch.Held())
	}
}
