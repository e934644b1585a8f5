package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// hidden is all that ever shows of a Secret.
const hidden = "[secret]"

// Secret is a value that cannot be shown: every way of formatting or encoding it gives
// "[secret]", and only [Secret.Reveal] gives the value. The zero Secret is "not given".
type Secret struct {
	// A function and not a string, because fmt and reflection walk into unexported fields
	// of a surrounding struct without asking any method, and print what they find there.
	reveal func() string
	again  func() (string, error) // reads it once more where it comes from; nil where it cannot have changed
}

// NewSecret makes a Secret of a value that is at hand. An empty value gives the zero Secret.
func NewSecret(value string) Secret {
	if value == "" {
		return Secret{}
	}
	return Secret{reveal: func() string { return value }}
}

// Reveal gives the value, "" for the zero Secret. Call it where the value is used, and keep
// what it gives in no struct.
func (s Secret) Reveal() string {
	if s.reveal == nil {
		return ""
	}
	return s.reveal()
}

// Again reads the value once more where it comes from: a file may have been written since. It gives what Reveal gives
// where the value cannot have changed.
func (s Secret) Again() (string, error) {
	if s.again == nil {
		return s.Reveal(), nil
	}
	return s.again()
}

// IsZero says whether no secret was given.
func (s Secret) IsZero() bool { return s.reveal == nil }

// String hides the value, whether there is one or not.
func (Secret) String() string { return hidden }

// GoString hides the value from %#v.
func (Secret) GoString() string { return hidden }

// Format hides the value from every verb of fmt.
func (Secret) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, hidden) }

// LogValue hides the value from slog.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText hides the value from encoders of text, XML and YAML among them.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// MarshalJSON hides the value from encoding/json.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }

// MarshalYAML hides the value from YAML encoders.
func (Secret) MarshalYAML() (any, error) { return hidden, nil }

var errSecretEncoded = errors.New("a secret cannot be encoded")

// GobEncode refuses: gob is for reading back, and a hidden value read back would be a wrong one.
func (Secret) GobEncode() ([]byte, error) { return nil, errSecretEncoded }

// GobDecode refuses for the same reason.
func (*Secret) GobDecode([]byte) error { return errSecretEncoded }
