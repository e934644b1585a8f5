package lake

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	_ "github.com/apache/iceberg-go/catalog/glue" // the kind "glue"
	"github.com/apache/iceberg-go/catalog/rest"

	"github.com/leatdata/leat/internal/fault"
)

// openREST connects to a catalog server that speaks Iceberg's REST protocol.
func (l *Lake) openREST(ctx context.Context) error {
	o := l.Catalog
	at, err := url.Parse(o.URI)
	if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
		return fault.New(fault.ConfigInvalid, "", "the address of the REST catalog cannot be understood").
			WithMend("Set lake.catalog.uri, such as https://catalog.example.com/iceberg.")
	}
	opts, err := restOptions(o, at)
	if err != nil {
		return err
	}
	cat, err := rest.NewCatalog(ctx, o.Name, o.URI, opts...)
	if err != nil {
		return catalogFailed(ctx, err, at.Redacted(), "the catalog's server cannot be used")
	}
	l.use(cat, cat.Close)
	return nil
}

func restOptions(o CatalogOptions, at *url.URL) ([]rest.Option, error) {
	trust, err := trusted(o.CAFile)
	if err != nil {
		return nil, err
	}
	opts := []rest.Option{rest.WithTLSConfig(trust), rest.WithTransportFactory(patientTransport)}
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
		login, err := url.Parse(o.OAuthURI)
		if err != nil {
			return nil, fault.New(fault.ConfigInvalid, "", "the address of the OAuth2 server cannot be understood")
		}
		opts = append(opts, rest.WithAuthURI(login))
	}
	if o.SigV4 {
		opts = append(opts, rest.WithSigV4RegionSvc(o.Region, cmp.Or(o.Service, signedService(at.Hostname()))))
	}
	return opts, nil
}

// signedService is the AWS service that a REST catalog belongs to. Its name goes into the signature.
func signedService(host string) string {
	for _, service := range []string{"glue", "s3tables"} {
		if strings.HasPrefix(host, service+".") {
			return service
		}
	}
	return "execute-api"
}

// trusted reads a file of CA certificates to trust besides the system's; nil without one.
func trusted(file string) (*tls.Config, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fault.Wrap(err, fault.ConfigInvalid, file, "the catalog's CA certificates cannot be read")
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fault.New(fault.ConfigInvalid, file, "the file holds no certificate in PEM")
	}
	return &tls.Config{RootCAs: roots}, nil
}

// patientTransport gives up on a server that does not answer. The library's own would wait for ever. A commit may take a
// server long, so the reply may too.
func patientTransport(trust *tls.Config) (http.RoundTripper, func()) {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: trust, ForceAttemptHTTP2: true,
		DialContext:         (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout: 15 * time.Second, ResponseHeaderTimeout: 2 * time.Minute, IdleConnTimeout: 90 * time.Second,
	}
	return busyTransport{transport}, transport.CloseIdleConnections
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
		return catalogFailed(ctx, err, "glue", "the catalog cannot be used")
	}
	l.use(cat, func() error { return nil })
	return nil
}
