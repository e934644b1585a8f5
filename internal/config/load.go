package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"

	"github.com/leatdata/leat/internal/fault"
)

// LoadOptions says where settings come from besides the defaults.
type LoadOptions struct {
	// Path is leat.yaml; empty takes LEAT_CONFIG, and without that there is no file.
	Path string
	// Env looks up an environment variable; nil is os.LookupEnv.
	Env func(name string) (string, bool)
	// Overrides are the flags that were given.
	Overrides []Override
}

// Override is a setting given by a flag.
type Override struct {
	Key    string   // the key's path: dump.format
	Values []string // one, or several for a key that is a list
	Flag   string   // the flag's name for messages: --format
}

// layer orders the places a setting comes from: a higher one wins.
type layer int

const (
	layerAmbient layer = iota
	layerFile
	layerEnv
	layerFlag
)

// given is a setting as somebody wrote it.
type given struct {
	layer layer
	place string // leat.yaml:4:3, LEAT_DUMP_FORMAT or --format
	texts []text // one, or the items of a list
}

type text struct{ value, place string }

// maxFile bounds leat.yaml, in bytes: ten thousand tables fit.
const maxFile = 1 << 20

// Load gathers the settings from all layers, reads and checks them. Errors are faults:
// ConfigUnknown, ConfigInvalid, ConfigMissing, SecretMissing, URLInvalid or FormatUnusable.
func Load(opts LoadOptions) (*Config, error) {
	if opts.Env == nil {
		opts.Env = os.LookupEnv
	}
	path := opts.Path
	if path == "" {
		path, _ = opts.Env("LEAT_CONFIG")
	}
	if path == "" {
		return assemble(nil, opts)
	}
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(filepath.Base(path), data, opts)
}

// Parse is Load with the file's content at hand; name stands for the file in messages.
func Parse(name string, data []byte, opts LoadOptions) (*Config, error) {
	if opts.Env == nil {
		opts.Env = os.LookupEnv
	}
	file, err := readYAML(name, data)
	if err != nil {
		return nil, err
	}
	return assemble(file, opts)
}

func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO that nothing writes to would never be open
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Wrap(err, fault.ConfigMissing, path, "there is no such file")
	}
	if err != nil {
		return nil, fault.Wrap(err, fault.ConfigInvalid, path, "the file cannot be read")
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode()&fs.ModeNamedPipe != 0 && isNode(path) {
		return nil, fault.New(fault.ConfigInvalid, path, "is a named pipe (FIFO), which can be read only once and only while another program writes to it").
			WithMend("Give a file, or pass the settings by standard input: -f /dev/stdin.")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	return data, fault.Wrap(err, fault.ConfigInvalid, path, "the file cannot be read")
}

// isNode says whether a pipe has a name of its own in the file system, unlike one that a shell passes as /dev/fd/63.
func isNode(path string) bool {
	_, err := filepath.EvalSymlinks(path)
	return err == nil
}

// Default is the configuration of somebody who says nothing.
func Default() *Config {
	c := &Config{given: map[string]given{}}
	for key := range tree().leaves() {
		if key.Default == "" {
			continue
		}
		v := reflect.ValueOf(c).Elem().FieldByIndex(key.index)
		if err := key.set(v, key.Default); err != nil {
			panic(fmt.Sprintf("default of %s: %v", key.Path, err)) // a wrong tag; every test would see it
		}
	}
	return c
}

// assemble lays the layers over the defaults. file is nil when there is no file.
func assemble(file map[string]given, opts LoadOptions) (*Config, error) {
	all := map[string]given{}
	maps.Copy(all, file)
	if err := addEnv(all, opts.Env); err != nil {
		return nil, err
	}
	if err := addFlags(all, opts.Overrides); err != nil {
		return nil, err
	}
	dropIn, err := addAmbient(all, file != nil, opts.Env)
	if err != nil {
		return nil, err
	}
	c := Default()
	c.given, c.DropIn = all, dropIn
	if dropIn { // what the old job wrote, unless told otherwise below
		c.Dump.Format, c.Dump.Layout, c.Dump.CSVForm, c.Dump.Partitions = FormatCSVGz, LayoutDate, CSVRole, PartitionsRoot
	}
	for key := range tree().leaves() {
		if g, ok := all[key.Path]; ok {
			if err := c.apply(key, g, opts.Env); err != nil {
				return nil, err
			}
		}
	}
	if err := c.settleFrom(opts.Env); err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return c, nil
}

// addEnv adds the LEAT_ variables. One that is empty is as good as unset, because templates
// of containers leave empty what they have no value for.
func addEnv(all map[string]given, env func(string) (string, bool)) error {
	for key := range tree().leaves() {
		if err := addVariable(all, key, key.Env, layerEnv, env); err != nil {
			return err
		}
	}
	for name, s := range tree().sections() { // LEAT_FROM is LEAT_FROM_URL, as in the file
		if g, ok := all[s.short]; s.short == "" || ok && g.layer == layerEnv {
			continue
		}
		if err := addVariable(all, keys()[s.short], "LEAT_"+strings.ToUpper(name), layerEnv, env); err != nil {
			return err
		}
	}
	return nil
}

func addVariable(all map[string]given, key *Key, name string, from layer, env func(string) (string, bool)) error {
	if name == "" {
		return nil
	}
	value, ok := env(name)
	if !ok || value == "" {
		return nil
	}
	values := []string{value}
	if key.List {
		var err error
		if values, err = splitList(value); err != nil {
			return fault.New(fault.ConfigInvalid, where(key.Path, name), "%q has a quote that does not end", value)
		}
	}
	all[key.Path] = newGiven(from, name, values)
	return nil
}

// sections are the sections at the top of the file.
func (s *section) sections() map[string]*section {
	all := map[string]*section{}
	for name, n := range s.fields {
		if n.section != nil {
			all[name] = n.section
		}
	}
	return all
}

func addFlags(all map[string]given, overrides []Override) error {
	for _, o := range overrides {
		key, ok := keys()[o.Key]
		if !ok {
			return unknownKey(o)
		}
		if len(o.Values) == 0 || !key.List && len(o.Values) > 1 {
			return fault.New(fault.UsageInvalid, where(o.Key, o.Flag), "takes one value, not %d", len(o.Values))
		}
		all[o.Key] = newGiven(layerFlag, o.Flag, o.Values)
	}
	return nil
}

func unknownKey(o Override) error {
	for path, key := range keys() { // the table is a part of the value, not of the key
		if table, ok := strings.CutPrefix(o.Key, path+"."); ok && key.Kind == kindTableSetting {
			return fault.New(fault.ConfigUnknown, where(shorten(o.Key), o.Flag), "unknown key; did you mean %s='%s = %s'?", path, table, strings.Join(o.Values, " "))
		}
	}
	if near := Nearest(o.Key, slices.Sorted(maps.Keys(keys()))); near != "" {
		return fault.New(fault.ConfigUnknown, where(shorten(o.Key), o.Flag), "unknown key; did you mean %s?", near)
	}
	return fault.New(fault.ConfigUnknown, where(shorten(o.Key), o.Flag), "unknown key; docs/config.md lists them all")
}

// addAmbient adds variables of other tools where nothing else gives the key. S3_OUTPUT and
// TABLES are too common as names to reach into somebody's file, so they count only without one.
func addAmbient(all map[string]given, hasFile bool, env func(string) (string, bool)) (dropIn bool, err error) {
	for key := range tree().leaves() { // to.url comes before to.endpoint, which looks at it
		if _, ok := all[key.Path]; ok {
			continue
		}
		for _, name := range key.Ambient {
			value, _ := env(name)
			switch {
			case value == "",
				hasFile && (name == "S3_OUTPUT" || name == "TABLES" || strings.HasPrefix(key.Path, "mirror.")),
				key.Path == "to.endpoint" && !isS3(all["to.url"].first(), env):
				continue
			}
			if err := addVariable(all, key, name, layerAmbient, bucketPaths(env)); err != nil {
				return false, err
			}
			break
		}
	}
	return all["to.url"].layer == layerAmbient && all["to.url"].place == "S3_OUTPUT", nil
}

// bucketPaths gives INPUT_PATH and OUTPUT_PATH, which the old sync job takes as bucket/path, as URLs.
func bucketPaths(env func(string) (string, bool)) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, ok := env(name)
		if (name == inputPath || name == outputPath) && value != "" && !strings.Contains(value, "://") {
			value = "s3://" + strings.Trim(value, "/")
		}
		return value, ok
	}
}

