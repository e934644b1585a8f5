package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"

	"github.com/leatdata/leat/internal/fault"
)

// maxReferenced bounds what a ${file:…} reference may hold, in bytes.
const maxReferenced = 64 << 10

var (
	// reference is ${env:NAME} or ${file:/path}; $${ stands for a plain ${.
	reference    = regexp.MustCompile(`\$?\$\{[^{}]*\}?`)
	oneReference = regexp.MustCompile(`^\s*\$\{(env|file):[^{}]+\}\s*$`)
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// isReference says whether a text is one reference and nothing else.
func isReference(s string) bool { return oneReference.MatchString(s) }

// resolveSecret reads a secret. Files and flags give references only; a variable may hold the
// secret itself, because a variable is what a reference would point to.
func resolveSecret(key *Key, g given, env func(string) (string, bool)) (Secret, error) {
	t := g.texts[0]
	if !isReference(t.value) {
		if g.layer != layerEnv && g.layer != layerAmbient { // a variable is a good place for one
			return Secret{}, literalSecret(key.Path, t.place)
		}
		return NewSecret(t.value), nil
	}
	read := func() (string, error) {
		value, err := expand(strings.TrimSpace(t.value), env)
		if err != nil {
			return "", at(err, key.Path, t.place)
		}
		return value, nil
	}
	value, err := read()
	if err != nil {
		return Secret{}, err
	}
	secret := NewSecret(value)
	if !secret.IsZero() {
		secret.again = read
	}
	return secret, nil
}

func literalSecret(path, place string) error {
	return fault.New(fault.ConfigInvalid, where(path, place), "a secret is not written down here; give a reference: ${env:NAME} or ${file:/path}").
		WithMend("Put the secret into an environment variable or a file, write the reference here, and change the secret if others have seen this place.")
}

// expand replaces each reference by what it points to. Its faults have no Where: the caller
// knows the key. They name references, never values.
func expand(s string, env func(string) (string, bool)) (string, error) {
	var failed error
	out := reference.ReplaceAllStringFunc(s, func(ref string) string {
		if strings.HasPrefix(ref, "$$") {
			return ref[1:]
		}
		value, err := resolve(ref, env)
		if err != nil && failed == nil {
			failed = err
		}
		return value
	})
	return out, failed
}

func resolve(ref string, env func(string) (string, bool)) (string, error) {
	inner, closed := strings.CutSuffix(strings.TrimPrefix(ref, "${"), "}")
	kind, name, _ := strings.Cut(inner, ":")
	switch {
	case !closed:
		return "", fault.New(fault.ConfigInvalid, "", "a reference has no closing brace; write ${env:NAME} or ${file:/path}, and $${ for a plain ${")
	case kind == "env" && variableName.MatchString(name):
		return variable(ref, name, env)
	case kind == "file" && filepath.IsAbs(name):
		return fileContent(ref, name)
	case kind == "file":
		return "", fault.New(fault.ConfigInvalid, "", "%s does not begin with a slash; leat may be started from any folder, so the path must be absolute", ref)
	}
	return "", fault.New(fault.ConfigInvalid, "", "%s is not a reference; write ${env:NAME} or ${file:/path}, and $${ for a plain ${", ref)
}

func variable(ref, name string, env func(string) (string, bool)) (string, error) {
	value, ok := env(name)
	switch {
	case !ok:
		return "", fault.New(fault.SecretMissing, "", "%s: the environment variable %s is not set", ref, name)
	case value == "":
		return "", fault.New(fault.SecretMissing, "", "%s: the environment variable %s is empty", ref, name)
	}
	return value, nil
}

// fileContent reads a referenced file without the line break at its end.
func fileContent(ref, path string) (string, error) {
	data, err := readRegular(path, maxReferenced)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fault.New(fault.SecretMissing, "", "%s: there is no such file", ref)
	case err != nil:
		return "", fault.Wrap(err, fault.SecretMissing, "", "%s: the file cannot be read", ref)
	}
	value := strings.TrimRight(string(data), "\r\n")
	if value == "" {
		return "", fault.New(fault.SecretMissing, "", "%s: the file is empty", ref)
	}
	return value, nil
}

var errNotRegular = errors.New("this is not a regular file")

// readRegular reads a file of at most so many bytes. A pipe or a device is refused: it might
// never end.
func readRegular(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errNotRegular
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("the file is larger than %d bytes", most)
	}
	return data, err
}

// splitList splits a variable's text at spaces and commas outside double quotes.
func splitList(s string) ([]string, error) {
	quoted := false
	items := strings.FieldsFunc(s, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && (unicode.IsSpace(r) || r == ',')
	})
	if quoted {
		return nil, errOpenQuote
	}
	return items, nil
}

var errOpenQuote = errors.New("a quote does not end")
