package lake

import (
	"context"
	"net/url"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	_ "github.com/apache/iceberg-go/catalog/glue" // the kind "glue"
	"github.com/apache/iceberg-go/catalog/hive"
	"github.com/apache/iceberg-go/catalog/rest"

	"github.com/leatdata/leat/internal/fault"
)

// openREST connects to a catalog server that speaks Iceberg's REST protocol.
func (l *Lake) openREST(ctx context.Context) error {
	o := l.Catalog
	var opts []rest.Option
	if o.Warehouse != "" {
		opts = append(opts, rest.WithWarehouseLocation(o.Warehouse))
	}
	if o.Token != nil {
		opts = append(opts, rest.WithOAuthToken(o.Token()))
	}
	if o.Credential != nil {
		opts = append(opts, rest.WithCredential(o.Credential()))
	}
	if o.Scope != "" {
		opts = append(opts, rest.WithScope(o.Scope))
	}
	if o.OAuthURI != "" {
		at, err := url.Parse(o.OAuthURI)
		if err != nil {
			return fault.New(fault.ConfigInvalid, "", "the address of the OAuth2 server cannot be understood")
		}
		opts = append(opts, rest.WithAuthURI(at))
	}
	if o.SigV4 {
		opts = append(opts, rest.WithSigV4RegionSvc(o.Region, o.Service))
	}
	cat, err := rest.NewCatalog(ctx, o.Name, o.URI, opts...)
	if err != nil {
		return fault.Wrap(err, fault.LakeFailed, o.URI, "the catalog's server cannot be used")
	}
	l.use(cat, cat.Close)
	return nil
}

// openGlue connects to AWS Glue with the credentials of the usual chain.
func (l *Lake) openGlue(ctx context.Context) error {
	props := iceberg.Properties{"type": "glue"}
	if l.Catalog.Region != "" {
		props["glue.region"] = l.Catalog.Region
	}
	if l.Catalog.URI != "" {
		props["glue.endpoint"] = l.Catalog.URI
	}
	cat, err := catalog.Load(ctx, l.Catalog.Name, props)
	if err != nil {
		return fault.Wrap(err, fault.LakeFailed, "glue", "the catalog cannot be used")
	}
	l.use(cat, func() error { return nil })
	return nil
}

// openHive connects to a Hive metastore.
func (l *Lake) openHive() error {
	cat, err := hive.NewCatalog(iceberg.Properties{}, hive.WithURI(l.Catalog.URI), hive.WithWarehouse(l.url(l.key())))
	if err != nil {
		return fault.Wrap(err, fault.LakeFailed, l.Catalog.URI, "the metastore cannot be used")
	}
	l.use(cat, cat.Close)
	return nil
}
