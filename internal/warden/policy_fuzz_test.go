package warden

import (
	"encoding/json"
	"testing"

	"github.com/leatdata/leat/internal/fault"
)

func FuzzPolicyOfABucket(f *testing.F) {
	for _, text := range []string{
		`{"Version":"2012-10-17","Statement":[{"Sid":"a","Effect":"Allow","Principal":"*","Action":["s3:GetObject"],"Resource":"arn:aws:s3:::b/*"}]}`,
		`{"Statement":{"Sid":"one"}}`, `null`, `[]`, `{"Statement":[null,[],5]}`, ``,
	} {
		f.Add(text, text)
	}
	f.Fuzz(func(t *testing.T, before, other string) {
		same(before, other)
		if !same(before, before) {
			t.Errorf("%q is not the same as itself", before)
		}
		merged, err := merge(before, Document{Version: "2012-10-17", Statement: []Statement{{Sid: "leat"}}}, DraftOptions{Job: Dump, Name: "b"})
		if err != nil {
			if fault.Of(err) == nil {
				t.Errorf("an error that is no fault: %v", err)
			}
			return
		}
		if !json.Valid([]byte(merged)) {
			t.Errorf("%q becomes %q", before, merged)
		}
	})
}
