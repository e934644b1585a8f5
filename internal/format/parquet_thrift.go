package format

import "encoding/binary"

// Type nibbles of Thrift's compact protocol
// (https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md).
const (
	thriftTrue   = 1
	thriftFalse  = 2
	thriftByte   = 3
	thriftI16    = 4
	thriftI32    = 5
	thriftI64    = 6
	thriftBinary = 8
	thriftList   = 9
	thriftStruct = 12
)

// thrift writes structs in Thrift's compact protocol, which all of Parquet's metadata is in.
// Fields must come in the order of their ids, as parquet.thrift lists them.
type thrift struct {
	b     []byte
	last  int   // id of the field before, in the struct that is open
	outer []int // the same for the structs around it
}

func (t *thrift) field(id, kind int) {
	if d := id - t.last; d > 0 && d <= 15 {
		t.b = append(t.b, byte(d<<4|kind))
	} else {
		t.b = append(t.b, byte(kind))
		t.b = binary.AppendVarint(t.b, int64(id))
	}
	t.last = id
}

func (t *thrift) i8(id int, v int8) {
	t.field(id, thriftByte)
	t.b = append(t.b, byte(v))
}

func (t *thrift) i16(id int, v int16) {
	t.field(id, thriftI16)
	t.b = binary.AppendVarint(t.b, int64(v))
}

func (t *thrift) i32(id int, v int32) {
	t.field(id, thriftI32)
	t.b = binary.AppendVarint(t.b, int64(v))
}

func (t *thrift) i64(id int, v int64) {
	t.field(id, thriftI64)
	t.b = binary.AppendVarint(t.b, v)
}

func (t *thrift) boolean(id int, v bool) {
	if v {
		t.field(id, thriftTrue)
	} else {
		t.field(id, thriftFalse)
	}
}

func (t *thrift) bytes(id int, v []byte) {
	t.field(id, thriftBinary)
	t.element(v)
}

func (t *thrift) str(id int, v string) {
	t.field(id, thriftBinary)
	t.elementStr(v)
}

// list opens a list of n elements; they follow by the element methods or as structs between
// open and end.
func (t *thrift) list(id, kind, n int) {
	t.field(id, thriftList)
	if n < 15 {
		t.b = append(t.b, byte(n<<4|kind))
		return
	}
	t.b = append(t.b, byte(0xf0|kind))
	t.b = binary.AppendUvarint(t.b, uint64(n))
}

func (t *thrift) element(v []byte) {
	t.b = binary.AppendUvarint(t.b, uint64(len(v)))
	t.b = append(t.b, v...)
}

func (t *thrift) elementStr(v string) {
	t.b = binary.AppendUvarint(t.b, uint64(len(v)))
	t.b = append(t.b, v...)
}

func (t *thrift) elementInt(v int64) { t.b = binary.AppendVarint(t.b, v) }

func (t *thrift) elementBool(v bool) {
	if v {
		t.b = append(t.b, thriftTrue)
	} else {
		t.b = append(t.b, thriftFalse)
	}
}

// begin opens a struct that is field id.
func (t *thrift) begin(id int) {
	t.field(id, thriftStruct)
	t.open()
}

// empty writes a struct without fields: how unions name a member that says it all.
func (t *thrift) empty(id int) {
	t.begin(id)
	t.end()
}

// open starts a struct that is a list's element or stands alone.
func (t *thrift) open() {
	t.outer = append(t.outer, t.last)
	t.last = 0
}

func (t *thrift) end() {
	t.b = append(t.b, 0)
	t.last = t.outer[len(t.outer)-1]
	t.outer = t.outer[:len(t.outer)-1]
}
