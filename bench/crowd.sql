-- Five times as many tables as are followed, in a database with types of its own. The followed ones lie in a schema of their own.
CREATE SCHEMA followed;
CREATE SCHEMA others;
CREATE PROCEDURE others.fill(n int) LANGUAGE plpgsql AS $$
DECLARE
  place text;
BEGIN
  FOR i IN 1..greatest(n / 10, 1) LOOP
    EXECUTE format('CREATE TYPE others.mood_%s AS ENUM (''sad'', ''ok'', ''glad'')', i);
    EXECUTE format('CREATE DOMAIN others.price_%s AS numeric(12,2) CHECK (value >= 0)', i);
    EXECUTE format('CREATE TYPE others.pair_%s AS (a int, b text)', i);
  END LOOP;
  FOR i IN 1..5 * n LOOP
    place := CASE WHEN i <= n THEN 'followed' ELSE 'others' END;
    EXECUTE format('CREATE TABLE %1$I.t%2$s (id bigint PRIMARY KEY, name text NOT NULL, amount others.price_%3$s, mood others.mood_%3$s, at timestamptz, tags text[]%4$s)',
      place, i, 1 + i % greatest(n / 10, 1), CASE WHEN i > n AND i % 5 = 0 THEN format(', pair others.pair_%s', 1 + i % greatest(n / 10, 1)) ELSE '' END);
    IF i <= n THEN
      EXECUTE format('INSERT INTO followed.t%s SELECT g, md5(g::text), g / 7.0, ''ok'', timestamptz ''2026-01-01 00:00+00'' + g * interval ''1 hour'', array[g::text] FROM generate_series(1, 10) g', i);
    END IF;
    IF i % 100 = 0 THEN
      COMMIT; -- locks
    END IF;
  END LOOP;
END $$;
