package postgres_test

import (
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

func TestMain(m *testing.M) { testlab.Main(m) }
