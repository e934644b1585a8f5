package architecture_test

import (
	"fmt"
	"slices"
	"strings"
)

const module = "github.com/leatdata/leat/"

// everything stands for all our packages except those that only tests may import.
const everything = "*"

// mayImport says which of our packages each package may import in code that ships.
var mayImport = map[string][]string{
	"internal/change":            {},
	"internal/fault":             {},
	"internal/config":            {"internal/change", "internal/fault"},
	"internal/scratch":           {},
	"internal/session":           {},
	"internal/postgres":          {"internal/change", "internal/fault", "internal/scratch", "internal/session"},
	"internal/format":            {"internal/change", "internal/fault", "internal/scratch"},
	"internal/bucket":            {"internal/fault"},
	"internal/bucket/buckettest": {"internal/bucket", "internal/fault"},
	"internal/dump":              {"internal/bucket", "internal/change", "internal/fault", "internal/format", "internal/postgres"},
	"internal/keyindex":          {"internal/fault"},
	"internal/lake":              {"internal/bucket", "internal/change", "internal/fault", "internal/format", "internal/keyindex", "internal/scratch", "internal/session"},
	"internal/checkpoint":        {"internal/bucket", "internal/change", "internal/fault"},
	"internal/spool":             {"internal/bucket", "internal/change", "internal/fault", "internal/scratch"},
	"internal/metrics":           {"internal/change", "internal/fault"},
	"internal/pipeline":          {"internal/bucket", "internal/change", "internal/checkpoint", "internal/fault", "internal/lake", "internal/postgres", "internal/spool"},
	"internal/mirror":            {"internal/bucket", "internal/change", "internal/dump", "internal/fault", "internal/scratch"},
	"internal/warden":            {"internal/bucket", "internal/dump", "internal/fault"},
	"internal/testlab":           {},
	"internal/testlab/gcslab":    {"internal/testlab"},
	"cmd/leat":                   {everything},
	"bench":                      {everything, "internal/testlab"},
	"demo":                       {everything, "internal/testlab"},
	"test/architecture":          {},
	"test/way":                   {},
	"test/crash":                 {},
}

// forTests are the packages that only tests, bench and demo may import. They alone may import testing.
var forTests = []string{"internal/testlab", "internal/testlab/gcslab", "internal/bucket/buckettest"}

// owners says which packages may import a third party in code that ships. The longest prefix decides.
var owners = map[string][]string{
	"github.com/jackc/pgx/v5":                       {"internal/postgres", "internal/lake", "internal/testlab", "bench", "demo"}, // lake: a catalog in PostgreSQL, by database/sql
	"github.com/aws/aws-sdk-go-v2":                  {"internal/bucket", "internal/testlab", "bench", "demo"},
	"github.com/aws/aws-sdk-go-v2/config":           {"internal/bucket", "internal/postgres"},
	"github.com/aws/aws-sdk-go-v2/feature/rds/auth": {"internal/postgres"},
	"github.com/aws/smithy-go":                      {"internal/bucket"},
	"github.com/Azure/azure-sdk-for-go":             {"internal/bucket", "internal/testlab"},
	"golang.org/x/oauth2":                           {"internal/bucket"},
	"github.com/apache/arrow-go/v18":                {"internal/change", "internal/dump", "internal/format", "internal/lake", "internal/pipeline", "internal/postgres", "demo"},
	"github.com/apache/iceberg-go":                  {"internal/lake", "demo", "bench"},
	"github.com/apache/thrift":                      {"internal/lake"}, // a Hive metastore speaks it
	"github.com/beltran/gohive":                     {"internal/lake", "internal/testlab"},
	"github.com/RoaringBitmap/roaring/v2":           {"internal/lake"},
	"github.com/google/uuid":                        {"internal/lake"},
	"modernc.org/sqlite":                            {"internal/lake"},
	"github.com/twmb/avro":                          {"internal/format"},
	"github.com/klauspost/compress":                 {"internal/format", "internal/spool"},
	"github.com/cespare/xxhash/v2":                  {"internal/format"},
	"github.com/goccy/go-yaml":                      {"internal/config"},
	"github.com/invopop/jsonschema":                 {"internal/config"},
	"github.com/spf13/cobra":                        {"cmd/leat"},
	"github.com/spf13/pflag":                        {"cmd/leat"},
	"github.com/vbauerster/mpb/v8":                  {"cmd/leat"},
	"github.com/mattn/go-isatty":                    {"cmd/leat"},
	"golang.org/x/term":                             {"cmd/leat"},
	"golang.org/x/sync":                             {everything},
	"golang.org/x/text":                             {"internal/bucket", "internal/testlab"},
	"golang.org/x/sys":                              {"internal/bucket", "internal/keyindex", "internal/scratch"},
	"golang.org/x/time":                             {everything},
	"github.com/versity/versitygw":                  {"internal/testlab"},
	"github.com/Shopify/toxiproxy/v2":               {"internal/testlab"},
	"github.com/fsouza/fake-gcs-server":             {"internal/testlab/gcslab"},
	"github.com/prometheus/client_golang":           {"internal/metrics", "internal/testlab"}, // toxiproxy asks for a registry
	"github.com/rs/zerolog":                         {"internal/testlab"},                     // and for a logger
	"github.com/rogpeppe/go-internal":               {},                                       // tests only
	"github.com/santhosh-tekuri/jsonschema/v6":      {},                                       // tests only
}

