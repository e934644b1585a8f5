package lake

import (
	"context"
	"net/url"
	"sync"

	icesql "github.com/apache/iceberg-go/catalog/sql"
	iceio "github.com/apache/iceberg-go/io"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// CatalogOptions say which catalog lists the tables. Secrets are functions so that printing the options shows none.
type CatalogOptions struct {
	// Kind is file (or ""), sqlite, postgres, rest, glue or hive.
	Kind string
	// Name is the catalog's name in a shared SQL catalog; "leat" if empty.
	Name string
	// URI is the file of sqlite, the connection string of postgres without its password, the server of rest and hive.
	URI      string
	Password func() string
	// Warehouse is rest's name of the warehouse.
	Warehouse string
	// Token is a bearer token for rest; Credential is "id:secret" for its OAuth2, asked for at OAuthURI with Scope.
	Token, Credential func() string
	OAuthURI, Scope   string
	// CAFile holds certificates, as PEM, of further authorities that rest trusts.
	CAFile string
	// SigV4 signs rest's requests for AWS in Region for Service, which the address tells if it is empty; Region is glue's too.
	SigV4           bool
	Region, Service string
	// Unconditional lets the file catalog write versions without a condition, where the server knows none: then nothing
	// but the pipeline's lease keeps two writers apart.
	Unconditional bool
}

// openCatalog connects to the catalog that the options name.
func (l *Lake) openCatalog(ctx context.Context) error {
	switch l.Catalog.Kind {
	case "", "file":
		if !l.Catalog.Unconditional && l.Bucket.Properties().ConditionalPut == bucket.Unsupported {
			return fault.New(fault.LakeFailed, l.Location, "this object store cannot write an object only if it is absent, which the file catalog needs").
				WithMend("Take another catalog (sqlite, postgres, rest), or allow unconditional writes: then only the pipeline's lease keeps two writers apart.")
		}
		l.catalog = newFileCatalog(l)
		return nil
	case "sqlite":
		return l.openSQL(ctx, icesql.SQLite)
	case "postgres":
		return l.openSQL(ctx, icesql.Postgres)
	case "rest":
		return l.openREST(ctx)
	case "glue":
		return l.openGlue(ctx)
	case "hive":
		return l.openHive(ctx)
	}
	return fault.New(fault.ConfigInvalid, "", "%q is not a kind of catalog", l.Catalog.Kind)
}

// Catalogs of the Iceberg library open files by the scheme of their URL. We put ourselves in the place of the library's
// own kits and pass each URL on to the open lake it lies in.
var stores struct {
	once sync.Once
	mu   sync.Mutex
	open []*storeEntry
}

type storeEntry struct{ lake *Lake }

func (l *Lake) register() {
	stores.once.Do(func() {
		for _, scheme := range []string{"", "file", "mem", "s3", "s3a", "s3n", "gs", "azblob", "abfs", "abfss", "wasb", "wasbs"} {
			iceio.Unregister(scheme) // the library's own, where it has one
			iceio.Register(scheme, openStore)
		}
	})
	stores.mu.Lock()
	defer stores.mu.Unlock()
	l.stores = &storeEntry{l}
	stores.open = append(stores.open, l.stores)
}

func (e *storeEntry) remove() {
	if e == nil {
		return
	}
	stores.mu.Lock()
	defer stores.mu.Unlock()
	for i, o := range stores.open {
		if o == e {
			stores.open = append(stores.open[:i:i], stores.open[i+1:]...)
			return
		}
	}
}

func openStore(ctx context.Context, at *url.URL, _ map[string]string) (iceio.IO, error) {
	stores.mu.Lock()
	defer stores.mu.Unlock()
	name := at.String() // escaped, as Location is not
	for i := len(stores.open) - 1; i >= 0; i-- {
		l := stores.open[i].lake
		if _, _, ok := l.places.root(name + "/"); ok {
			return l.files(ctx), nil
		}
	}
	return nil, fault.New(fault.LakeForeign, name, "lies in no lake that is open")
}
