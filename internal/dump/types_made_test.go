package dump_test

// Types made of others: arrays, enums, domains, composites, and what extensions bring.

var arraySpecials = []special{
	{label: "empty array", sql: "'{}'"}, {label: "NULL elements", sql: "'{NULL}'"},
}

// shapes are the arrays that typed columns have no place for.
func shapes(two, lower string) []special {
	return append([]special{
		{label: "more dimensions than declared", sql: two, class: "array"},
		{label: "lower bound other than 1", sql: lower, class: "array"},
	}, arraySpecials...)
}

var arrayCases = []typeCase{
	{name: "integer[]", ordinary: []string{"'{1,-2,NULL,3}'"}, special: shapes("'{{1,2},{3,4}}'", "'[0:1]={1,2}'")},
	{name: "integer[][] (declared)", sql: "integer[][]", ordinary: []string{"'{{1,NULL},{3,4}}'"}, special: []special{
		{label: "empty array", sql: "'{}'"}, {label: "fewer dimensions than declared", sql: "'{1,2}'", class: "array"},
		{label: "lower bound other than 1", sql: "'[1:1][-2:-1]={{1,2}}'", class: "array"}}},
	{name: "integer[][][] (declared)", sql: "integer[][][]", ordinary: []string{"'{{{1,2},{3,4}},{{5,6},{NULL,8}}}'"}},
	{name: "boolean[]", ordinary: []string{"'{t,f,NULL}'"}, special: arraySpecials},
	{name: "smallint[]", ordinary: []string{"'{1,NULL,-32768}'"}, special: arraySpecials},
	{name: "bigint[]", ordinary: []string{"'{1,NULL,-9223372036854775808}'"}, special: arraySpecials},
	{name: "real[]", ordinary: []string{"'{0.1,NaN,-Infinity,-0}'"}},
	{name: "double precision[]", ordinary: []string{"'{0.1,NaN,-Infinity,5e-324}'"}},
	{name: "numeric(10,2)[]", exact: true, ordinary: []string{"'{1.50,NULL,-99999999.99}'"}, special: []special{{label: "NaN element", sql: "'{1.50,NaN}'", class: "numeric", null: "{1.50,NULL}", clamp: "{1.50,NULL}"}}},
	{name: "numeric[]", ordinary: []string{"'{1.50,NaN,1e-30}'"}, special: arraySpecials},
	{name: "money[]", ordinary: []string{"array[1.5::money, NULL]"}},
	{name: "text[]", ordinary: []string{`array['a "b" \ {c},d', '', NULL, 'NULL', E'\n\t']`}, special: shapes("'{{a,b},{c,d}}'", "'[5:5]={a}'")},
	{name: "text[][] (declared)", sql: "text[][]", ordinary: []string{`array[['{"a"}', NULL], ['', 'd']]`}},
	{name: "character(3)[]", ordinary: []string{"'{a,abc}'"}},
	{name: "bytea[]", ordinary: []string{`array['\x00ff'::bytea, '', NULL]`}},
	{name: "date[]", ordinary: []string{"'{2026-01-01,NULL,0044-03-15 BC}'"}, special: []special{
		{label: "infinity element", sql: "'{infinity,2026-01-01}'", class: "date", null: "{NULL,2026-01-01}", clamp: "{9999-12-31,2026-01-01}"}}},
	{name: "timestamp with time zone[]", ordinary: []string{"'{2026-01-01 12:00+01,NULL}'"}, special: []special{
		{label: "infinity element", sql: "'{-infinity}'", class: "timestamptz", null: "{NULL}", clamp: `{"0001-01-01 00:00:00+00"}`}}},
	{name: "time[]", ordinary: []string{"'{12:00,NULL}'"}},
	{name: "interval[]", ordinary: []string{"'{1 day,-00:00:01,NULL}'"}},
	{name: "uuid[]", ordinary: []string{"'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,NULL}'"}},
	{name: "json[]", ordinary: []string{`array['{"a": [1]}'::json, NULL]`}},
	{name: "jsonb[]", ordinary: []string{`array['{"a": [1]}'::jsonb, NULL]`}},
	{name: "inet[]", exact: true, ordinary: []string{"'{10.0.0.1,10.0.0.1/8,NULL}'::inet[]"}},
	{name: "box[]", ordinary: []string{"'{(1,1),(0,0);(2,2),(0.1,0)}'"}, special: arraySpecials},
	{name: "point[]", ordinary: []string{`'{"(1,2)","(0.1,0)"}'`}},
	{name: "int4range[]", ordinary: []string{`'{"[1,2)",empty}'`}},
	{name: "regclass[]", ordinary: []string{"'{pg_catalog.pg_class}'"}},
}

