package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leatdata/leat/internal/fault"
)

// classes maps SQLSTATEs (https://www.postgresql.org/docs/current/errcodes-appendix.html),
// whole or by their class, to our codes. The whole state is looked up first.
var classes = map[string]fault.Code{
	"08":    fault.SourceCut,
	"0A":    fault.SourceVersion, // feature not supported
	"28":    fault.SourceAuth,
	"3D":    fault.SourceMissing, // database
	"3F":    fault.SourceMissing, // schema
	"42P01": fault.SourceMissing,
	"42501": fault.SourceRights,
	"53300": fault.SourceUnreachable, // too many connections: heals when others leave
	"55P03": fault.SourceTimeout,     // lock_timeout
	"57014": fault.SourceTimeout,     // statement_timeout, or cancelled by an administrator
	"22021": fault.ValueUncarriable,  // bytes of a SQL_ASCII database that are not UTF-8
	"22P05": fault.ValueUncarriable,  // a character that UTF-8 has no twin of
	"25P03": fault.SourceTimeout,     // idle_in_transaction_session_timeout
	"57P01": fault.SourceCut,
	"57P02": fault.SourceCut,
	"57P03": fault.SourceUnreachable, // starting up, shutting down
	"40001": fault.SourceCut,         // cancelled by recovery on a standby
	"40P01": fault.SourceBusy,        // a deadlock, of which this session was the victim
	"53100": fault.SourceBusy,        // disk full
	"53200": fault.SourceBusy,        // out of memory
}

// classify turns an error of the driver into a Fault. where names the thing asked for.
func classify(ctx context.Context, err error, where, format string, args ...any) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fault.Wrap(context.Cause(ctx), fault.Interrupted, where, format, args...)
	}
	if f := fault.Of(err); f != nil {
		return err
	}
	return fault.Wrap(err, codeOf(err), where, format, args...)
}

func codeOf(err error) fault.Code {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		if c, ok := classes[pg.Code]; ok {
			return c
		}
		if len(pg.Code) == 5 {
			if c, ok := classes[pg.Code[:2]]; ok {
				return c
			}
		}
		return fault.SourceFailed
	}
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		var cert *tls.CertificateVerificationError
		if errors.As(err, &cert) {
			return fault.SourceAuth
		}
		return fault.SourceUnreachable
	}
	var parse *pgconn.ParseConfigError
	if errors.As(err, &parse) {
		return fault.ConfigInvalid
	}
	var netErr net.Error
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.As(err, &netErr) ||
		errors.Is(err, pgconn.ErrConnClosed) {
		return fault.SourceCut
	}
	return fault.SourceFailed
}

// sqlState returns the SQLSTATE in err's chain, or "".
func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// oneLine keeps multi-line driver messages from breaking a log line.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
