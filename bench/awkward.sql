-- 100,000 rows of types that other programs get wrong, with NULLs in each column. No value in it is one that a file of Parquet has no place for.
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE awkward (id bigint PRIMARY KEY, n38 numeric(38,10), n numeric, ts timestamptz, u uuid, j jsonb, ta text[], b bytea, e mood, c char(12));
INSERT INTO awkward
SELECT i,
  CASE WHEN i % 11 = 0 THEN NULL
       WHEN i % 1000 = 1 THEN (CASE WHEN i % 2 = 0 THEN -1 ELSE 1 END) * 9999999999999999999999999999.0123456789 + 0.0000000001 * (i % 10)
       ELSE (h % 1000000000000000)::numeric / 1000000 + (h % 9999)::numeric / 10000000000 END,
  CASE WHEN i % 13 = 0 THEN NULL
       WHEN i % 1000 = 2 THEN 123456789012345678901234567890123456789012345.678901234567890123456789 + i
       WHEN i % 1000 = 4 THEN 'NaN'
       WHEN i % 10 = 3 THEN i::numeric / 7
       ELSE (h % 100000)::numeric / 1000 END,
  CASE WHEN i % 17 = 0 THEN NULL
       WHEN i % 10000 = 3 THEN timestamptz '9999-12-31 23:59:59.999999+00'
       WHEN i % 10000 = 4 THEN timestamptz '1500-03-01 12:00:00.000001+00'
       ELSE timestamptz '2020-01-01 00:00:00+00' + (h % 157680000000) * interval '1 ms' + (i % 1000) * interval '1 microsecond' END,
  CASE WHEN i % 19 = 0 THEN NULL ELSE md5(i::text)::uuid END,
  CASE WHEN i % 23 = 0 THEN NULL
       ELSE jsonb_build_object('id', i, 'big', 12345678901234567890::numeric + i, 'f', (h % 1000)::numeric / 8, 's', 'zoë "q" \ ' || i,
                               'a', jsonb_build_array(1, NULL, true, i % 5)) END,
  CASE WHEN i % 29 = 0 THEN NULL WHEN i % 7 = 0 THEN '{}'::text[] ELSE ARRAY['a' || (i % 100), NULL, 'with "quote", comma', ''] END,
  CASE WHEN i % 31 = 0 THEN NULL ELSE decode(md5(i::text) || '00ff', 'hex') END,
  CASE WHEN i % 37 = 0 THEN NULL ELSE (ARRAY['sad', 'ok', 'happy'])[1 + i % 3]::mood END,
  CASE WHEN i % 41 = 0 THEN NULL ELSE 'c' || (i % 1000) END
FROM (SELECT i, hashint8extended(i, 1) & 9223372036854775807 AS h FROM generate_series(1, 100000) i) x;
-- Each column beside the key alone, for programs that fail at the whole.
DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['n38', 'n', 'ts', 'u', 'j', 'ta', 'b', 'e', 'c'] LOOP
    EXECUTE format('CREATE TABLE awkward_%1$s AS SELECT id, %1$I FROM awkward', name);
    EXECUTE format('ALTER TABLE awkward_%1$s ADD PRIMARY KEY (id)', name);
  END LOOP;
END $$;
