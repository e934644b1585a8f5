package lake

import (
	"context"
	"crypto/tls"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/catalog/rest"
	"github.com/apache/iceberg-go/table"
	"github.com/apache/thrift/lib/go/thrift"
	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/leatdata/leat/internal/fault"
)

// remoteTables tells, where a catalog's errors are born, one that is away for a while from one that refuses.
type remoteTables struct{ catalogTables }

// catalogTables is what we need of a catalog of the Iceberg library.
type catalogTables interface {
	LoadTable(context.Context, table.Identifier) (*table.Table, error)
	CommitTable(context.Context, table.Identifier, []table.Requirement, []table.Update) (table.Metadata, string, error)
	CreateTable(context.Context, table.Identifier, *iceberg.Schema, ...catalog.CreateTableOpt) (*table.Table, error)
}

func (r remoteTables) LoadTable(ctx context.Context, ident table.Identifier) (*table.Table, error) {
	t, err := r.catalogTables.LoadTable(ctx, ident)
	return t, unreachable(ctx, err)
}

func (r remoteTables) CommitTable(ctx context.Context, ident table.Identifier, reqs []table.Requirement, updates []table.Update) (table.Metadata, string, error) {
	meta, location, err := r.catalogTables.CommitTable(ctx, ident, reqs, updates)
	return meta, location, unreachable(ctx, err)
}

// NewTable makes the table at once: these catalogs let no commit make one. Another process that makes it at the same
// moment is found by checkOwner.
func (r remoteTables) NewTable(ctx context.Context, ident table.Identifier, schema *iceberg.Schema, opts ...catalog.CreateTableOpt) (*table.Table, error) {
	_, err := r.CreateTable(ctx, ident, schema, opts...)
	if err != nil && !errors.Is(err, catalog.ErrTableAlreadyExists) {
		return nil, unreachable(ctx, err)
	}
	return r.LoadTable(ctx, ident)
}

// unreachable makes the error of a catalog that is away lake-unreachable, and that of a request which was ended interrupted. It leaves any
// other as it is.
func unreachable(ctx context.Context, err error) error {
	switch {
	case err == nil, fault.Of(err) != nil:
		return err
	case ctx.Err() != nil:
		return fault.New(fault.Interrupted, "", "stopped while the catalog was asked").Because(err)
	case !away(err):
		return err
	}
	return fault.Wrap(err, fault.LakeUnreachable, "", "the catalog cannot be reached, or cannot answer now")
}

// catalogFailed judges the error of opening a catalog.
func catalogFailed(ctx context.Context, err error, where, what string) error {
	if ctx.Err() != nil {
		return fault.Wrap(err, fault.Interrupted, where, "%s", what)
	}
	if away(err) {
		return fault.Wrap(err, fault.LakeUnreachable, where, "%s", what)
	}
	return fault.Wrap(err, fault.LakeFailed, where, "%s", what)
}

// away says whether an error tells of a catalog that may answer later: nobody was there, the line was cut, or the server says
// that it cannot now. A login that was refused, a certificate that nobody trusts and our own end are none of these.
func away(err error) bool {
	var (
		untrusted *tls.CertificateVerificationError
		postgres  *pgconn.PgError
		lite      *sqlite.Error
		replied   interface{ HTTPStatusCode() int } // of AWS
	)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, rest.ErrOAuthError), errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &untrusted):
		return false
	case errors.Is(err, rest.ErrServiceUnavailable), errors.Is(err, rest.ErrServerError), errors.Is(err, rest.ErrCommitStateUnknown):
		return true
	case errors.As(err, &postgres):
		return notNow(postgres.Code)
	case errors.As(err, &lite):
		return lite.Code()&0xff == sqlite3.SQLITE_BUSY // the rest is of which kind of busy
	case errors.As(err, &replied):
		return replied.HTTPStatusCode() == http.StatusTooManyRequests || replied.HTTPStatusCode() >= http.StatusInternalServerError
	}
	return cut(err)
}

// notNow says whether PostgreSQL answers by a SQLSTATE that it cannot serve us now: connections, resources, collisions, shutdown.
func notNow(state string) bool {
	for _, class := range []string{"08", "40", "53", "57P"} {
		if strings.HasPrefix(state, class) {
			return true
		}
	}
	return false
}

// cut says whether an error is of the way to a server.
func cut(err error) bool {
	var (
		ask     *url.Error
		line    *net.OpError
		name    *net.DNSError
		connect *pgconn.ConnectError
		hive    thrift.TTransportException
	)
	return errors.As(err, &ask) && ask.Op != "parse" || errors.As(err, &line) || errors.As(err, &name) || errors.As(err, &connect) || errors.As(err, &hive) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, pgconn.ErrConnClosed) || errors.Is(err, io.ErrUnexpectedEOF)
}

// busyTransport makes an error of answers that the Iceberg library takes for a word on the table: "too many requests", which it does not
// tell from a refusal, and a "not found" that is not the catalog's, but of something before it whose server is being replaced.
type busyTransport struct{ http.RoundTripper }

func (b busyTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	reply, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return reply, err
	}
	why := ""
	switch {
	case reply.StatusCode == http.StatusTooManyRequests:
		why = "asks for fewer requests"
	case reply.StatusCode == http.StatusNotFound && r.Method != http.MethodHead && strings.Contains(r.URL.Path, "/tables/") &&
		!strings.Contains(reply.Header.Get("Content-Type"), "json"):
		why = "does not answer itself"
	default:
		return bounded(reply), nil
	}
	reply.Body.Close()
	return nil, fault.New(fault.LakeUnreachable, r.URL.Host, "the catalog's server %s (%s)", why, reply.Status)
}
