package testlab

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// hostile are settings that a role or a database can have and that change what a session reads, writes, hears or may do.
// search_path makes the shadows of [DB.Hostile] come before the server's own names.
var hostile = []string{
	"client_min_messages = error", "client_encoding = LATIN1", "search_path = shadow, pg_catalog",
	"DateStyle = 'SQL, DMY'", "IntervalStyle = sql_standard", "TimeZone = 'Asia/Kolkata'", "extra_float_digits = -10", "bytea_output = escape",
	"xmloption = document", "xmlbinary = hex", "lc_monetary = 'POSIX'", "lc_numeric = 'POSIX'", "lc_time = 'POSIX'", "lc_messages = 'POSIX'",
	"quote_all_identifiers = on", "standard_conforming_strings = off", "escape_string_warning = off", "backslash_quote = off",
	"array_nulls = off", "transform_null_equals = on", "row_security = on", "default_text_search_config = simple",
	"statement_timeout = 300", "lock_timeout = 300", "idle_in_transaction_session_timeout = 300", "idle_session_timeout = 300",
	"transaction_timeout = 300", "wal_sender_timeout = 150",
	"default_transaction_read_only = on", "default_transaction_isolation = serializable", "default_transaction_deferrable = on",
	"synchronous_commit = off", "session_replication_role = replica", "check_function_bodies = off", "gin_fuzzy_search_limit = 1",
	"synchronize_seqscans = on", "enable_seqscan = off", "enable_tidscan = off", "jit = on", "jit_above_cost = 0",
	"parallel_setup_cost = 0", "parallel_tuple_cost = 0", "min_parallel_table_scan_size = 0", "min_parallel_index_scan_size = 0",
	"force_parallel_mode = on", "debug_parallel_query = on", "work_mem = 64", "logical_decoding_work_mem = 64",
}

// shadowSQL makes objects that take the place of the server's own under a search_path that names their schema first.
const shadowSQL = `
create schema if not exists shadow;
create or replace view shadow.pg_class as select * from pg_catalog.pg_class where false;
create or replace view shadow.pg_settings as select * from pg_catalog.pg_settings where false;
create or replace view shadow.pg_publication as select * from pg_catalog.pg_publication where false;
create or replace view shadow.pg_replication_slots as select * from pg_catalog.pg_replication_slots where false;
create or replace function shadow.format(text, variadic text[]) returns text language sql as $$select 'shadow'::text$$;
create or replace function shadow.current_setting(text) returns text language sql as $$select 'shadow'::text$$;
create or replace function shadow.texteq(text, text) returns bool language sql as $$select false$$;
do $$ begin create operator shadow.= (leftarg = text, rightarg = text, function = shadow.texteq); exception when duplicate_function then null; end $$;
grant usage on schema shadow to public; grant select on all tables in schema shadow to public`

// Hostile gives a role every setting that could change what leat does, and returns how many. With an empty role they are the database's, and so
// every role's; the sessions of the test itself keep what they have begun with.
func (db *DB) Hostile(role string) int {
	db.t.Helper()
	db.Exec(shadowSQL)
	return db.Sets(role, hostile...)
}

// Sets gives a role, or with an empty one the database, settings as of postgresql.conf. What this major does not have is left out.
func (db *DB) Sets(role string, settings ...string) int {
	db.t.Helper()
	var names []string
	for _, r := range db.Query("select pg_catalog.lower(name) from pg_catalog.pg_settings") {
		names = append(names, r[0])
	}
	of := "database " + db.Name
	if role != "" {
		of = "role " + role + " in database " + db.Name
	}
	n := 0
	for _, s := range settings {
		name, value, _ := strings.Cut(s, " = ")
		if slices.Contains(names, strings.ToLower(name)) {
			db.Exec("alter " + of + " set " + name + " = " + value)
			n++
		}
	}
	return n
}

// ConnectAs opens a connection of a role and closes it when the test ends.
func (db *DB) ConnectAs(r Role) *pgx.Conn {
	db.t.Helper()
	conn, err := pgx.Connect(context.Background(), r.URL)
	if err != nil {
		db.t.Fatalf("connect to the lab's database as %s: %v", r.Name, err)
	}
	db.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}
