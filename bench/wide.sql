-- Five values of 200,000,000 bytes that neither TOAST nor gzip makes much smaller.
CREATE TABLE wide (id int PRIMARY KEY, body text NOT NULL);
ALTER TABLE wide ALTER body SET STORAGE EXTERNAL;
INSERT INTO wide
SELECT i, repeat((SELECT string_agg(md5(i || '.' || n), '') FROM generate_series(1, 31250) n), 200) FROM generate_series(1, 5) i;
