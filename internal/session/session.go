package session

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Use is what a session is for.
type Use uint

// The uses.
const (
	Read        Use = 1 << iota // looks at the catalog and reads tables
	Write                       // makes publications and slots, writes messages into the log
	Replication                 // a walsender
	Catalog                     // the lake's catalog in PostgreSQL

	source = Read | Write | Replication
	all    = source | Catalog
)

// Setting is one line of the list.
type Setting struct {
	Name  string
	Value string
	Why   string
	// Uses are the sessions that get it.
	Uses Use
	// Since and Until are the first major that has it and the first that has it no more; 0 is no limit.
	Since, Until int
	// Form marks what decides how the server writes a value as text. A dump in the role's own form has the role's value instead.
	Form bool
	// Only is a condition on the value as it is, in SQL with %s for its text: a value that does not meet it is left.
	Only string
}

// List is the settings of all sessions, in the order in which they are set.
var List = []Setting{
	{Name: "statement_timeout", Value: "0", Uses: all, Why: "a role's limit would end a copy, or a slot in the making; dump.statement_timeout is ours"},
	{Name: "lock_timeout", Value: "0", Uses: all, Why: "the same for a wait; dump.lock_timeout is ours"},
	{Name: "idle_in_transaction_session_timeout", Value: "0", Uses: all, Why: "the session that holds the snapshot idles while others read"},
	{Name: "idle_session_timeout", Value: "0", Uses: all, Since: 14, Why: "sessions wait for their next task"},
	{Name: "transaction_timeout", Value: "0", Uses: all, Since: 17, Why: "a snapshot lives as long as its dump or copy"},

	{Name: "search_path", Value: "pg_catalog", Uses: source, Form: true, Why: "no function, operator or table of another schema takes the place of the server's own; types and regclass values are written with their schema"},
	{Name: "client_encoding", Value: "UTF8", Uses: all, Why: "text is UTF-8 everywhere (data of a SQL_ASCII database is read as its bytes, and leat looks at each text)"},
	{Name: "standard_conforming_strings", Value: "on", Uses: all, Why: "a backslash in a literal is a backslash, in row filters and in what a driver quotes"},
	{Name: "transform_null_equals", Value: "off", Uses: all, Why: "a row filter means the same for the copy as in the publication"},
	{Name: "array_nulls", Value: "on", Uses: source, Why: "NULL in an array that leat passes is null"},
	{Name: "quote_all_identifiers", Value: "off", Uses: source, Form: true, Why: "names and expressions that the catalog writes are compared with those of before; regclass values are written the same"},
	{Name: "client_min_messages", Value: "warning", Uses: all, Why: "from PostgreSQL 18 on a WARNING is all that tells that a publication is not there and its changes are left out"},

	{Name: "default_transaction_isolation", Value: "read committed", Uses: all, Why: "each look sees what is committed now; serializable does not exist on a standby, and fails commits of the catalog"},
	{Name: "default_transaction_deferrable", Value: "off", Uses: all, Why: "a read-only look would wait for other transactions"},
	{Name: "default_transaction_read_only", Value: "on", Uses: Read, Why: "what only reads cannot write"},
	{Name: "default_transaction_read_only", Value: "off", Uses: Write | Replication | Catalog, Why: "what writes may"},
	{Name: "row_security", Value: "off", Uses: source, Why: "an error instead of rows that are missing without a word"},
	{Name: "gin_fuzzy_search_limit", Value: "0", Uses: source, Why: "a limit makes an index scan of a view or row filter give a random part of the rows"},
	{
		Name: "synchronous_commit", Value: "on", Uses: Write | Catalog, Only: "%s operator(pg_catalog.=) 'off'",
		Why: "what was committed is not lost in a crash; only off is changed, the other values wait for at least the local disk",
	},
	{
		Name: "wal_sender_timeout", Value: "1s", Uses: Replication, Only: "%s::int between 1 and 999",
		Why: "the server hears of leat at most ten times a second; only a limit below a second is changed",
	},

	{Name: "DateStyle", Value: "ISO", Uses: source, Form: true, Why: "other styles leave out the offset or the order of day and month. The order in which text is read is that of the database's other roles"},
	{Name: "IntervalStyle", Value: "postgres", Uses: source, Form: true, Why: "sql_standard does not tell signs apart"},
	{Name: "TimeZone", Value: "UTC", Uses: source, Form: true, Why: "the same moment is the same text"},
	{Name: "extra_float_digits", Value: "3", Uses: source, Form: true, Why: "all digits; 0 and less lose some"},
	{Name: "bytea_output", Value: "hex", Uses: source, Form: true, Why: "one form"},
	{Name: "xmloption", Value: "content", Uses: source, Form: true, Why: "any value of type xml can be cast"},
	{Name: "xmlbinary", Value: "base64", Uses: source, Form: true, Why: "one form, in views that make XML"},

	{Name: "synchronize_seqscans", Value: "off", Uses: Read, Why: "rows come in the order of the heap, the same each time"},
	{Name: "enable_seqscan", Value: "on", Uses: Read, Why: "a table is read in the order of its heap, not of an index"},
	{Name: "enable_tidscan", Value: "on", Uses: Read, Why: "a range of pages is read without reading the whole table"},
	{Name: "debug_parallel_query", Value: "off", Uses: Read, Since: 16, Why: "parallel workers would mix the order of the rows"},
	{Name: "force_parallel_mode", Value: "off", Uses: Read, Until: 16, Why: "its name before 16"},
	{Name: "parallel_setup_cost", Value: "1000", Uses: Read, Why: "the same: at 0 a plain read is done by workers"},
	{Name: "parallel_tuple_cost", Value: "0.1", Uses: Read, Why: "the same"},
	{Name: "jit", Value: "off", Uses: Read | Write, Why: "compiling a catalog query takes longer than running it"},
}

