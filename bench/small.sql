-- 2,000 tables of ten rows.
DO $$
BEGIN
  FOR i IN 1..2000 LOOP
    EXECUTE format('CREATE TABLE small_%s (id int PRIMARY KEY, name text NOT NULL, amount numeric(10,2), at timestamptz)',
      to_char(i, 'FM0000'));
    EXECUTE format('INSERT INTO small_%s SELECT n, md5(n::text), n / 7.0, timestamptz ''2026-01-01 00:00+00'' + n * interval ''1 hour'' FROM generate_series(1, 10) n',
      to_char(i, 'FM0000'));
  END LOOP;
END $$;
