package dump_test

// typeCase is a type of PostgreSQL and values of it, as SQL. Every type gets a NULL besides.
type typeCase struct {
	name  string // as docs/types.md says it; the SQL type unless that is given too
	sql   string
	setup string // DDL that makes the type
	needs string // extension
	since int    // first major that has it
	// unbounded is dump.types.unbounded_numeric, where that is not the default.
	unbounded string
	exact     bool // text read back must be the very bytes, not just mean the same
	// ordinary values need no word in the documentation; special ones stand there by their label.
	ordinary []string
	special  []special
}

func (c typeCase) pg() string {
	if c.sql != "" {
		return c.sql
	}
	return c.name
}

// special is a value that tools tend to lose.
type special struct {
	label string
	sql   string
	since int
	// class names the policy (dump.types.<class>) that rules the value in typed formats; "" is carried exactly.
	class string
	// null and clamp are the whole value, in PostgreSQL's text, that the policies give; "" is NULL.
	null, clamp string
	// inJSON is what jsonl makes of the value where JSON itself does not know the difference.
	inJSON string
}

var typeCases = concat(numberCases, timeCases, textCases, otherCases, geometricCases, rangeCases, arrayCases, madeCases, extensionCases)

func concat(lists ...[]typeCase) (all []typeCase) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

var floatSpecials = func(denormal, most string) []special {
	return []special{
		{label: "NaN", sql: "'NaN'"}, {label: "Infinity", sql: "'Infinity'"}, {label: "-Infinity", sql: "'-Infinity'"}, {label: "-0", sql: "'-0'"},
		{label: "denormal", sql: denormal}, {label: "largest", sql: most},
	}
}

var numberCases = []typeCase{
	{name: "boolean", ordinary: []string{"true", "false"}},
	{name: "smallint", ordinary: []string{"0", "-32768", "32767"}},
	{name: "integer", ordinary: []string{"0", "-2147483648", "2147483647"}},
	{name: "bigint", ordinary: []string{"0", "-9223372036854775808", "9223372036854775807"}},
	{name: "oid", ordinary: []string{"0", "'2147483648'", "'4294967295'"}},
	{name: "real", ordinary: []string{"0", "0.1", "-1.5"}, special: floatSpecials("'1e-45'", "'3.4028235e38'")},
	{name: "double precision", ordinary: []string{"0", "0.1", "1e300", "0.1::float8+0.2::float8"}, special: floatSpecials("'5e-324'", "'1.7976931348623157e308'")},
	{name: "numeric(p,s), p ≤ 9", sql: "numeric(9,2)", exact: true, ordinary: []string{"0", "-0.01", "9999999.99", "-9999999.99", "10000", "0.1"}, special: []special{{label: "NaN", sql: "'NaN'", class: "numeric"}}},
	{name: "numeric(p,s), p ≤ 18", sql: "numeric(18,6)", exact: true, ordinary: []string{"0", "-0.000001", "999999999999.999999", "-999999999999.999999", "100000000"}},
	{name: "numeric(p,s), p ≤ 38", sql: "numeric(38,10)", exact: true, ordinary: []string{"0", "0.0000000001", "9999999999999999999999999999.9999999999", "-9999999999999999999999999999.9999999999", "1e20", "12345678901234567890.5"}},
	{name: "numeric(38,0)", exact: true, ordinary: []string{"99999999999999999999999999999999999999", "-99999999999999999999999999999999999999", "1"}},
	{name: "numeric(38,38)", exact: true, ordinary: []string{"0.99999999999999999999999999999999999999", "-0.00000000000000000000000000000000000001"}},
	{name: "numeric(p,s), p > 38", sql: "numeric(39,2)", exact: true, ordinary: []string{"9999999999999999999999999999999999999.99", "0"}, special: []special{{label: "NaN", sql: "'NaN'"}}},
	{name: "numeric(5,-2)", since: 15, exact: true, ordinary: []string{"1234567", "-100", "0", "9999900"}},
	{name: "numeric(3,5)", since: 15, exact: true, ordinary: []string{"0.00999", "-0.00001", "0"}},
	{name: "numeric", exact: true, ordinary: []string{"0", "0.00", "-1.50", "1e-20"}, special: []special{
		{label: "1000 digits", sql: "(repeat('7', 1000) || '.' || repeat('3', 1000))::numeric"}, {label: "131072 digits", sql: "1e131071::numeric"},
		{label: "NaN", sql: "'NaN'"}, {label: "±Infinity", sql: "'Infinity'", since: 14}, {label: "±Infinity", sql: "'-Infinity'", since: 14}}},
	{name: "numeric as decimal(38,10)", sql: "numeric", unbounded: "decimal(38,10)", ordinary: []string{"0.0000000000", "-9999999999999999999999999999.9999999999", "1.5000000000"}, special: []special{
		{label: "NaN", sql: "'NaN'", class: "numeric"},
		{label: "Infinity", sql: "'Infinity'", since: 14, class: "numeric", clamp: "9999999999999999999999999999.9999999999"},
		{label: "-Infinity", sql: "'-Infinity'", since: 14, class: "numeric", clamp: "-9999999999999999999999999999.9999999999"},
		{label: "more digits", sql: "1e28", class: "numeric", clamp: "9999999999999999999999999999.9999999999"},
		{label: "more decimals", sql: "-1.00000000005", class: "numeric", clamp: "-1.0000000001"}}},
	{name: "money", ordinary: []string{"0", "-0.01", "'92233720368547758.07'", "'-92233720368547758.08'"}},
}