// Left are settings that a role may have and that are left as they are, and why that is harmless.
var Left = [][2]string{
	{"role", "it decides which rights the session has, and is the administrator's choice; what is missing is an error with the GRANT to run"},
	{"search_path", "of the session that finds tables which are named without a schema (read once, at the start), and of the lake's catalog, whose tables lie where it says"},
	{"lc_monetary, lc_numeric, lc_time", "set only where the role has values of its own, to those that other roles of the database have: lc_monetary decides how many decimals money has"},
	{"lc_messages, escape_string_warning, log_*", "no decision is made from a message's text"},
	{"synchronous_commit = local, remote_write, remote_apply", "each waits for the local disk at least"},
	{"session_replication_role", "leat writes to no table of the source, and a view's rule holds in each"},
	{"check_function_bodies, backslash_quote, default_tablespace, default_table_access_method", "they rule what leat does not do"},
	{"work_mem, costs of the planner, other enable_*, max_parallel_workers_per_gather, plan_cache_mode", "they change how a view is computed, not what it gives"},
	{"logical_decoding_work_mem", "it decides when the server spills or streams a large transaction; both are read alike"},
	{"default_text_search_config", "only a view that names none depends on it"},
	{"tcp_keepalives_*, tcp_user_timeout, client_connection_check_interval", "they end a connection that is dead; leat opens another one"},
	{"local_preload_libraries, session_preload_libraries", "they are loaded before a session can say anything"},
	{"zero_damaged_pages, ignore_checksum_failure", "a superuser's decision to lose pages, which no other role could take back"},
}

// Needs say which session is meant.
type Needs struct {
	Use Use
	// Major is the server's, 0 where it is not known: settings that not every major has are left then.
	Major int
	// Others are set first: what other roles of the database have, of settings that the list leaves or sets in part.
	Others map[string]string
	// Own stand for the list's values, and are set last.
	Own map[string]string
}

// SQL sets what such a session needs.
func SQL(n Needs) string {
	var sql strings.Builder
	for _, name := range slices.Sorted(maps.Keys(n.Others)) {
		sql.WriteString(assign(name, n.Others[name]))
	}
	for _, s := range List {
		if _, own := n.Own[s.Name]; s.Uses&n.Use != 0 && s.known(n.Major) && !own {
			sql.WriteString(s.sql())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.Own)) {
		sql.WriteString(assign(name, n.Own[name]))
	}
	return sql.String()
}

func (s Setting) known(major int) bool {
	if major == 0 {
		return s.Since == 0 && s.Until == 0
	}
	return major >= s.Since && (s.Until == 0 || major < s.Until)
}

func (s Setting) sql() string {
	if s.Only == "" {
		return "set " + s.Name + " = " + literal(s.Value) + ";"
	}
	// pg_settings gives times in the setting's own unit. The catalog's session has the role's search_path.
	condition := strings.ReplaceAll(s.Only, "%s", "s.setting")
	return "select pg_catalog.set_config(s.name, " + literal(s.Value) + ", false) from pg_catalog.pg_settings s where s.name operator(pg_catalog.=) " + literal(s.Name) + " and " + condition + ";"
}

// assign takes a value as pg_settings writes it, lists included: SET would take a list in one literal for one item.
func assign(name, value string) string {
	return "select pg_catalog.set_config(" + literal(name) + ", " + literal(value) + ", false);"
}

// literal quotes a string whatever standard_conforming_strings says.
func literal(s string) string {
	s = strings.ReplaceAll(s, `'`, `''`)
	if strings.Contains(s, `\`) {
		return `E'` + strings.ReplaceAll(s, `\`, `\\`) + `'`
	}
	return `'` + s + `'`
}

// Forms are the names of the settings that decide how the server writes a value as text.
func Forms() []string {
	var names []string
	for _, s := range List {
		if s.Form {
			names = append(names, s.Name)
		}
	}
	return append(names, Locale...)
}

// Locale are settings that no fixed value would be right for.
var Locale = []string{"lc_monetary", "lc_numeric", "lc_time"}

// Unlimited takes away what may end a session before [SQL] has.
func Unlimited(major int) string {
	var sql strings.Builder
	for _, s := range List {
		if strings.HasSuffix(s.Name, "_timeout") && s.Uses == all && s.known(major) {
			sql.WriteString(s.sql())
		}
	}
	return sql.String()
}

// Major reads the major from the parameter server_version, which every server reports at the start: "15.18 (Debian 15.18-1)", "18beta1".
// It is 0 where that cannot be read.
func Major(version string) int {
	end := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(version)
	}
	n, err := strconv.Atoi(version[:end])
	if err != nil {
		return 0
	}
	return n
}
