package postgres

import (
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leatdata/leat/internal/fault"
)

func TestWhatHealsByItselfIsTriedAgain(t *testing.T) {
	t.Parallel()
	for state, again := range map[string]bool{
		"40P01": true, "40001": true, "53100": true, "53200": true, "53300": true, "55P03": true, "57P01": true, "08006": true,
		"42501": false, "42P01": false, "22012": false, "28P01": false,
	} {
		err := classify(t.Context(), &pgconn.PgError{Code: state}, "here", "it failed")
		if fault.Retryable(err) != again {
			t.Errorf("%s is %s", state, fault.Of(err).Code)
		}
	}
}
