package testlab

import (
	"bytes"
	"net/url"
	"sync"
	"testing"
)

var secrets struct {
	mu    sync.Mutex
	known []string
}

// Secret makes value one of the lab's known secrets and returns it. Tests that invent a password or a token
// pass it through here.
func Secret(value string) string {
	secrets.mu.Lock()
	defer secrets.mu.Unlock()
	for _, known := range secrets.known {
		if known == value {
			return value
		}
	}
	secrets.known = append(secrets.known, value)
	return value
}

// NoSecrets fails the test if output shows a known secret, as it is or escaped for a URL. It never repeats
// the secret itself.
func NoSecrets(t testing.TB, where string, output []byte) {
	t.Helper()
	if line, found := findSecret(output); found {
		t.Errorf("%s shows a secret in line %d", where, line)
	}
}

func findSecret(output []byte) (line int, found bool) {
	secrets.mu.Lock()
	defer secrets.mu.Unlock()
	for _, s := range secrets.known {
		for _, form := range []string{s, url.QueryEscape(s), url.PathEscape(s)} {
			if at := bytes.Index(output, []byte(form)); at >= 0 {
				return bytes.Count(output[:at], []byte("\n")) + 1, true
			}
		}
	}
	return 0, false
}
