-- A table whose rows change, and the work that changes them.
CREATE TABLE ledger (
  id         bigint        PRIMARY KEY,
  account    int           NOT NULL,
  kind       text          NOT NULL,
  amount     numeric(12,2) NOT NULL,
  quantity   int           NOT NULL,
  note       text,
  created_at timestamptz   NOT NULL,
  updated_at timestamptz   NOT NULL
);

-- entries(first, last) are the rows with these keys. They are the same on every machine.
CREATE FUNCTION entries(first bigint, last bigint) RETURNS SETOF ledger LANGUAGE sql IMMUTABLE AS $$
  SELECT i, (i * 7919 % 100000)::int, (ARRAY['sale', 'refund', 'transfer', 'fee'])[1 + i % 4], (i * 31 % 1000000) / 100.0,
    1 + (i % 50)::int, CASE WHEN i % 5 > 0 THEN 'note on entry ' || i * 104729 % 1000003 END,
    timestamptz '2026-01-01 00:00+00' + i * interval '1 second', timestamptz '2026-01-01 00:00+00' + i * interval '1 second'
  FROM generate_series(first, last) i
$$;

-- spread(i, n) goes over all of 1..n before it comes to a number again, and jumps widely.
CREATE FUNCTION spread(i bigint, n bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT 1 + i * 2654435761 % n $$;

-- work(first, last, n, width) makes the changes with these numbers to a table of n rows, in transactions of so many:
-- two updates, a delete and an insert in turn, each of a key of its own.
CREATE PROCEDURE work(first bigint, last bigint, n bigint, width int) LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN first..last LOOP
    CASE i % 4
    WHEN 2 THEN
      DELETE FROM ledger WHERE id = spread(i, n);
    WHEN 3 THEN
      INSERT INTO ledger SELECT * FROM entries(n + i, n + i);
    ELSE
      UPDATE ledger SET amount = amount + 1, updated_at = updated_at + interval '1 day' WHERE id = spread(i, n);
    END CASE;
    IF (i - first) % width = width - 1 THEN
      COMMIT;
    END IF;
  END LOOP;
END $$;
