package main

import (
	"time"

	"github.com/leatdata/leat/internal/config"
	"github.com/leatdata/leat/internal/postgres"
)

// settings tells the reader how to reach the database.
func settings(cfg *config.Config) (postgres.Settings, error) {
	conn, err := cfg.From.ConnString()
	if err != nil {
		return postgres.Settings{}, err
	}
	set := postgres.Settings{
		ConnString: conn, IAMRegion: string(cfg.From.IAM), ApplicationName: cfg.From.ApplicationName,
		LockTimeout: time.Duration(cfg.Dump.LockTimeout), StatementTimeout: time.Duration(cfg.Dump.StatementTimeout),
	}
	if !cfg.From.Password.IsZero() {
		set.Password = cfg.From.Password.Reveal
	}
	return set, nil
}
