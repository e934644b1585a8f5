package fault_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/fault"
)

// hostileWords are names that a shell, a terminal or SQL would obey.
var hostileWords = []string{
	"; rm -rf ~", "$(id)", "`id`", "a'b", "'; id; '", `a"b`, `a\b`, "-rf", "", "*", "~", "a b", "a\nb", "a\x1b[2J", "\u202eabc\u2066", "é\u200b", "bad\xffbyte", "!id", "a&b|c>d<e", "#x", "{a,b}", "\x010", "a'b\x1b", "a\x1b\\n",
}

func TestACommandToPasteHasANameAsOneWord(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range append(hostileWords, "public.orders") {
		shown := fault.Shell(word)
		if fault.Printable(shown) != shown {
			t.Errorf("%q is pasted as %q, which a terminal obeys", word, shown)
		}
		out, err := exec.Command(bash, "-c", "printf %s "+shown).Output()
		if err != nil || string(out) != word {
			t.Errorf("%q is pasted as %s, which is %q to a shell: %v", word, shown, out, err)
		}
	}
	if got := fault.Shell("public.Key%2Ea"); got != "public.Key%2Ea" {
		t.Errorf("a plain word is pasted as %s", got)
	}
}

func TestAnIdentifierToPasteIsSeenWholly(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`alter table "a"."b";`:                           `alter table "a"."b";`,
		"alter table \"a\"\"\x1b\".\"b\\\u202e\" x;":     `alter table U&"a""\001b".U&"b\\\202e" x;`,
		"drop \"\U000e0041\";":                           `drop U&"\+0e0041";`,
		"the name \x1b is \"plain\"":                     "the name \x1b is \"plain\"",
		"alter table \"a\xff\x1b\";":                     "alter table \"a\xff\x1b\";",
		"one \"a\nb\", and a quote that does not end \"": `one U&"a\000ab", and a quote that does not end "`,
		"\"": "\"",
	} {
		got := fault.Pasted(text)
		if got != want {
			t.Errorf("%q is pasted as %q, not %q", text, got, want)
		}
		if again := fault.Pasted(got); again != got {
			t.Errorf("%q becomes %q the second time", got, again)
		}
	}
	f := fault.New(fault.KeyMissing, "x", "y").WithMend("Run: alter table %s;", "\"a\nlevel=INFO\"")
	if got := f.HowToMend(); got != `Run: alter table U&"a\000alevel=INFO";` || strings.Contains(got, "\n") {
		t.Errorf("got %q", got)
	}
}
