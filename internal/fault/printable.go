package fault

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable is text from data (keys, names, what servers say) as it may stand on a terminal or in a line of a log: what moves the cursor,
// ends a line, turns the direction of writing or is not seen is written as an escape, \n, \x1b or \u202e. Bytes that are no UTF-8 become \xff
// and the like. Doing it twice changes nothing.
func Printable(text string) string {
	if isPrintable(text) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case !hides(r):
			b.WriteString(text[i : i+size])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		i += size
	}
	return b.String()
}

func isPrintable(text string) bool {
	for _, r := range text {
		if hides(r) || r == utf8.RuneError {
			return r == utf8.RuneError && utf8.ValidString(text) && !strings.ContainsFunc(text, hides)
		}
	}
	return true
}

// hides says whether a character is obeyed or not seen: controls (C0, DEL, C1), formats (the directions of writing, zero widths, tags), and
// the separators of lines and paragraphs.
func hides(r rune) bool {
	return r < ' ' || r >= 0x7f && r <= 0x9f || r > 0x9f && unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)
}

// ValidText is text in which bytes that are no UTF-8 are written as \xff: JSON would put one and the same sign in the place of each.
func ValidText(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && size == 1 {
			fmt.Fprintf(&b, `\x%02x`, text[i])
		} else {
			b.WriteString(text[i : i+size])
		}
		i += size
	}
	return b.String()
}

// PrintableJSON is JSON of the same meaning in which no character is obeyed by a terminal or hidden: they are written as JSON's own
// escapes. encoding/json escapes only some of them.
func PrintableJSON(data []byte) []byte {
	first := -1
	for i, r := range string(data) {
		if r >= 0x7f && hides(r) {
			first = i
			break
		}
	}
	if first < 0 {
		return data
	}
	out := append(make([]byte, 0, len(data)+64), data[:first]...)
	for _, r := range string(data[first:]) {
		switch {
		case r < 0x7f || !hides(r):
			out = utf8.AppendRune(out, r)
		case r <= 0xffff:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			high, low := 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		}
	}
	return out
}
