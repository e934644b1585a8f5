-- The shop of the demo: about 330,000 rows, each value made from its key, so that every run has the same.

-- pick(key, salt, n) is a number from 0 to n-1 that looks random and is not.
CREATE FUNCTION pick(key bigint, salt int, n bigint) RETURNS bigint LANGUAGE sql IMMUTABLE
  AS $$ SELECT (hashint8extended(key, salt) & 9223372036854775807) % n $$;

CREATE TYPE category AS ENUM ('books', 'garden', 'kitchen', 'music', 'toys');
CREATE TYPE order_status AS ENUM ('new', 'paid', 'shipped', 'returned');

CREATE TABLE customers (
  id         int PRIMARY KEY,
  uid        uuid NOT NULL UNIQUE,
  name       text NOT NULL,
  email      text NOT NULL,
  country    char(2) NOT NULL,
  signed_up  timestamptz NOT NULL,
  last_seen  inet,
  credit     numeric(12,2) NOT NULL,
  newsletter boolean NOT NULL
);
INSERT INTO customers
SELECT i, md5('customer' || i)::uuid,
  (ARRAY['Ada','Zoë','José','Björn','Đorđe','Эмма','美咲','سلمى'])[1 + pick(i, 1, 8)] || ' ' ||
  (ARRAY['Smith','Müller','Núñez','Ōta','Østergård','Иванова','王','O''Neil'])[1 + pick(i, 2, 8)],
  'c' || i || '@example.com', (ARRAY['CH','DE','ES','JP','NO','US'])[1 + pick(i, 3, 6)],
  timestamptz '2024-01-01 00:00+00' + pick(i, 4, 63072000) * interval '1 second',
  CASE WHEN pick(i, 5, 4) > 0 THEN ('10.' || pick(i, 6, 256) || '.' || pick(i, 7, 256) || '.' || pick(i, 8, 256))::inet END,
  (pick(i, 9, 2000000) - 500000) / 100.0, pick(i, 10, 3) = 0
FROM generate_series(1, 20000) i;

CREATE TABLE products (
  id         int PRIMARY KEY,
  title      text NOT NULL,
  category   category NOT NULL,
  price      numeric(10,2) NOT NULL,
  tags       text[] NOT NULL,
  attributes jsonb NOT NULL,
  weight_kg  real,
  on_sale    daterange NOT NULL,
  photo      bytea
);
INSERT INTO products
SELECT i, initcap((ARRAY['small','große','très grande','tiny','plain'])[1 + pick(i, 1, 5)] || ' ' ||
    (ARRAY['kettle','ukulele','rake','atlas','robot','spoon'])[1 + pick(i, 2, 6)]) || ' №' || i,
  (enum_range(NULL::category))[1 + pick(i, 3, 5)], (99 + pick(i, 4, 99900)) / 100.0,
  (ARRAY['new','gift','eco','sale','last one'])[1 : pick(i, 5, 6)::int],
  jsonb_build_object('colour', (ARRAY['red','green','blue'])[1 + pick(i, 6, 3)],
    'size', jsonb_build_array(pick(i, 7, 90), pick(i, 8, 90), pick(i, 9, 90)), 'refurbished', pick(i, 10, 9) = 0),
  CASE WHEN pick(i, 11, 10) > 0 THEN pick(i, 12, 90000) / 1000.0 END,
  daterange(date '2024-01-01' + pick(i, 13, 365)::int, CASE WHEN pick(i, 14, 3) = 0 THEN date '2026-12-31' END),
  CASE WHEN pick(i, 15, 2) = 0 THEN decode(md5('photo' || i), 'hex') END
FROM generate_series(1, 2000) i;

CREATE TABLE orders (
  id          int NOT NULL,
  ordered_at  timestamptz NOT NULL,
  customer_id int NOT NULL,
  status      order_status NOT NULL,
  total       numeric(12,2) NOT NULL,
  delivery    tstzrange,
  PRIMARY KEY (id, ordered_at)
) PARTITION BY RANGE (ordered_at);
CREATE TABLE orders_2026_01 PARTITION OF orders FOR VALUES FROM ('2026-01-01 00:00+00') TO ('2026-02-01 00:00+00');
CREATE TABLE orders_2026_02 PARTITION OF orders FOR VALUES FROM ('2026-02-01 00:00+00') TO ('2026-03-01 00:00+00');
CREATE TABLE orders_2026_03 PARTITION OF orders FOR VALUES FROM ('2026-03-01 00:00+00') TO ('2026-04-01 00:00+00');
CREATE TABLE orders_2026_04 PARTITION OF orders FOR VALUES FROM ('2026-04-01 00:00+00') TO ('2026-05-01 00:00+00');
INSERT INTO orders
SELECT i, at, 1 + pick(i, 2, 20000), (enum_range(NULL::order_status))[1 + pick(i, 3, 4)], (500 + pick(i, 4, 90000)) / 100.0,
  CASE WHEN pick(i, 5, 5) > 0 THEN tstzrange(at + interval '1 day', at + (2 + pick(i, 6, 9)) * interval '1 day') END
