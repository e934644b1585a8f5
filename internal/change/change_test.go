package change_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/change"
)

func TestAnLSNReadsAndWritesAsPostgreSQLDoes(t *testing.T) {
	t.Parallel()
	f := func(text string, want change.LSN) {
		t.Helper()
		got, err := change.ParseLSN(text)
		if err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
		if got.String() != text {
			t.Errorf("%s came back as %s", text, got)
		}
	}
	f("0/0", 0)
	f("16/B374D848", 0x16_B374D848)
	f("FFFFFFFF/FFFFFFFF", ^change.LSN(0))
}

func TestWhatIsNoLSNIsRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "/", "1", "1/", "g/0", "1/2/3", "100000000/0", "-1/0"} {
		if lsn, err := change.ParseLSN(text); err == nil {
			t.Errorf("%q was read as %s", text, lsn)
		}
	}
}

func TestAnLSNKeepsItsFormInJSON(t *testing.T) {
	t.Parallel()
	data, err := json.Marshal(change.LSN(0x1_00000010))
	if err != nil || string(data) != `"1/10"` {
		t.Fatalf("%s, %v", data, err)
	}
	var back change.LSN
	if err := json.Unmarshal(data, &back); err != nil || back != 0x1_00000010 {
		t.Fatalf("%s, %v", back, err)
	}
}

func TestNamesInKeysAreSafeAndDistinct(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, name := range []string{"orders", "Orders", "a.b", "a/b", "../x", ".", "..", "ü", "a b", "%41", "A", "a%2Eb", "\x00", "日本", "", "a\nb"} {
		key := change.EncodeName(name)
		if other, ok := seen[key]; ok {
			t.Errorf("%q and %q are both %q", name, other, key)
		}
		seen[key] = name
		if strings.ContainsAny(key, "/.\x00\n ") {
			t.Errorf("%q became %q", name, key)
		}
	}
	table := change.Table{Schema: "a.b", Name: "c"}
	if table.KeyName() != "a%2Eb.c" {
		t.Errorf("got %s", table.KeyName())
	}
}

func TestALongNameIsCutAndStaysDistinct(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("表", 21)
	a := (&change.Table{Schema: long, Name: long}).KeyName()
	b := (&change.Table{Schema: long, Name: long[:60] + "面"}).KeyName()
	if len(a) > 200 || len(b) > 200 || a == b || !strings.Contains(a, "~") {
		t.Errorf("%q and %q", a, b)
	}
}
