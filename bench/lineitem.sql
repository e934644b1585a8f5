-- A table with the 16 columns of TPC-H's lineitem, their kinds of values and about their widths: 158 bytes of heap
-- a row. The values are not dbgen's: each is a hash of the row's number, so that every machine has the same.

-- pick(key, salt, n) is a number from 0 to n-1.
CREATE FUNCTION pick(key bigint, salt int, n int) RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE
  AS $$ SELECT ((hashint8extended(key, salt) & 9223372036854775807) % n)::int $$;

CREATE TABLE lineitem (
  l_orderkey      bigint        NOT NULL,
  l_partkey       int           NOT NULL,
  l_suppkey       int           NOT NULL,
  l_linenumber    int           NOT NULL,
  l_quantity      numeric(15,2) NOT NULL,
  l_extendedprice numeric(15,2) NOT NULL,
  l_discount      numeric(15,2) NOT NULL,
  l_tax           numeric(15,2) NOT NULL,
  l_returnflag    char(1)       NOT NULL,
  l_linestatus    char(1)       NOT NULL,
  l_shipdate      date          NOT NULL,
  l_commitdate    date          NOT NULL,
  l_receiptdate   date          NOT NULL,
  l_shipinstruct  char(25)      NOT NULL,
  l_shipmode      char(10)      NOT NULL,
  l_comment       varchar(44)   NOT NULL
);

-- fill(first, last) adds the rows with these numbers: four a order, keys with gaps as dbgen has them.
CREATE PROCEDURE fill(first bigint, last bigint) LANGUAGE sql AS $$
  INSERT INTO lineitem
  SELECT (i / 32) * 32 + (i / 4) % 8 + 1, part, 1 + (part + pick(i, 2, 4) * 2501) % 10000, i % 4 + 1,
    quantity, quantity * (90000 + (part / 10) % 20001 + 100 * (part % 1000)) / 100.0, pick(i, 4, 11) / 100.0, pick(i, 5, 9) / 100.0,
    CASE WHEN received > date '1995-06-17' THEN 'N' WHEN pick(i, 6, 2) = 0 THEN 'R' ELSE 'A' END,
    CASE WHEN shipped > date '1995-06-17' THEN 'O' ELSE 'F' END,
    shipped, ordered + 30 + pick(i, 7, 61), received,
    (ARRAY['DELIVER IN PERSON', 'COLLECT COD', 'NONE', 'TAKE BACK RETURN'])[1 + pick(i, 8, 4)],
    (ARRAY['REG AIR', 'AIR', 'RAIL', 'SHIP', 'TRUCK', 'MAIL', 'FOB'])[1 + pick(i, 9, 7)],
    left(word[1 + pick(i, 10, 16)] || ' ' || word[1 + pick(i, 11, 16)] || ' ' || word[1 + pick(i, 12, 16)] || ' ' ||
         word[1 + pick(i, 13, 16)] || ' ' || word[1 + pick(i, 14, 16)] || ' ' || word[1 + pick(i, 15, 16)], 10 + pick(i, 16, 34))
  FROM (SELECT i, 1 + pick(i, 1, 200000) AS part, 1 + pick(i, 3, 50) AS quantity, ordered, shipped,
               shipped + 1 + pick(i, 18, 30) AS received, word
        FROM (SELECT i, ordered, ordered + 1 + pick(i, 17, 121) AS shipped,
                     ARRAY['furiously', 'carefully', 'quickly', 'slyly', 'bold', 'final', 'pending', 'regular', 'express', 'ironic',
                           'deposits', 'accounts', 'requests', 'packages', 'theodolites', 'foxes'] AS word
              FROM (SELECT i, date '1992-01-01' + pick(i / 4, 19, 2406) AS ordered FROM generate_series(first - 1, last - 1) i) a) b) c
$$;
