package lake

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"

	"github.com/leatdata/leat/internal/format"
)

// Avro files are changed where they lie: records are walked by the schema in the file, and bytes that are not to change are
// copied. So nothing is lost that we do not know, and no value passes through a type of ours.

// avroNode is a type of a schema, as far as it says how many bytes a value has.
type avroNode struct {
	kind   string      // the name of a primitive type, or fixed, enum, record, union, array, map
	size   int         // of fixed
	ids    []int       // of a record's fields: Iceberg's field ids, -1 without one
	inside []*avroNode // fields of a record, branches of a union, the one kind of item of an array or a map
}

var errAvroSchema = errors.New("the file's Avro schema cannot be understood")

// mostAvroSchema bounds a schema in bytes: each may become a node of many.
const mostAvroSchema = 4 << 20

// parseAvroSchema reads a schema. Names of types that were defined before stand for them.
func parseAvroSchema(data []byte) (*avroNode, error) {
	if len(data) > mostAvroSchema {
		return nil, errAvroSchema
	}
	var schema any
	if err := json.Unmarshal(data, &schema); err != nil {
		return nil, errors.Join(errAvroSchema, err)
	}
	return avroType(schema, map[string]*avroNode{})
}

func avroType(schema any, named map[string]*avroNode) (*avroNode, error) {
	switch s := schema.(type) {
	case string:
		switch s {
		case "null", "boolean", "int", "long", "float", "double", "bytes", "string":
			return &avroNode{kind: s}, nil
		}
		if n := named[shortName(s)]; n != nil {
			return n, nil
		}
	case []any:
		return (&avroNode{kind: "union"}).with(s, named)
	case map[string]any:
		return avroObject(s, named)
	}
	return nil, errAvroSchema
}

