package fault

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Shell is a word of a command that people paste into a shell: a name that comes from data is one word and no command, and what would not be
// seen is written as an escape, in the form of quotes that bash, zsh and ksh know.
func Shell(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:%@+,=", r)
	}
	switch {
	case word != "" && strings.IndexFunc(word, func(r rune) bool { return !plain(r) }) < 0:
		return word
	case isPrintable(word):
		return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	var b strings.Builder
	b.WriteString("$'")
	for i := 0; i < len(word); {
		r, size := utf8.DecodeRuneInString(word[i:])
		switch {
		case r == '\'' || r == '\\':
			b.WriteString(`\` + string(r))
		case r == utf8.RuneError && size == 1, hides(r):
			for _, c := range []byte(word[i : i+size]) {
				fmt.Fprintf(&b, `\%03o`, c) // never more than three digits, so that the next character stays what it is
			}
		default:
			b.WriteString(word[i : i+size])
		}
		i += size
	}
	return b.String() + "'"
}

// Pasted is a hint with SQL that people paste: an identifier whose characters would not all be seen is written by their numbers, U&"\001b", which
// PostgreSQL takes for the same name. One that is no UTF-8 has no such form and stays.
func Pasted(text string) string {
	if isPrintable(text) || !strings.Contains(text, `"`) {
		return text
	}
	var b strings.Builder
	for {
		from := strings.IndexByte(text, '"')
		if from < 0 {
			return b.String() + text
		}
		b.WriteString(text[:from])
		name := text[from : from+quoted(text[from:])]
		if isPrintable(name) || !utf8.ValidString(name) || len(name) < 2 {
			b.WriteString(name)
		} else {
			byNumber(&b, name)
		}
		text = text[from+len(name):]
	}
}

// quoted is how long a text in double quotes is, of which "" is a part; one that does not end goes to the end.
func quoted(text string) int {
	for i := 1; i < len(text); i++ {
		if text[i] != '"' {
			continue
		}
		if i+1 == len(text) || text[i+1] != '"' {
			return i + 1
		}
		i++
	}
	return len(text)
}

func byNumber(b *strings.Builder, name string) {
	b.WriteString("U&")
	for _, r := range name {
		switch {
		case r == '\\':
			b.WriteString(`\\`)
		case !hides(r):
			b.WriteRune(r)
		case r <= 0xffff:
			fmt.Fprintf(b, `\%04x`, r)
		default:
			fmt.Fprintf(b, `\+%06x`, r)
		}
	}
}
