package testlab

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
)

// adminConn is the one connection by which databases are made and dropped: most of what a small test costs is connections.
type adminConn struct {
	mu   sync.Mutex
	conn *pgx.Conn
	life *child // the run of the server that conn belongs to
}

// do runs statements, one by one, as superuser in the database of that name.
func (s *Server) do(statements ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	a := &s.admin
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, sql := range statements {
		fresh, err := a.connect(ctx, s)
		if err != nil {
			return err
		}
		_, err = a.conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
		if err != nil && a.conn.IsClosed() && !fresh { // it was terminated before, by a test that spares no session
			if _, err = a.connect(ctx, s); err == nil {
				_, err = a.conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// connect opens the connection unless it is there, and says whether it did.
func (a *adminConn) connect(ctx context.Context, s *Server) (fresh bool, err error) {
	if a.conn != nil && !a.conn.IsClosed() && a.life == s.child {
		return false, nil
	}
	if a.conn != nil {
		_ = a.conn.PgConn().Conn().Close() // its server is gone
		a.conn = nil
	}
	if a.conn, err = pgx.Connect(ctx, s.url(superuser, s.Password, superuser)); err != nil {
		a.conn = nil
		return false, err
	}
	a.life = s.child
	return true, nil
}

// quickSecret is what PostgreSQL keeps of a password for SCRAM-SHA-256 (RFC 5803), made in one round instead of 4096: the client has to
// repeat them at each connection. Roles of tests have the usual number.
func quickSecret(password string) (string, error) {
	salt := make([]byte, 16)
	rand.Read(salt)
	salted, err := pbkdf2.Key(sha256.New, password, salt, 1, sha256.Size)
	if err != nil {
		return "", err
	}
	mac := func(text string) []byte {
		h := hmac.New(sha256.New, salted)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	stored := sha256.Sum256(mac("Client Key"))
	text := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$1:%s$%s:%s", text(salt), text(stored[:]), text(mac("Server Key"))), nil
}
