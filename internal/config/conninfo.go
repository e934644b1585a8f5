package config

import (
	"errors"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// conninfo is a libpq connection string taken apart: keyword and value, each keyword once.
type conninfo []setting

type setting struct{ key, value string }

// connKeys are the keywords that the PostgreSQL driver understands. It would hand any other
// to the server as a run-time parameter, where a typing slip becomes a riddle.
var connKeys = []string{
	"application_name", "channel_binding", "connect_timeout", "dbname", "host", "max_protocol_version",
	"min_protocol_version", "options", "passfile", "password", "port", "require_auth", "service", "servicefile",
	"sslcert", "sslcertmode", "sslkey", "sslmode", "sslnegotiation", "sslpassword", "sslrootcert", "sslsni",
	"target_session_attrs", "timezone", "user",
}

// Errors about addresses quote nothing of them: what cannot be taken apart may hold a password anywhere.
var (
	errAddressForm   = errors.New("this is not a database address; write postgres://user@host:port/database, or keyword=value pairs such as host=db dbname=shop")
	errAddressEscape = errors.New("the address has a % that is not followed by two hexadecimal digits; write % itself as %25")
	errAddressPort   = errors.New("the address has a port that is not a number from 1 to 65535; a password with one of : / @ ? in it belongs in from.password")
	errAddressSlash  = errors.New("the address has an @ after its first slash; a password with one of : / @ ? in it belongs in from.password")
	errAddressQuote  = errors.New("the address has a quote that does not end")
)

// parseConninfo takes a URL or keyword=value pairs apart, by libpq's rules
// (PostgreSQL manual, section "Connection Strings").
func parseConninfo(s string) (conninfo, error) {
	for _, scheme := range []string{"postgres://", "postgresql://"} {
		if rest, ok := strings.CutPrefix(s, scheme); ok {
			return parseConnURL(rest)
		}
	}
	if strings.Contains(s, "://") || !strings.Contains(s, "=") {
		return nil, errAddressForm
	}
	return parseConnPairs(s)
}

func parseConnURL(rest string) (conninfo, error) {
	var c conninfo
	rest, query, _ := strings.Cut(rest, "?")
	authority, database, _ := strings.Cut(rest, "/")
	if strings.Contains(database, "@") {
		return nil, errAddressSlash
	}
	hosts := authority
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		user, password, _ := strings.Cut(authority[:i], ":")
		if err := c.addEscaped("user", user, "password", password); err != nil {
			return nil, err
		}
		hosts = authority[i+1:]
	}
	if err := c.addHosts(hosts); err != nil {
		return nil, err
	}
	if err := c.addEscaped("dbname", database); err != nil {
		return nil, err
	}
	for _, pair := range strings.Split(query, "&") {
		if pair == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, errAddressForm
		}
		if key == "ssl" && value == "true" { // what JDBC's users write; libpq takes it too
			key, value = "sslmode", "require"
		}
		if err := c.addEscaped(key, value); err != nil {
			return nil, err
		}
	}
	return c, c.known()
}

// addHosts reads host:port pairs with commas between; IPv6 addresses stand in brackets.
func (c *conninfo) addHosts(s string) error {
	if s == "" {
		return nil
	}
	var hosts, ports []string
	for _, pair := range strings.Split(s, ",") {
		host, port := pair, ""
		if rest, ok := strings.CutPrefix(pair, "["); ok {
			host, port, ok = strings.Cut(rest, "]")
			if !ok || port != "" && port[0] != ':' {
				return errAddressForm
			}
			port = strings.TrimPrefix(port, ":")
		} else if i := strings.LastIndexByte(pair, ':'); i >= 0 {
			host, port = pair[:i], pair[i+1:]
		}
		if strings.Contains(port, markBegin) { // a reference: the driver checks what it gives
			hosts, ports = append(hosts, host), append(ports, port)
			continue
		}
		if n, err := strconv.Atoi(port); port != "" && (err != nil || n < 1 || n > 65535) {
			return errAddressPort
		}
		hosts, ports = append(hosts, host), append(ports, port)
	}
	if strings.Join(ports, "") != "" {
		c.put("port", strings.Join(ports, ","))
	}
	return c.addEscaped("host", strings.Join(hosts, ","))
}