var timeCases = []typeCase{
	{name: "date", ordinary: []string{"'2026-11-21'", "'1970-01-01'", "'1969-12-31'"}, special: []special{
		{label: "infinity", sql: "'infinity'", class: "date", clamp: "9999-12-31"}, {label: "-infinity", sql: "'-infinity'", class: "date", clamp: "0001-01-01"},
		{label: "BC", sql: "'4714-11-24 BC'"}, {label: "BC", sql: "'0001-12-31 BC'"}, {label: "year 1", sql: "'0001-01-01'"}, {label: "year 5874897", sql: "'5874897-12-31'"}}},
	{name: "time", ordinary: []string{"'00:00'", "'12:34:56.789012'", "'23:59:59.999999'"}, special: []special{
		{label: "24:00:00", sql: "'24:00:00'", class: "time", clamp: "23:59:59.999999"}}},
	{name: "time with time zone", ordinary: []string{"'12:34:56.789012+05:30'", "'00:00-15:59'"}, special: []special{{label: "24:00:00", sql: "'24:00:00+00'"}}},
	{name: "timestamp", ordinary: []string{"'2026-11-21 09:45:00.000001'", "'1969-12-31 23:59:59.999999'"}, special: timestampSpecials("timestamp", "")},
	{name: "timestamp with time zone", ordinary: []string{"'2026-11-21 09:45:00.000001+01'", "'1883-11-18 12:00:00 America/New_York'"}, special: timestampSpecials("timestamptz", "+00")},
	{name: "interval", ordinary: []string{"'0'", "'1 year 2 months 3 days 04:05:06.789012'"}, special: []special{
		{label: "negative", sql: "'-1 year -2 days -00:00:00.000001'"}, {label: "mixed signs", sql: "'1 month -1 day 00:00:01'"},
		{label: "largest", sql: "'178000000 years'"}, {label: "infinity", sql: "'infinity'", since: 17}}},
}

func timestampSpecials(class, zone string) []special {
	return []special{
		{label: "infinity", sql: "'infinity'", class: class, clamp: "9999-12-31 23:59:59.999999" + zone},
		{label: "-infinity", sql: "'-infinity'", class: class, clamp: "0001-01-01 00:00:00" + zone},
		{label: "past 294246", sql: "'294276-12-31 23:59:59.999999" + zone + "'", class: class, clamp: "9999-12-31 23:59:59.999999" + zone},
		{label: "BC", sql: "'4714-11-24 00:00:00" + zone + " BC'"}, {label: "BC", sql: "'0001-12-31 23:59:59.5" + zone + " BC'"},
		{label: "year 1", sql: "'0001-01-01 00:00:00" + zone + "'"}, {label: "year 294246", sql: "'294246-12-31 23:59:59.999999" + zone + "'"},
	}
}