// shortName is a name without its namespace.
func shortName(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

func avroObject(s map[string]any, named map[string]*avroNode) (*avroNode, error) {
	kind, _ := s["type"].(string)
	n := &avroNode{kind: kind}
	if name, _ := s["name"].(string); name != "" && (kind == "record" || kind == "fixed" || kind == "enum") {
		if _, twice := named[shortName(name)]; twice {
			named[shortName(name)] = nil // only a namespace tells which one is meant
		} else {
			named[shortName(name)] = n
		}
	}
	switch kind {
	case "fixed":
		size, ok := s["size"].(float64)
		if !ok || size < 0 || size > format.MostUnpacked {
			return nil, errAvroSchema
		}
		n.size = int(size)
		return n, nil
	case "enum":
		return n, nil
	case "array":
		return n.with([]any{s["items"]}, named)
	case "map":
		return n.with([]any{s["values"]}, named)
	case "record":
		fields, _ := s["fields"].([]any)
		var types []any
		for _, f := range fields {
			field, _ := f.(map[string]any)
			id, ok := field["field-id"].(float64)
			if !ok {
				id = -1
			}
			n.ids, types = append(n.ids, int(id)), append(types, field["type"])
		}
		return n.with(types, named)
	}
	return avroType(s["type"], named) // a primitive type with a logical one
}

// with adds what the type is made of.
func (n *avroNode) with(types []any, named map[string]*avroNode) (*avroNode, error) {
	for _, t := range types {
		inside, err := avroType(t, named)
		if err != nil {
			return nil, err
		}
		n.inside = append(n.inside, inside)
	}
	return n, nil
}

// avroValue is where the value of a field lies in a block.
type avroValue struct {
	id         int
	kind       string
	data       []byte // the value's bytes in Avro's form; of a union, those of its branch, without the branch's number
	start, end int    // in the block, with the number of the branch
	branch     int    // in a union, -1 elsewhere
	null       int    // the branch of the union that is null, -1 without one
}

func (v avroValue) long() int64 {
	n, _ := binary.Varint(v.data)
	return n
}

// bytes of a string or of bytes.
func (v avroValue) bytes() []byte {
	n, w := binary.Varint(v.data)
	return v.data[w : w+int(n)]
}

// avroEdit puts other bytes in the place of some of a block.
type avroEdit struct {
	start, end int
	with       []byte
}

func (v avroValue) edit(data []byte) avroEdit {
	if v.branch >= 0 {
		data = append(binary.AppendVarint(nil, int64(v.branch)), data...)
	}
	return avroEdit{v.start, v.end, data}
}

func (v avroValue) withLong(n int64) avroEdit { return v.edit(binary.AppendVarint(nil, n)) }

func (v avroValue) withBytes(b []byte) avroEdit {
	return v.edit(append(binary.AppendVarint(nil, int64(len(b))), b...))
}

// withNull is the edit that takes the value away, if its type allows that.
func (v avroValue) withNull() (avroEdit, bool) {
	return avroEdit{v.start, v.end, binary.AppendVarint(nil, int64(v.null))}, v.null >= 0
}

// avroForm is what the value of a field must be: files of others may give any type to a field's id.
type avroForm int

const (
	anyForm    avroForm = iota
	numberForm          // int or long
	textForm            // string or bytes
)

// allows says whether a value of this kind can be read; null stands for an absent one.
func (f avroForm) allows(kind string) bool {
	switch f {
	case numberForm:
		return kind == "int" || kind == "long" || kind == "null"
	case textForm:
		return kind == "string" || kind == "bytes" || kind == "null"
	}
	return true
}

// avroFields are the fields that are looked at, by Iceberg's ids.
type avroFields map[int]avroForm

// avroWalk goes through the records of a block.
type avroWalk struct {
	ctx   context.Context
	block []byte
	at    int
	steps int // that the walk may take yet
	want  avroFields
	found []avroValue // those of the present record, without those that are null
	edits []avroEdit  // that the walk itself needs
	err   error
}

var (
	errAvroBlock = errors.New("a block of the Avro file ends too early or holds what its schema does not allow")
	errAvroSteps = errors.New("the Avro file's schema needs more steps than its bytes account for")
	errAvroKind  = errors.New("a field of the Avro file is not of the type that Iceberg's specification gives to its id")
)

// A schema may need many steps for no bytes: records without fields, in one another. What Iceberg's writers make needs up to three a byte.
const (
	stepsAByte  = 16
	stepsAtRest = 100_000
	stepsAtOnce = 1 << 16 // between two looks at the context
)

func newAvroWalk(ctx context.Context, block []byte, want avroFields) *avroWalk {
	return &avroWalk{ctx: ctx, block: block, want: want, steps: stepsAtRest + stepsAByte*len(block)}
}

// step counts; false ends the walk.
func (w *avroWalk) step() bool {
	if w.err != nil {
		return false
	}
	if w.steps--; w.steps <= 0 {
		w.err = errAvroSteps
	} else if w.steps%stepsAtOnce == 0 && w.ctx.Err() != nil {
		w.err = context.Cause(w.ctx)
	}
	return w.err == nil
}

func (w *avroWalk) long() int64 {
	n, width := binary.Varint(w.block[w.at:])
	if width <= 0 {
		w.err = errAvroBlock
		return 0
	}
	w.at += width
	return n
}

func (w *avroWalk) skip(n int64) {
	if n < 0 || n > int64(len(w.block)-w.at) {
		w.err = errAvroBlock
		return
	}
	w.at += int(n)
}

// mostAvroDepth is how deep values may lie in one another.
const mostAvroDepth = 200

// walk passes one value. A schema may contain itself: it is not followed for ever.
func (w *avroWalk) walk(n *avroNode, depth int) {
	if !w.step() {
		return
	}
	if depth > mostAvroDepth {
		w.err = errAvroBlock
		return
	}
	switch n.kind {
	case "null":
	case "boolean":
		w.skip(1)
	case "int", "long", "enum":
		w.long()
	case "float":
		w.skip(4)
	case "double":
		w.skip(8)
	case "fixed":
		w.skip(int64(n.size))
	case "bytes", "string":
		w.skip(w.long())
	case "union":
		w.branch(n, depth)
	case "record":
		for i, field := range n.inside {
			w.field(n.ids[i], field, depth)
		}
	case "array", "map":
		w.items(n, depth)
	}
}

// branch passes a value of a union.
func (w *avroWalk) branch(n *avroNode, depth int) (number int, start int) {
	i := w.long()
	if w.err != nil || i < 0 || i >= int64(len(n.inside)) {
		w.err = errAvroBlock
		return 0, w.at
	}
	start = w.at
	w.walk(n.inside[i], depth+1)
	return int(i), start
}

func (w *avroWalk) field(id int, n *avroNode, depth int) {
	v := avroValue{id: id, kind: n.kind, start: w.at, branch: -1, null: -1}
	inner := w.at
	slot := len(w.found)
	form, wanted := w.want[id]
	if wanted {
		w.found = append(w.found, v) // before those of the values inside it
	}
	if n.kind == "union" {
		v.branch, inner = w.branch(n, depth+1)
		if w.err != nil {
			return
		}
		v.kind = n.inside[v.branch].kind
		for i, b := range n.inside {
			if b.kind == "null" {
				v.null = i
			}
		}
	} else {
		w.walk(n, depth+1)
	}
	if !wanted || w.err != nil {
		return
	}
	if !form.allows(v.kind) {
		w.err = errAvroKind
		return
	}
	v.data, v.end = w.block[inner:w.at], w.at
	w.found[slot] = v
}

// items passes an array or a map. Its blocks may carry their length in bytes, which an edit inside would make wrong: it is taken out.
func (w *avroWalk) items(n *avroNode, depth int) {
	for {
		start := w.at
		count := w.long()
		if count < 0 {
			count = -count
			w.long()
			w.edits = append(w.edits, avroEdit{start, w.at, binary.AppendVarint(nil, count)})
		}
		if w.err != nil || count == 0 {
			return
		}
		if count < 0 || count > int64(len(w.block)-w.at) { // an item has a byte at least
			w.err = errAvroBlock
			return
		}
		for range count {
			if !w.step() {
				return
			}
			if n.kind == "map" {
				w.skip(w.long())
			}
			w.walk(n.inside[0], depth+1)
			if w.err != nil {
				return
			}
		}
	}
}

// avroFile is an object container file.
type avroFile struct {
	header []byte // up to the first block
	sync   []byte
	blocks []byte
	schema *avroNode
	text   []byte // of the schema
	codec  string
}

var avroMagic = []byte("Obj\x01")

func openAvro(data []byte) (*avroFile, error) {
	if !bytes.HasPrefix(data, avroMagic) {
		return nil, errors.New("it is no Avro file")
	}
	w := newAvroWalk(context.Background(), data, nil)
	w.at = len(avroMagic)
	f := &avroFile{codec: "null"}
	for count := w.long(); count != 0 && w.err == nil; count = w.long() {
		if count < 0 {
			count = -count
			w.long()
		}
		for ; count > 0 && w.err == nil; count-- {
			key, value := w.prefixed(), w.prefixed()
			switch string(key) {
			case "avro.codec":
				f.codec = string(value)
			case "avro.schema":
				schema, err := parseAvroSchema(value)
				if err != nil {
					return nil, err
				}
				f.schema, f.text = schema, value
			}
		}
	}
	start := w.at
	w.skip(16)
	if w.err != nil {
		return nil, w.err
	}
	if f.schema == nil {
		return nil, errAvroSchema
	}
	f.header, f.sync, f.blocks = data[:w.at], data[start:w.at], data[w.at:]
	return f, nil
}

// prefixed passes bytes that their number stands before.
func (w *avroWalk) prefixed() []byte {
	n := w.long()
	start := w.at
	w.skip(n)
	return w.block[start:w.at]
}

// each calls back with each block, uncompressed.
func (f *avroFile) each(ctx context.Context, block func(data []byte, count int64) error) error {
	w := newAvroWalk(ctx, f.blocks, nil)
	for w.at < len(w.block) {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		count := w.long()
		packed := w.prefixed()
		sync := w.at
		w.skip(16)
		if w.err != nil || count < 0 || !bytes.Equal(w.block[sync:w.at], f.sync) {
			return errAvroBlock
		}
		data, err := format.UnpackAvro(f.codec, packed)
		if err != nil {
			return err
		}
		if err := block(data, count); err != nil {
			return err
		}
	}
	return nil
}

// records calls back with the values of some fields, record by record. They are good until it returns. What the callback returns is
// changed in the record, and all goes to out, if there is one.
func (f *avroFile) records(ctx context.Context, want avroFields, out *bytes.Buffer, record func([]avroValue) ([]avroEdit, error)) error {
	if out != nil {
		out.Write(f.header)
	}
	return f.each(ctx, func(data []byte, count int64) error {
		w := newAvroWalk(ctx, data, want)
		var changed bytes.Buffer
		for range count {
			start := w.at
			w.found, w.edits = w.found[:0], w.edits[:0]
			w.walk(f.schema, 0)
			if w.err != nil {
				return w.err
			}
			edits, err := record(w.found)
			if err != nil {
				return err
			}
			if out != nil {
				splice(&changed, data, start, w.at, w.edits, edits)
			}
			if w.at == start { // a record without any bytes: no count of them needs following
				break
			}
		}
		if out == nil {
			return nil
		}
		if w.at != len(data) {
			return errAvroBlock
		}
		return writeAvroBlock(out, f.codec, count, changed.Bytes(), f.sync)
	})
}

// splice writes the bytes from start to end with both kinds of edits made. An edit of the caller replaces those of the walk inside it.
func splice(out *bytes.Buffer, data []byte, start, end int, own, edits []avroEdit) {
	at := start
	for len(own)+len(edits) > 0 {
		var e avroEdit
		if len(edits) == 0 || len(own) > 0 && own[0].start < edits[0].start {
			e, own = own[0], own[1:]
		} else {
			e, edits = edits[0], edits[1:]
		}
		if e.start < at {
			continue
		}
		out.Write(data[at:e.start])
		out.Write(e.with)
		at = e.end
	}
	out.Write(data[at:end])
}
