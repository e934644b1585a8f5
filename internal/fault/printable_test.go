package fault_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/leatdata/leat/internal/fault"
)

func TestTextFromDataIsWrittenAsItCanBeShown(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"public.orders":                   "public.orders",
		"café 東京 😀 \\ \" ' %":             "café 東京 😀 \\ \" ' %",
		"a\x1b[2J\nlevel=INFO\r":          `a\x1b[2J\nlevel=INFO\r`,
		"\x00\a\b\t\x7f":                  `\x00\x07\x08\t\x7f`,
		"\u0085\u009b31m":                 `\u0085\u009b31m`,
		"a\u202eb\u2066c\u2069":           `a\u202eb\u2066c\u2069`,
		"\u2028\u2029":                    `\u2028\u2029`,
		"z\u200b\u200d\ufeff\u00ad\u2060": `z\u200b\u200d\ufeff\u00ad\u2060`,
		"\U000e0041":                      `\U000e0041`,
		"bad\xff\xc3(":                    `bad\xff\xc3(`,
		"real \ufffd":                     "real \ufffd",
		"both \ufffd\x1b":                 "both \ufffd" + `\x1b`,
		"":                                "",
	} {
		got := fault.Printable(text)
		if got != want {
			t.Errorf("%q is shown as %q, not %q", text, got, want)
		}
		if again := fault.Printable(got); again != got {
			t.Errorf("%q changes when it is shown twice: %q", got, again)
		}
	}
	if got := fault.ValidText("a\xff\x1b\ufffd"); got != `a\xff`+"\x1b\ufffd" {
		t.Errorf("bytes that are no UTF-8: %q", got)
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b[2J\u202e\xff\U000e0041")
	f.Fuzz(func(t *testing.T, text string) {
		shown := fault.Printable(text)
		if !utf8.ValidString(shown) || strings.ContainsAny(shown, "\x1b\n\r\t\x00\x7f\u009b\u202e\u2028\u200b") || fault.Printable(shown) != shown {
			t.Errorf("%q is shown as %q", text, shown)
		}
		data, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		var before, after string
		safe := fault.PrintableJSON(data)
		if json.Unmarshal(data, &before) != nil || json.Unmarshal(safe, &after) != nil || before != after {
			t.Errorf("%q became %s", text, safe)
		}
		if got := fault.Printable(string(safe)); got != string(safe) {
			t.Errorf("%s is not printable: %s", safe, got)
		}
	})
}
