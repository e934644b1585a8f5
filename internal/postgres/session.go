package postgres

import (
	"context"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/session"
)

// session gives a connection that reads: one that waits for use, or a new one.
func (s *Source) session(ctx context.Context) (*pgconn.PgConn, error) {
	if c := s.idle.take(ctx); c != nil {
		return c, nil
	}
	c, err := s.open(ctx, session.Read, nil)
	if err == nil {
		c.CustomData()[idleKey] = s.idle
	}
	return c, err
}

// writer opens a connection that makes publications and slots, and writes messages into the log.
func (s *Source) writer(ctx context.Context) (*pgconn.PgConn, error) {
	return s.open(ctx, session.Write, nil)
}

// walsender opens a connection that knows the replication commands.
func (s *Source) walsender(ctx context.Context) (*pgconn.PgConn, error) {
	return s.open(ctx, session.Replication, nil)
}

// openAttempts is how often a session is opened whose role ends it before its limits are taken away.
const openAttempts = 5

// open is the one way to a connection: with the settings of the list, whatever the role or the database sets.
func (s *Source) open(ctx context.Context, use session.Use, own map[string]string) (*pgconn.PgConn, error) {
	var params map[string]string
	if use == session.Replication {
		params = map[string]string{"replication": "database"}
	}
	for attempt := 1; ; attempt++ {
		c, err := s.dial(ctx, params)
		if err != nil {
			return nil, err
		}
		if attempt > 1 {
			err = exec(ctx, c, session.Unlimited(session.Major(c.ParameterStatus("server_version"))))
		}
		if err == nil {
			err = s.prepare(ctx, c, use, own)
		}
		if err == nil {
			return c, nil
		}
		leave(c)
		if attempt == openAttempts || !outOfTime(err) || ctx.Err() != nil {
			return nil, classify(ctx, err, s.Name, "cannot prepare the session")
		}
	}
}

// prepare sets what the list says for a use, and a session's own settings.
func (s *Source) prepare(ctx context.Context, c *pgconn.PgConn, use session.Use, own map[string]string) error {
	needs := session.Needs{Use: use, Others: s.others, Own: map[string]string{}, Major: session.Major(c.ParameterStatus("server_version"))}
	if use != session.Replication {
		needs.Own["lock_timeout"], needs.Own["statement_timeout"] = millis(s.set.LockTimeout), millis(s.set.StatementTimeout)
	}
	maps.Copy(needs.Own, own)
	return exec(ctx, c, session.SQL(needs))
}