// isS3 says whether a target, which may be a reference still, is S3. A reference that points
// to nothing is reported when the target itself is read.
func isS3(target string, env func(string) (string, bool)) bool {
	target, err := expand(target, env)
	return err == nil && strings.HasPrefix(target, "s3://")
}

func newGiven(from layer, place string, values []string) given {
	g := given{layer: from, place: place}
	for _, v := range values {
		g.texts = append(g.texts, text{v, place})
	}
	return g
}

func (g given) first() string {
	if len(g.texts) == 0 {
		return ""
	}
	return g.texts[0].value
}

// apply reads what was given for a key into its field.
func (c *Config) apply(key *Key, g given, env func(string) (string, bool)) error {
	v := reflect.ValueOf(c).Elem().FieldByIndex(key.index)
	if key.Kind == "secret" {
		secret, err := resolveSecret(key, g, env)
		if err == nil {
			v.Set(reflect.ValueOf(secret))
		}
		g.texts[0].value = "" // only the place is asked for from here on, and a Config may be printed
		return err
	}
	if !key.List {
		return applyText(key, v, g.texts[0], env)
	}
	list := reflect.MakeSlice(v.Type(), len(g.texts), len(g.texts))
	for i, t := range g.texts {
		if err := applyText(key, list.Index(i), t, env); err != nil {
			return err
		}
	}
	v.Set(list)
	return nil
}

func applyText(key *Key, v reflect.Value, t text, env func(string) (string, bool)) error {
	value, err := expand(t.value, env)
	if err != nil {
		return at(err, key.Path, t.place)
	}
	if err := key.set(v, value); err != nil {
		if value != t.value { // what a reference gave may be a secret in the wrong place: do not quote it
			return fault.New(fault.ConfigInvalid, where(key.Path, t.place), "what %s gives cannot be used here; wanted is %s", t.value, key.wanted())
		}
		return fault.New(fault.ConfigInvalid, where(key.Path, t.place), "%s", err.Error())
	}
	return nil
}

// wanted describes the values a key takes.
func (k *Key) wanted() string {
	if len(k.Allowed) > 0 {
		return "one of " + strings.Join(k.Allowed, ", ")
	}
	return "a " + k.Kind
}

// where names a key and the place it was given in.
func where(path, place string) string {
	if place == "" {
		return path
	}
	return path + " (" + place + ")"
}

// at gives a fault from deeper down the key and its place.
func at(err error, path, place string) error {
	if f := fault.Of(err); f != nil {
		f.Where = where(path, place)
	}
	return err
}

// where names the key and where it was given, if it was.
func (c *Config) where(path string) string { return where(path, c.given[path].place) }

// isGiven says whether anything but the default gives the key.
func (c *Config) isGiven(path string) bool {
	_, ok := c.given[path]
	return ok
}
