package postgres

import (
	"errors"
	"testing"
)

// What the WAL's messages and the saved state say: anybody may write the first, and what writes to the bucket the second.
func FuzzMessagesOfDDL(f *testing.F) {
	f.Add([]byte(`{"version":1,"many":false,"by":"ALTER TABLE","tables":[{"oid":7,"above":[8],"identity":"d","key":9,"weak":[],"reason":0,"columns":[["a",1,23,false]]}],"publications":[{"name":"p","table":7}]}`), "5:1 6:1 1 d 7 -")
	f.Add([]byte(`{"version":1,"tables":[null],"publications":[null]}`), "- - 0 f 0 23:1 1:2:3:4:5:6:7:8")
	f.Add([]byte(nil), "5:1 6 7 \x8c ) -")
	f.Fuzz(func(t *testing.T, content []byte, facts string) {
		if d, err := ParseDDL(content); err == nil && len(content) > mostDDL {
			t.Errorf("%d bytes are taken: %v", len(content), d)
		} else if err != nil && !errors.Is(err, errDDL) {
			t.Errorf("got %v", err)
		}
		if known, ok := ParseFacts(facts); ok {
			text := known.String()
			if again, ok := ParseFacts(text); !ok || again.String() != text {
				t.Errorf("%q is %q and then %q", facts, text, again.String())
			}
		}
	})
}
