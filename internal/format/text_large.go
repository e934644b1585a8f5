package format

import (
	"encoding/hex"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/leatdata/leat/internal/change"
)

// textPiece is the size in bytes of the pieces in which larger values are written: the buffer need not hold them whole.
const textPiece = 256 << 10

// largeText gives a row's value if it is larger than a piece. The value shares the column's memory.
type largeText func(row int) (v string, large bool)

// largeTextOf is nil for a column that has no such value.
func largeTextOf(column arrow.Array) largeText {
	var value func(row int) string
	switch c := column.(type) {
	case *array.String:
		value = c.Value
	case *array.Binary:
		value = c.ValueString
	default:
		return nil
	}
	lengths := column.(array.BinaryLike)
	if column.Len() == 0 || len(lengths.ValueBytes()) <= textPiece { // an empty one may lack its buffers
		return nil
	}
	return func(row int) (string, bool) {
		if lengths.ValueLen(row) <= textPiece || column.IsNull(row) {
			return "", false
		}
		return value(row), true
	}
}

// textPieces is how the pieces of a value are written, and what stands around them.
type textPieces struct {
	open, shut string
	piece      func(to []byte, v string) []byte
}

func (t *textWriter) piecesOf(f arrow.Field, v string) textPieces {
	switch {
	case f.Type.ID() == arrow.BINARY && t.json:
		return textPieces{`"\\x`, `"`, appendHex}
	case f.Type.ID() == arrow.BINARY:
		return textPieces{`\x`, "", appendHex}
	case t.json && change.Logical(f) == change.LogicalJSON:
		return textPieces{"", "", appendJSONText}
	case t.json:
		return textPieces{`"`, `"`, appendJSONInside}
	case hasAny(v, csvQuoted):
		return textPieces{`"`, `"`, appendCSVInside}
	}
	return textPieces{"", "", func(to []byte, v string) []byte { return append(to, v...) }}
}

func appendHex(to []byte, v string) []byte { return hex.AppendEncode(to, []byte(v)) }

// hasAny is strings.ContainsAny, piece by piece: see scratch.Copy.
func hasAny(v, chars string) bool {
	for len(v) > textPiece {
		if strings.ContainsAny(v[:textPiece], chars) {
			return true
		}
		v = v[textPiece:]
	}
	return strings.ContainsAny(v, chars)
}

// writeLarge writes a value piece by piece. Where a piece ends inside a character no harm is done: what is escaped are single bytes.
func (t *textWriter) writeLarge(f arrow.Field, v string) error {
	p := t.piecesOf(f, v)
	t.buf = append(t.buf, p.open...)
	for ; len(v) > 0; v = v[min(textPiece, len(v)):] {
		t.buf = p.piece(t.buf, v[:min(textPiece, len(v))])
		if err := t.flush(); err != nil {
			return err
		}
	}
	t.buf = append(t.buf, p.shut...)
	return nil
}