FROM (SELECT i, timestamptz '2026-01-01 00:00+00' + pick(i, 1, 120 * 86400) * interval '1 second' AS at
      FROM generate_series(1, 60000) i) o;

CREATE TABLE order_items (
  order_id   int NOT NULL,
  line       smallint NOT NULL,
  product_id int NOT NULL REFERENCES products,
  quantity   smallint NOT NULL,
  unit_price numeric(10,2) NOT NULL,
  discount   numeric(4,3) NOT NULL,
  gift_note  varchar(80)
);
INSERT INTO order_items
SELECT o, n, 1 + pick(o * 8 + n, 1, 2000), 1 + pick(o * 8 + n, 2, 9), (99 + pick(o * 8 + n, 3, 99900)) / 100.0,
  pick(o * 8 + n, 4, 300) / 1000.0, CASE WHEN pick(o * 8 + n, 5, 20) = 0 THEN 'for you 🎁 from ' || o END
FROM generate_series(1::bigint, 60000) o, LATERAL generate_series(1, 1 + pick(o, 6, 6)::int) n;
ALTER TABLE order_items ADD PRIMARY KEY (order_id, line);

CREATE TABLE inventory (
  warehouse  text NOT NULL,
  product_id int NOT NULL REFERENCES products,
  on_hand    int NOT NULL,
  shelves    int4range,
  counted_at timestamp,
  PRIMARY KEY (warehouse, product_id)
);
INSERT INTO inventory
SELECT w, p, pick(p, ascii(w), 500), int4range(pick(p, 2, 40)::int, 41 + pick(p, 3, 40)::int),
  CASE WHEN pick(p, 4, 8) > 0 THEN timestamp '2026-04-30 20:00' - pick(p, 5, 2000) * interval '1 minute' END
FROM unnest(ARRAY['Zürich','Kraków','大阪']) w, generate_series(1, 2000) p;

CREATE TABLE reviews (
  id         int PRIMARY KEY,
  product_id int NOT NULL,
  stars      smallint NOT NULL CHECK (stars BETWEEN 1 AND 5),
  body       text,
  written_at timestamptz NOT NULL
);
INSERT INTO reviews
SELECT i, 1 + pick(i, 1, 2000), 1 + pick(i, 2, 5),
  (ARRAY['Très bien, merci!', 'Would buy again 👍', 'とても良い。', 'Очень хорошо', 'Said "ok",' || chr(10) || 'was not', '', NULL])[1 + pick(i, 3, 7)]
    || repeat(' ' || md5(i::text), pick(i, 4, 6)::int),
  timestamptz '2026-01-01 00:00+00' + pick(i, 5, 10000000) * interval '1 second'
FROM generate_series(1, 30000) i;

-- What the data team must not get: the demo's --exclude leaves it out.
CREATE TABLE audit_log (at timestamptz NOT NULL, who text NOT NULL, did text NOT NULL);
INSERT INTO audit_log SELECT timestamptz '2026-01-01 00:00+00' + i * interval '1 minute', 'clerk' || pick(i, 1, 9), 'looked at customer ' || pick(i, 2, 20000)
FROM generate_series(1, 20000) i;

CREATE VIEW sales_by_month AS
  SELECT date_trunc('month', ordered_at AT TIME ZONE 'UTC')::date AS month, status, count(*) AS orders, sum(total) AS revenue
  FROM orders GROUP BY 1, 2;

DROP FUNCTION pick;

-- The role of the dump: it may read what it is given, and REPLICATION lets it ask for the exact position in the log.
GRANT SELECT ON customers, products, orders, orders_2026_01, orders_2026_02, orders_2026_03, orders_2026_04,
  order_items, inventory, reviews, sales_by_month TO app;
ANALYZE;
