package bucket

import (
	"encoding/json"
	"fmt"
)

// What programs write has far fewer objects than bytes; a text of "{}," holds one in three bytes, each of which takes a hundred in memory. So
// has any item of a list that is read into structures: "null,".
const (
	fewItems    = 100_000
	bytesObject = 32
	bytesItem   = 16
)

// JSONBudget counts what a JSON text holds, as it comes, against its bytes. The zero value is ready.
type JSONBudget struct {
	bytes, objects, items int
	lists                 []bool // which of the open ones are lists
	text, escaped         bool
}

// mostJSONDepth is more than encoding/json takes: what lies deeper is its error.
const mostJSONDepth = 20_000

// Add counts the next bytes; an error says that what they hold would take far more memory than they are.
func (b *JSONBudget) Add(p []byte) error {
	b.bytes += len(p)
	for _, c := range p {
		switch {
		case b.escaped:
			b.escaped = false
		case b.text:
			b.text, b.escaped = c != '"', c == '\\'
		default:
			b.mark(c)
		}
	}
	if b.objects > fewItems+b.bytes/bytesObject {
		return fmt.Errorf("%d objects in %d bytes of JSON are more than any program of ours writes", b.objects, b.bytes)
	}
	if b.items > fewItems+b.bytes/bytesItem {
		return fmt.Errorf("%d items in lists in %d bytes of JSON are more than any program of ours writes", b.items, b.bytes)
	}
	return nil
}

// mark takes a byte outside texts.
func (b *JSONBudget) mark(c byte) {
	last := len(b.lists) - 1
	switch c {
	case '"':
		b.text = true
	case '{':
		b.objects++
		b.open(false)
	case '[':
		b.open(true)
	case '}', ']':
		if last >= 0 {
			b.lists = b.lists[:last]
		}
	case ',':
		if last >= 0 && b.lists[last] {
			b.items++
		}
	}
}

func (b *JSONBudget) open(list bool) {
	if len(b.lists) < mostJSONDepth {
		b.lists = append(b.lists, list)
	}
}

// DecodeJSON is json.Unmarshal for what lies in a bucket, where other programs write too: what would take far more memory than its bytes is
// an error. encoding/json itself bounds how deep values lie in one another.
func DecodeJSON(data []byte, into any) error {
	if err := new(JSONBudget).Add(data); err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}