// outOfTime says whether a limit on time ended a statement or a session.
func outOfTime(err error) bool {
	switch sqlState(err) {
	case "57014", "25P03", "25P04", "57P05": // statement, idle in transaction, transaction, idle session
		return true
	}
	return false
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// ownSQL finds, of settings that no fixed value would be right for, those that the role has a value of its own of, and what the database,
// or all roles, have.
const ownSQL = `
select s.name, s.boot_val, d.datcollate,
       (select pg_catalog.substr(v, pg_catalog.strpos(v, '=') + 1) from pg_catalog.pg_db_role_setting r, pg_catalog.unnest(r.setconfig) v
        where r.setrole = 0 and r.setdatabase in (0, d.oid) and pg_catalog.lower(pg_catalog.split_part(v, '=', 1)) = pg_catalog.lower(s.name)
        order by r.setdatabase desc limit 1),
       pg_catalog.has_table_privilege('pg_catalog.pg_file_settings', 'select') and pg_catalog.has_function_privilege('pg_catalog.pg_show_all_file_settings()', 'execute')
from pg_catalog.pg_settings s, pg_catalog.pg_database d
where d.datname = pg_catalog.current_database() and s.source in ('user', 'database user') and s.name = any($1::text[])`

// othersHave is what other roles of the database have of the settings in which this role differs. A role that may not look
// into the configuration file takes the database's locale, which is what a new server is configured with.
func (s *Source) othersHave(ctx context.Context, c *pgconn.PgConn) (map[string]string, error) {
	if err := exec(ctx, c, "reset DateStyle"); err != nil { // which the list has set; now its source is to be seen again
		return nil, err
	}
	rows, err := query(ctx, c, ownSQL, textArray(append([]string{"DateStyle"}, session.Locale...)))
	if err != nil {
		return nil, err
	}
	others := map[string]string{}
	for _, r := range rows {
		name, value := string(r[0]), string(r[2])
		if name == "DateStyle" {
			value = string(r[1])
		}
		switch {
		case r[3] != nil:
			value = string(r[3])
		case string(r[4]) == "t":
			file, err := query(ctx, c, `select setting from pg_catalog.pg_file_settings where pg_catalog.lower(name) = pg_catalog.lower($1) and applied order by seqno desc limit 1`, name)
			if err != nil {
				return nil, err
			}
			if len(file) == 1 {
				value = string(file[0][0])
			}
		}
		others[name] = value
	}
	return others, nil
}

// look reads at the first connection what later ones go by.
func (s *Source) look(ctx context.Context, c *pgconn.PgConn) error {
	rows, err := query(ctx, c, `select pg_catalog.current_setting('server_version_num'), pg_catalog.pg_is_in_recovery()::text, pg_catalog.current_setting('server_encoding')`)
	if err != nil {
		return classify(ctx, err, s.Name, "cannot read the server's version")
	}
	s.Version, _ = strconv.Atoi(string(rows[0][0]))
	s.InRecovery = string(rows[0][1]) == "true"
	s.Encoding = string(rows[0][2])
	if s.Version < 120000 {
		return fault.New(fault.SourceVersion, s.Name, "PostgreSQL %s is older than 12, the oldest that leat reads", c.ParameterStatus("server_version"))
	}
	if s.others, err = s.othersHave(ctx, c); err != nil {
		return classify(ctx, err, s.Name, "cannot read the role's settings")
	}
	// Names without a schema are looked for where the role's own sessions look.
	if err := exec(ctx, c, "reset search_path"); err != nil {
		return classify(ctx, err, s.Name, "cannot read the search_path")
	}
	rows, err = query(ctx, c, `select pg_catalog.array_to_string(pg_catalog.current_schemas(false), E'\n')`)
	if err != nil {
		return classify(ctx, err, s.Name, "cannot read the search_path")
	}
	s.searchPath = strings.Split(string(rows[0][0]), "\n")
	return nil
}

// formSQL reads with what a session of this role begins, whatever this one has been set to.
const formSQL = `select name, reset_val from pg_catalog.pg_settings where pg_catalog.lower(name) = any(pg_catalog.string_to_array(pg_catalog.lower($1), ' '))`

// form is how the role's own sessions write values as text, by the name of the setting.
func (s *Source) form(ctx context.Context, c *pgconn.PgConn) (map[string]string, error) {
	rows, err := query(ctx, c, formSQL, strings.Join(session.Forms(), " "))
	if err != nil {
		return nil, classify(ctx, err, s.Name, "cannot read the role's settings")
	}
	form := map[string]string{}
	for _, r := range rows {
		form[string(r[0])] = string(r[1])
	}
	return form, nil
}

// Lossy says which of the settings of a [Snapshot.Form] lose or hide something of the values, and what.
func Lossy(form map[string]string) []string {
	var lossy []string
	if n, err := strconv.Atoi(form["extra_float_digits"]); err == nil && n < 1 {
		lossy = append(lossy, "extra_float_digits = "+form["extra_float_digits"]+" (digits of real and double precision are lost)")
	}
	if style := form["DateStyle"]; style != "" && !strings.HasPrefix(style, "ISO") {
		lossy = append(lossy, "DateStyle = "+style+" (the offset of a timestamptz, or the order of day and month, is not to be seen)")
	}
	if form["IntervalStyle"] == "sql_standard" {
		lossy = append(lossy, "IntervalStyle = sql_standard (the sign of an interval's parts is not to be seen)")
	}
	return lossy
}