// serversForTests never appear outside testlab, not even in tests: they are reached through it.
var serversForTests = []string{"github.com/versity/versitygw", "github.com/fsouza/fake-gcs-server"}

// notShipped must not be in the binary that users get, however it would come in.
var notShipped = []string{
	// The package testing itself comes with the Thrift library, which Arrow reads Parquet with.
	module + "internal/testlab", module + "internal/testlab/gcslab", module + "internal/bucket/buckettest",
	"github.com/versity/versitygw", "github.com/Shopify/toxiproxy", "github.com/fsouza/fake-gcs-server",
	// They come with Google's clients and cost each start of the binary memory (decision 19).
	"cloud.google.com/go/storage", "cloud.google.com/go/monitoring", "google.golang.org/api", "google.golang.org/grpc/xds",
	"github.com/cncf/xds", "github.com/envoyproxy/go-control-plane",
}

// pkg is a package as the rules see it; paths of ours are without the module's name.
type pkg struct {
	path        string
	imports     []string // of code that ships
	testImports []string // of its tests
	comments    []string // the files that have a package comment
	command     bool     // package main
}

// violations lists what of the packages breaks a rule, one sentence each.
func violations(pkgs []pkg) []string {
	var broken []string
	say := func(format string, args ...any) { broken = append(broken, fmt.Sprintf(format, args...)) }
	for _, p := range pkgs {
		allowed, known := mayImport[p.path]
		if !known {
			say("%s is not in the table mayImport", p.path)
		}
		for _, path := range p.imports {
			if why := forbidden(p.path, path, allowed); why != "" {
				say("%s imports %s: %s", p.path, path, why)
			}
		}
		for _, path := range p.testImports {
			if !strings.HasPrefix(p.path, "internal/testlab") && hasPrefixOf(path, serversForTests) {
				say("the tests of %s import %s: testlab starts it for them", p.path, path)
			}
		}
		if why := uncommented(p); why != "" {
			say("%s %s", p.path, why)
		}
	}
	return broken
}

// forbidden says why code that ships in package from may not import path, or nothing.
func forbidden(from, path string, allowed []string) string {
	ours, isOurs := strings.CutPrefix(path, module)
	switch {
	case isOurs && slices.Contains(allowed, ours):
		return ""
	case isOurs && slices.Contains(forTests, ours):
		return "only tests, bench and demo may"
	case isOurs && slices.Contains(allowed, everything):
		return ""
	case isOurs:
		return "the table mayImport does not allow it"
	case path == "testing" || strings.HasPrefix(path, "testing/") || path == "net/http/httptest":
		if slices.Contains(forTests, from) {
			return ""
		}
		return "testing belongs in tests"
	case !strings.Contains(strings.Split(path, "/")[0], "."):
		return "" // the standard library
	}
	owner := ownerOf(path)
	switch {
	case owner == "":
		return "the table owners does not name its owner"
	case slices.Contains(owners[owner], from) || slices.Contains(owners[owner], everything):
		return ""
	}
	return fmt.Sprintf("it belongs to %v", owners[owner])
}

func ownerOf(path string) string {
	longest := ""
	for prefix := range owners {
		if hasPrefixOf(path, []string{prefix}) && len(prefix) > len(longest) {
			longest = prefix
		}
	}
	return longest
}

// hasPrefixOf says whether path is one of the modules or lies below one.
func hasPrefixOf(path string, modules []string) bool {
	return slices.ContainsFunc(modules, func(m string) bool { return path == m || strings.HasPrefix(path, m+"/") })
}

// uncommented says what is wrong with the package's comment, or nothing.
func uncommented(p pkg) string {
	want := "doc.go"
	if p.command {
		want = "main.go"
	}
	if slices.Equal(p.comments, []string{want}) {
		return ""
	}
	return fmt.Sprintf("has its package comment in %v: it must be in %s alone", p.comments, want)
}
