package config_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/leatdata/leat/internal/config"
)

// holder keeps a secret in every place that formatters reach in ways of their own.
type holder struct {
	Public  config.Secret
	Pointer *config.Secret
	List    []config.Secret
	ByName  map[string]config.Secret
	Any     any
	private config.Secret // fmt asks no method of unexported fields
}

func newHolder() holder {
	s := config.NewSecret(password)
	return holder{s, &s, []config.Secret{s}, map[string]config.Secret{"x": s}, s, s}
}

func TestNoVerbShowsASecret(t *testing.T) {
	t.Parallel()
	s, h := config.NewSecret(password), newHolder()
	values := map[string]any{"secret": s, "pointer": &s, "struct": h, "struct pointer": &h, "slice": []any{s, &s, h}, "map key": map[string]any{"k": h}}
	hexed := fmt.Sprintf("%x", password)
	for name, v := range values {
		for _, verb := range strings.Split("v +v #v s q x X d t b o O c U e g p T w", " ") {
			out := fmt.Sprintf("%"+verb, v)
			if strings.Contains(out, password) || strings.Contains(strings.ToLower(out), hexed) {
				t.Errorf("%%%s of %s shows the secret", verb, name)
			}
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if got := fmt.Sprintf(verb, s); got != "[secret]" {
			t.Errorf("%s gives %s, want [secret]", verb, got)
		}
	}
}

func TestNoEncodingShowsASecret(t *testing.T) {
	t.Parallel()
	s, h := config.NewSecret(password), newHolder()
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	logger.Info("m", "secret", s, "pointer", &s, "struct", h)
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "secret", s, "pointer", &s, "struct", h)
	asJSON, err1 := json.Marshal(h)
	asYAML, err2 := yaml.Marshal(h)
	asXML, err3 := xml.Marshal(s)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	for name, out := range map[string][]byte{"slog": log.Bytes(), "JSON": asJSON, "YAML": asYAML, "XML": asXML} {
		if bytes.Contains(out, []byte(password)) {
			t.Errorf("%s shows the secret", name)
		}
		if !bytes.Contains(out, []byte("[secret]")) {
			t.Errorf("%s does not say [secret]: %s", name, out)
		}
	}
	if err := fmt.Errorf("login with %s: %w", s, fmt.Errorf("%v", h)); strings.Contains(err.Error(), password) {
		t.Error("an error shows the secret")
	}
}

func TestGobRefusesASecret(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := gob.NewEncoder(&out).Encode(struct{ S config.Secret }{config.NewSecret(password)}); err == nil {
		t.Error("gob encoded a secret")
	}
	if bytes.Contains(out.Bytes(), []byte(password)) {
		t.Error("gob wrote the secret before it refused")
	}
}

func TestOnlyRevealGivesTheSecret(t *testing.T) {
	t.Parallel()
	if got := config.NewSecret(password).Reveal(); got != password {
		t.Error("Reveal gives something else")
	}
	var none config.Secret
	if !none.IsZero() || none.Reveal() != "" || !config.NewSecret("").IsZero() || config.NewSecret(password).IsZero() {
		t.Error("a secret that was not given must be zero and empty, one that was given must not")
	}
}

func TestALoadedConfigurationShowsNoSecret(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"postgres://app:${env:PASSWORD}@db/shop", "host=db password=${env:PASSWORD}", "${env:URL}"} {
		c, err := config.Parse("leat.yaml", []byte("from: "+url), config.LoadOptions{Env: env("PASSWORD", password, "URL", "postgres://app:"+password+"@db/shop")})
		if err != nil {
			t.Fatal(err)
		}
		if c.From.Password.Reveal() != password {
			t.Errorf("%s: the password did not arrive", url)
		}
		connString, _ := c.From.ConnString()
		asJSON, _ := json.Marshal(c)
		for _, out := range []string{fmt.Sprintf("%v %+v %#v", c, c, *c), connString, c.From.URL, string(asJSON)} {
			if strings.Contains(out, password) {
				t.Errorf("%s: the password shows", url)
			}
		}
	}
}