const oddText = `E'a "quoted" \\''text\\'', back\\\\slash, \\\\N, tab\\t, line\\r\\nbreaks\\n, \\u00e4\\u65e5\\u672c\\U0001F600, \\x01\\x1f\\x7f'`

var textSpecials = []special{{label: "empty", sql: "''"}, {label: "1 MiB", sql: "repeat('xyz\"', 262144)"}, {label: "control characters, quotes", sql: oddText}}

var textCases = []typeCase{
	{name: "text", exact: true, ordinary: []string{"'plain'", "'NULL'", "' '", "'ä日本'"}, special: textSpecials},
	{name: "character varying(n)", sql: "character varying(200)", exact: true, ordinary: []string{"'plain'", oddText}, special: []special{{label: "empty", sql: "''"}}},
	{name: "character(n)", sql: "character(8)", exact: true, ordinary: []string{"'12345678'"}, special: []special{{label: "padding", sql: "'abc'"}, {label: "empty", sql: "''"}}},
	{name: `"char"`, exact: true, ordinary: []string{"'x'", "'\"'"}, special: []special{{label: "empty", sql: "''"}, {label: "byte above 127", sql: "'é'", since: 15}}},
	{name: "name", exact: true, ordinary: []string{"'plain'", oddText + "::varchar(20)::name"}, special: []special{{label: "empty", sql: "''"}}},
	{name: "bytea", exact: true, ordinary: []string{`'\xdeadbeef'`}, special: []special{
		{label: "empty", sql: "''"}, {label: "zero bytes", sql: `'\x000100'`}, {label: "1 MiB", sql: `decode(repeat('00ff', 524288), 'hex')`}}},
	{name: "json", exact: true, ordinary: []string{`'{"a": [1, 2, {"b": null}]}'`, `'"text"'`}, special: []special{
		{label: "JSON null", sql: "'null'", inJSON: "NULL"}, {label: "white space", sql: `'{ "a" :   [ ] }'`}, {label: "line breaks between tokens", sql: `E'{\n"a":\r\n1}'`, inJSON: `{ "a":  1}`}, {label: "duplicate keys", sql: `'{"a":1,"a":2}'`},
		{label: "huge numbers", sql: `'[123456789012345678901234567890.123456789, 1e400, -0.0]'`}, {label: "Unicode escapes", sql: `'"\u00e4\ud83d\ude00"'`}}},
	{name: "jsonb", exact: true, ordinary: []string{`'{"a": [1, 2, {"b": null}]}'`}, special: []special{
		{label: "JSON null", sql: "'null'", inJSON: "NULL"}, {label: "500 deep", sql: "(repeat('[', 500) || repeat(']', 500))::jsonb"}, {label: "huge numbers", sql: `'[123456789012345678901234567890.123456789, 1e400]'`}}},
	{name: "xml", ordinary: []string{`'<a b="c">d &amp; e</a>'`, "'no element'"}, special: []special{{label: "declaration", sql: `'<?xml version="1.0"?><a/>'`}}},
	{name: "jsonpath", ordinary: []string{`'$.a[*] ? (@ > 1)'`}},
	{name: "tsvector", ordinary: []string{`'fat:2A cat:1B,3 ''o''''clock'''`, "''"}},
	{name: "tsquery", ordinary: []string{`'fat & (cat | !dog) <-> x:*A'`, "''"}},
}

