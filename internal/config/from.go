package config

import (
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/leatdata/leat/internal/fault"
)

// ConnString gives libpq's keyword='value' pairs for the PostgreSQL driver, without the
// password, which goes beside it (Password). What it leaves out the driver takes from PG*
// variables, the service file and .pgpass.
func (f *From) ConnString() (string, error) {
	c, err := f.conninfo()
	if err != nil {
		return "", fault.New(fault.URLInvalid, "from.url", "%s", err.Error())
	}
	for _, s := range f.ownKeys() {
		if s.value != "" {
			c.put(s.key, s.value)
		}
	}
	return c.String(), nil
}

func (f *From) conninfo() (conninfo, error) {
	if f.URL == "" {
		return nil, nil
	}
	return parseConninfo(f.URL)
}

// ownKeys are the keywords that have a key of their own under from.
func (f *From) ownKeys() []setting {
	timeout := ""
	if f.ConnectTimeout > 0 { // libpq counts whole seconds, and takes 0 for "for ever"
		timeout = strconv.Itoa(int((time.Duration(f.ConnectTimeout) + time.Second - 1) / time.Second))
	}
	return []setting{
		{"sslmode", string(f.SSLMode)}, {"sslrootcert", f.SSLRootCert}, {"sslcert", f.SSLCert}, {"sslkey", f.SSLKey},
		{"connect_timeout", timeout},
	}
}

// settleFrom takes the password out of the address, so that From.URL never holds one, and
// decides about TLS where nobody has: a host in the network gets require, because libpq's
// own default, prefer, lets whoever sits between turn TLS off unseen.
func (c *Config) settleFrom(env func(string) (string, bool)) error {
	f := &c.From
	address, err := c.address(env)
	if err != nil {
		return err
	}
	for _, s := range f.ownKeys() {
		if s.value != "" && address.value(s.key) != "" {
			return fault.New(fault.ConfigInvalid, c.where("from."+s.key), "is given twice: here and in from.url")
		}
	}
	if name := address.take("application_name"); name != "" && !c.isGiven("from.application_name") {
		f.ApplicationName = name
	}
	if address.value("sslpassword") != "" {
		return fault.New(fault.ConfigInvalid, c.where("from.url"), "sslpassword does not belong here").
			WithMend("Set PGSSLPASSWORD.")
	}
	f.URL = address.String()

	mode, host := f.ambient(address, env)
	switch {
	case mode != "" || f.SSLRootCert == "system":
	case isLocal(host) && f.IAM == "":
		f.SSLMode = "prefer"
	default:
		f.SSLMode = "require"
	}
	return c.checkIAM(mode)
}

// checkIAM keeps a token, which is as good as a password for 15 minutes, off connections that
// may be in the clear.
func (c *Config) checkIAM(mode string) error {
	switch {
	case c.From.IAM == "":
		return nil
	case !c.From.Password.IsZero():
		return fault.New(fault.ConfigInvalid, c.where("from.iam"), "an IAM token takes the password's place, but from.password is given too")
	case mode == "disable" || mode == "allow" || mode == "prefer":
		return fault.New(fault.ConfigInvalid, c.where("from.iam"), "an IAM token needs TLS, but sslmode is %s", mode).
			WithMend("Set from.sslmode to verify-full, with from.sslrootcert.")
	}
	return nil
}

// While an address is taken apart, marks stand for its references, so that what a reference
// gives is never read as part of the address's form: a password with an @ in it stays one.
const (
	markBegin = "\x01"
	markEnd   = "\x02"
)

var (
	markForm = regexp.MustCompile(markBegin + "([0-9]+)" + markEnd)
	onlyMark = regexp.MustCompile("^" + markBegin + "[0-9]+" + markEnd + "$")
)

// address takes from.url apart and moves its password to From.Password.
func (c *Config) address(env func(string) (string, bool)) (conninfo, error) {
	g := c.given["from.url"]
	raw := strings.TrimSpace(g.first())
	if raw == "" {
		return nil, nil
	}
	invalid := func(err error) error { return fault.New(fault.URLInvalid, c.where("from.url"), "%s", err.Error()) }
	if strings.ContainsFunc(raw, isControl) {
		return nil, invalid(errAddressForm)
	}
	byReference := g.layer == layerEnv // the variable is what a reference would point to
	var references []string
	var template string
	if strings.HasPrefix(raw, "${") { // the whole address, or its beginning
		byReference, template = true, c.From.URL
	} else {
		template = reference.ReplaceAllStringFunc(raw, func(ref string) string {
			references = append(references, ref)
			return markBegin + strconv.Itoa(len(references)-1) + markEnd
		})
	}
	address, err := parseConninfo(template)
	if err != nil {
		return nil, invalid(err)
	}
	password := address.value("password")
	if password != "" && !byReference && !onlyMark.MatchString(password) {
		return nil, fault.New(fault.ConfigInvalid, c.where("from.url"), "a password does not belong in the address").
			WithMend("Take it out and set from.password to a reference, ${env:NAME} or ${file:/path}; or use PGPASSWORD or .pgpass. Change the password if others have seen this place.")
	}
	for i := range address {
		if address[i].value, err = unmark(address[i].value, references, env); err != nil {
			return nil, at(err, "from.url", g.place)
		}
	}
	if password = address.take("password"); password == "" {
		return address, nil
	}
	if !c.From.Password.IsZero() {
		return nil, fault.New(fault.ConfigInvalid, c.where("from.password"), "is given twice: here and in from.url")
	}
	c.From.Password = NewSecret(password)
	return address, nil
}

// unmark puts in what the references give.
func unmark(s string, references []string, env func(string) (string, bool)) (string, error) {
	var failed error
	out := markForm.ReplaceAllStringFunc(s, func(m string) string {
		i, _ := strconv.Atoi(m[1 : len(m)-1]) // ours, and below len(references)
		value, err := expand(references[i], env)
		if err != nil && failed == nil {
			failed = err
		}
		return value
	})
	return out, failed
}

// ambient gives the sslmode that was asked for, and the host that will be spoken to, in
// libpq's order: the address, the service file, PG* variables.
func (f *From) ambient(address conninfo, env func(string) (string, bool)) (mode, host string) {
	mode, host = string(f.SSLMode), address.value("host")
	first := func(value, next string) string {
		if value == "" {
			return next
		}
		return value
	}
	variable := func(name string) string {
		v, _ := env(name)
		return v
	}
	service := readService(
		first(first(address.value("servicefile"), variable("PGSERVICEFILE")), filepath.Join(variable("HOME"), ".pg_service.conf")),
		first(address.value("service"), variable("PGSERVICE")))
	mode = first(first(first(mode, address.value("sslmode")), service["sslmode"]), variable("PGSSLMODE"))
	host = first(first(host, service["host"]), variable("PGHOST"))
	return mode, host
}

// readService reads one service of a libpq service file. It is only looked at here: whoever
// connects reads it again and complains if it is not there.
func readService(path, name string) map[string]string {
	if name == "" {
		return nil
	}
	data, err := readRegular(path, maxFile)
	if err != nil {
		return nil
	}
	service, inside := map[string]string{}, false
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
			inside = line == "["+name+"]"
			continue
		}
		if key, value, ok := strings.Cut(line, "="); ok && inside && !strings.HasPrefix(line, "#") {
			service[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	return service
}