var madeCases = []typeCase{
	{name: "enum", sql: "public.mood", exact: true, setup: `create type public.mood as enum ('sad', 'it''s "ok", {fine}', 'ä')`,
		ordinary: []string{"'sad'", `'it''s "ok", {fine}'`, "'ä'"}},
	{name: "enum[]", sql: "public.mood[]", ordinary: []string{`array['sad', 'it''s "ok", {fine}', NULL]::public.mood[]`}},
	{name: "domain over integer", sql: "public.d_int", setup: "create domain public.d_int as integer check (value > 0)", ordinary: []string{"1"}},
	{name: "domain over numeric(p,s)", sql: "public.d_num", exact: true, setup: "create domain public.d_num as numeric(12,4)", ordinary: []string{"1.5", "-99999999.9999"},
		special: []special{{label: "NaN", sql: "'NaN'", class: "numeric"}}},
	{name: "domain over a domain", sql: "public.d_num2", exact: true, setup: "create domain public.d_num2 as public.d_num default 1", ordinary: []string{"1.5"}},
	{name: "domain over text", sql: "public.d_text", exact: true, setup: "create domain public.d_text as text", ordinary: []string{"''", oddText}},
	{name: "domain over date", sql: "public.d_date", setup: "create domain public.d_date as date", ordinary: []string{"'2026-01-01'"}, special: []special{
		{label: "infinity", sql: "'infinity'", class: "date", clamp: "9999-12-31"}}},
	{name: "domain over an array", sql: "public.d_ints", setup: "create domain public.d_ints as integer[]", ordinary: []string{"'{1,NULL}'"}, special: shapes("'{{1}}'", "'[0:0]={1}'")},
	{name: "domain over integer[][]", sql: "public.d_grid", setup: "create domain public.d_grid as integer[][]", ordinary: []string{"'{{1,2},{NULL,4}}'"}},
	{name: "domain over an enum", sql: "public.d_mood", exact: true, setup: "create domain public.d_mood as public.mood", ordinary: []string{"'sad'"}},
	{name: "domain over a composite", sql: "public.d_pair", setup: "create type public.pair as (a integer, b text); create domain public.d_pair as public.pair", ordinary: []string{"row(1, 'x')::public.pair"}},
	{name: "domain over jsonb", sql: "public.d_json", exact: true, setup: "create domain public.d_json as jsonb", ordinary: []string{`'{"a": 1}'`}},
	{name: "domain[]", sql: "public.d_num[]", exact: true, ordinary: []string{"'{1.5000,NULL}'"}},
	{name: "array of a domain over an array", sql: "public.d_ints[]", ordinary: []string{`'{"{1,2}","{3}"}'`}},
	{name: "array of a domain over inet[]", sql: "public.d_inets[]", setup: "create domain public.d_inets as inet[]", ordinary: []string{`'{"{10.0.0.1}"}'`}},
	{name: "composite", sql: "public.pair", ordinary: []string{"row(1, 'x')", `row(NULL, 'a "b", (c) \ ')`, "row(NULL, '')"}, special: []special{{label: "all fields NULL", sql: "row(NULL, NULL)"}}},
	{name: "composite, nested, with arrays", sql: "public.deep", setup: "create type public.deep as (p public.pair, l integer[], d date, f double precision)",
		ordinary: []string{`row(row(1, 'x'), '{1,NULL}', 'infinity', 'NaN')`, "row(NULL, NULL, NULL, NULL)", `row(row(2, '[0:1]'), '{}', '0044-03-15 BC', 0.1)`}, special: []special{
			{label: "array with a lower bound other than 1 inside", sql: "row(NULL, '[0:1]={1,2}', NULL, 1)"}}},
	{name: "composite[]", sql: "public.pair[]", ordinary: []string{`array[row(1, 'a "b", {c}')::public.pair, row(NULL, NULL)::public.pair, NULL]`}, special: []special{{label: "empty array", sql: "'{}'"}}},
	{name: "range of one's own", sql: "public.textrange", setup: "create type public.textrange as range (subtype = text)", ordinary: []string{`'["a, b","c""d")'`, "'empty'"}},
}

var extensionCases = []typeCase{
	{name: "citext", sql: "public.citext", needs: "citext", exact: true, ordinary: []string{"'MiXeD'", "''"}},
	{name: "hstore", sql: "public.hstore", needs: "hstore", ordinary: []string{`'a=>1, "b c"=>"d\"e", n=>NULL'`, "''"}},
	{name: "ltree", sql: "public.ltree", needs: "ltree", ordinary: []string{"'Top.Science.Astronomy'", "''"}},
	{name: "PostGIS geometry", sql: "public.geometry", needs: "postgis", ordinary: []string{"'POINT(1 2)'", "'SRID=4326;LINESTRING(0.1234567890123456 1, 2 3)'", "'SRID=3857;POINT ZM(1 2 3 4)'"}, special: []special{
		{label: "empty", sql: "'POINT EMPTY'"}}},
	{name: "PostGIS geometry(Point,4326)", sql: "public.geometry(Point,4326)", needs: "postgis", ordinary: []string{"'SRID=4326;POINT(0.1234567890123456 2)'"}},
	{name: "PostGIS geography", sql: "public.geography", needs: "postgis", ordinary: []string{"'POINT(-71.0123456789012345 42)'"}},
	{name: "PostGIS geometry[]", sql: "public.geometry[]", needs: "postgis", ordinary: []string{"array['POINT(0.1234567890123456 2)'::public.geometry, NULL]"}},
}