var otherCases = []typeCase{
	{name: "uuid", ordinary: []string{"'00000000-0000-0000-0000-000000000000'", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"}},
	{name: "bit(n)", sql: "bit(5)", exact: true, ordinary: []string{"B'10100'"}},
	{name: "bit varying", exact: true, ordinary: []string{"B'1'", "B'0000000000000000000000000000000000000000000000000000000000000000001'"}, special: []special{{label: "empty", sql: "B''"}}},
	{name: "inet", exact: true, ordinary: []string{"'10.0.0.1'", "'10.0.0.1/8'", "'::1'", "'fe80::1/64'"}},
	{name: "cidr", exact: true, ordinary: []string{"'10.0.0.0/8'", "'10.0.0.1/32'", "'2001:db8::/32'"}},
	{name: "macaddr", ordinary: []string{"'08:00:2b:01:02:03'"}},
	{name: "macaddr8", ordinary: []string{"'08:00:2b:01:02:03:04:05'"}},
	{name: "pg_lsn", ordinary: []string{"'16/B374D848'", "'FFFFFFFF/FFFFFFFF'"}},
	{name: "xid", ordinary: []string{"'4294967295'", "'0'"}},
	{name: "xid8", since: 13, ordinary: []string{"'18446744073709551615'"}},
	{name: "cid", ordinary: []string{"'4294967295'"}},
	{name: "tid", ordinary: []string{"'(4294967295,65535)'"}},
	{name: "regclass", exact: true, ordinary: []string{"'pg_catalog.pg_class'", "'4294967295'", "0"}},
	{name: "regtype", ordinary: []string{"'double precision'", "'integer[]'"}},
	{name: "regproc", ordinary: []string{"'pg_catalog.now'"}},
	{name: "regrole", ordinary: []string{"'postgres'"}},
	{name: "oidvector", ordinary: []string{"'1 4294967295'", "''"}},
	{name: "int2vector", ordinary: []string{"'1 -2 3'", "''"}},
	{name: "txid_snapshot", ordinary: []string{"'10:20:10,14,15'"}},
	{name: "pg_snapshot", since: 13, ordinary: []string{"'10:20:10,14,15'"}},
	{name: "refcursor", ordinary: []string{"'c'"}},
	{name: "aclitem", ordinary: []string{"makeaclitem(10, 10, 'SELECT', true)"}},
}

var geometricCases = []typeCase{
	{name: "point", ordinary: []string{"'(0.1,-2e300)'"}, special: []special{{label: "NaN, infinity", sql: "'(NaN,Infinity)'"}}},
	{name: "line", ordinary: []string{"'{1,-0.1,3}'"}},
	{name: "lseg", ordinary: []string{"'[(0,0.1),(1,1)]'"}},
	{name: "box", ordinary: []string{"'(1,1),(0,0.1)'"}},
	{name: "path", ordinary: []string{"'((0,0),(1,0.1))'", "'[(0,0),(1,1),(2,0)]'"}},
	{name: "polygon", ordinary: []string{"'((0,0),(1,0.1),(1,1))'"}},
	{name: "circle", ordinary: []string{"'<(0.1,0),2>'"}},
}

var rangeCases = []typeCase{
	{name: "int4range", ordinary: []string{"'[1,5)'"}, special: rangeSpecials},
	{name: "int8range", ordinary: []string{"'[1,9223372036854775807)'"}, special: rangeSpecials},
	{name: "numrange", ordinary: []string{"'[1.50,2)'", "'(NaN,NaN)'"}, special: rangeSpecials},
	{name: "tsrange", ordinary: []string{"'[2026-01-01 12:00,infinity)'"}, special: rangeSpecials},
	{name: "tstzrange", ordinary: []string{"'[0044-03-15 12:00+02 BC,2026-01-01 12:00+02)'"}, special: rangeSpecials},
	{name: "daterange", ordinary: []string{"'[2026-01-01,2026-02-01)'"}, special: rangeSpecials},
	{name: "int4multirange", since: 14, ordinary: []string{"'{[1,3),[5,7)}'", "'{}'", "'{(,)}'"}},
	{name: "datemultirange", since: 14, ordinary: []string{"'{[2026-01-01,infinity)}'"}},
}

var rangeSpecials = []special{{label: "empty", sql: "'empty'"}, {label: "unbounded", sql: "'(,)'"}}
