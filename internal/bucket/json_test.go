package bucket_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
)

func TestJSONThatIsMostlyObjectsIsRefused(t *testing.T) {
	t.Parallel()
	type file struct{ Key, Sum string }
	many := func(one string, n int) []byte {
		return []byte("[" + strings.TrimSuffix(strings.Repeat(one+",", n), ",") + "]")
	}
	var files []file
	if err := bucket.DecodeJSON(many("{}", 2_000_000), &files); err == nil || len(files) > 0 {
		t.Errorf("two million objects of two bytes became %d files, %v", len(files), err)
	}
	if err := bucket.DecodeJSON(many(`{"key":"public.orders/1.csv.gz","sum":"00"}`, 500_000), &files); err != nil || len(files) != 500_000 {
		t.Errorf("a manifest of 500,000 files became %d, %v", len(files), err)
	}
	if err := bucket.DecodeJSON(many("{}", 1000), &files); err != nil {
		t.Errorf("a small one: %v", err)
	}
	for _, item := range []string{"null", "1", `""`, "[]"} {
		if err := bucket.DecodeJSON(many(item, 2_000_000), &files); err == nil || len(files) > 100 && files[99].Key == "" && len(files) > 1000 {
			t.Errorf("two million times %s became %d files, %v", item, len(files), err)
		}
	}
	var one map[string]any
	if err := bucket.DecodeJSON([]byte("{"+strings.TrimSuffix(strings.Repeat(`"a":{},`, 500_000), ",")+"}"), &one); err == nil {
		t.Error("half a million objects that are in no list are read")
	}
	var text []string
	if err := bucket.DecodeJSON(many(`"`+strings.Repeat(`[{,\"`, 20)+`"`, 50_000), &text); err != nil || len(text) != 50_000 {
		t.Errorf("brackets in %d texts: %v", len(text), err)
	}
	var deep any
	if err := bucket.DecodeJSON(bytes.Repeat([]byte("["), 1<<20), &deep); err == nil {
		t.Error("a million levels are read")
	}
}