// addEscaped adds pairs of keyword and percent-encoded value, without the empty ones.
func (c *conninfo) addEscaped(pairs ...string) error {
	for i := 0; i < len(pairs); i += 2 {
		value, err := url.PathUnescape(pairs[i+1])
		if err != nil {
			return errAddressEscape // not the cause, which quotes the text
		}
		if value != "" {
			c.put(pairs[i], value)
		}
	}
	return nil
}

func parseConnPairs(s string) (conninfo, error) {
	var c conninfo
	const space = " \t\r\n\v\f"
	for s = strings.TrimLeft(s, space); s != ""; s = strings.TrimLeft(s, space) {
		key, rest, ok := strings.Cut(s, "=")
		key = strings.TrimRight(key, space)
		if !ok || key == "" || strings.ContainsAny(key, space+`'"\`) {
			return nil, errAddressForm
		}
		value, rest, err := pairValue(strings.TrimLeft(rest, space))
		if err != nil {
			return nil, err
		}
		if value != "" {
			c.put(key, value)
		}
		s = rest
	}
	return c, c.known()
}

// pairValue reads a value, in single quotes or up to the next space; a backslash takes the
// meaning from what follows.
func pairValue(s string) (value, rest string, err error) {
	quoted := strings.HasPrefix(s, "'")
	if quoted {
		s = s[1:]
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch ch := s[i]; {
		case ch == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case quoted && ch == '\'':
			return b.String(), s[i+1:], nil
		case !quoted && strings.IndexByte(" \t\r\n\v\f", ch) >= 0:
			return b.String(), s[i:], nil
		default:
			b.WriteByte(ch)
		}
	}
	if quoted {
		return "", "", errAddressQuote
	}
	return b.String(), "", nil
}

// errConnKey names an unknown keyword only by a known one: the text may be half a password.
type errConnKey struct{ near string }

func (e errConnKey) Error() string {
	if e.near == "" {
		return "the address has an unknown keyword; known are " + strings.Join(connKeys, ", ")
	}
	return "the address has an unknown keyword; did you mean " + e.near + "?"
}

func (c conninfo) known() error {
	for _, s := range c {
		if !slices.Contains(connKeys, s.key) {
			return errConnKey{Nearest(s.key, connKeys)}
		}
	}
	return nil
}

// put sets a keyword; the last value wins, as in libpq.
func (c *conninfo) put(key, value string) {
	if key == "database" { // the driver's own word
		key = "dbname"
	}
	for i := range *c {
		if (*c)[i].key == key {
			(*c)[i].value = value
			return
		}
	}
	*c = append(*c, setting{key, value})
}

func (c conninfo) value(key string) string {
	for _, s := range c {
		if s.key == key {
			return s.value
		}
	}
	return ""
}

// take removes a keyword and gives its value.
func (c *conninfo) take(key string) string {
	v := c.value(key)
	*c = slices.DeleteFunc(*c, func(s setting) bool { return s.key == key })
	return v
}

// String writes keyword='value' pairs.
func (c conninfo) String() string {
	escape := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	var b strings.Builder
	for i, s := range c {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(s.key + "='" + escape.Replace(s.value) + "'")
	}
	return b.String()
}

// isLocal says whether all hosts of a libpq host list are sockets or loopback. An empty list
// is the driver's default: a socket, else localhost.
func isLocal(hosts string) bool {
	for _, h := range strings.Split(hosts, ",") {
		ip, err := netip.ParseAddr(h)
		switch {
		case h == "", h == "localhost", h[0] == '/', h[0] == '@', err == nil && ip.IsLoopback():
		default:
			return false
		}
	}
	return true
}
