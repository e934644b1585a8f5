-- Tables that change all the time, and the work that changes them.
CREATE SCHEMA soak;
CREATE SCHEMA work;

-- make(i) is a new table of 200 rows. Its column n is for definitions that change; the work leaves it alone.
CREATE PROCEDURE work.make(i int) LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('CREATE TABLE soak.t%s (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, version int NOT NULL DEFAULT 1, n int DEFAULT 7,
    amount numeric(12,2) NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp(), note text)', i);
  EXECUTE format('INSERT INTO soak.t%s (amount, note) SELECT g / 7.0, ''note '' || g FROM generate_series(1, 200) g', i);
END $$;

-- change(i) is one transaction on table i: a row comes, five get their next version, one goes. Ids never come back.
CREATE PROCEDURE work.change(i int) LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('INSERT INTO soak.t%s (amount, note) VALUES (random() * 1000, repeat(md5(random()::text), (random() * 5)::int))', i);
  EXECUTE format('UPDATE soak.t%1$s SET version = version + 1, amount = random() * 1000, at = clock_timestamp(),
    note = CASE WHEN random() < 0.9 THEN md5(random()::text) END WHERE id IN (SELECT id FROM soak.t%1$s ORDER BY random() LIMIT 5)', i);
  EXECUTE format('DELETE FROM soak.t%1$s WHERE id = (SELECT id FROM soak.t%1$s ORDER BY random() LIMIT 1)', i);
END $$;
