package lake

import (
	"context"
	"database/sql"
	"errors"
	"net/url"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	icesql "github.com/apache/iceberg-go/catalog/sql"
	"github.com/apache/iceberg-go/table"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/session"
)

// openSQL connects to a catalog in a database, in the tables that Iceberg's JDBC catalogs share. They are made if they are not there.
func (l *Lake) openSQL(ctx context.Context, dialect icesql.SupportedDialect) error {
	db, err := l.openDatabase(dialect)
	if err != nil {
		return err
	}
	cat, err := icesql.NewCatalog(l.Catalog.Name, db, dialect, iceberg.Properties{
		"warehouse": l.url(l.key()), icesql.SchemaVersionKey: icesql.SchemaVersionV1,
	})
	if err != nil {
		_ = db.Close() // the error that counts is there
		return catalogFailed(ctx, err, l.Catalog.URI, "the catalog's database cannot be used")
	}
	l.use(cat, func() error { return errors.Join(cat.Close(), db.Close()) })
	return nil
}

func (l *Lake) openDatabase(dialect icesql.SupportedDialect) (*sql.DB, error) {
	if dialect == icesql.SQLite {
		// A second process waits its turn instead of failing; a commit outlasts a power cut.
		db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: l.Catalog.URI}).EscapedPath(),
			RawQuery: "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate"}).String())
		return db, fault.Wrap(err, fault.LakeFailed, l.Catalog.URI, "the catalog's file cannot be opened")
	}
	config, err := pgx.ParseConfig(l.Catalog.URI)
	if err != nil {
		// The driver's error quotes the connection string.
		return nil, fault.New(fault.ConfigInvalid, "", "the catalog's connection string cannot be understood")
	}
	if l.Catalog.Password != nil {
		config.Password = l.Catalog.Password()
	}
	db := stdlib.OpenDB(*config, stdlib.OptionAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		c := conn.PgConn()
		_, err := c.Exec(ctx, session.SQL(session.Needs{Use: session.Catalog, Major: session.Major(c.ParameterStatus("server_version"))})).ReadAll()
		return err
	}))
	db.SetMaxOpenConns(4)
	return db, nil
}

// use takes a catalog of the Iceberg library.
func (l *Lake) use(cat catalog.Catalog, stop func() error) {
	l.catalog, l.closeCatalog = remoteTables{cat}, stop
	l.createNamespace = func(ctx context.Context, name table.Identifier) error {
		if there, err := cat.CheckNamespaceExists(ctx, name); there || err != nil {
			return unreachable(ctx, err)
		}
		err := cat.CreateNamespace(ctx, name, nil)
		if errors.Is(err, catalog.ErrNamespaceAlreadyExists) {
			return nil
		}
		return unreachable(ctx, err)
	}
}
