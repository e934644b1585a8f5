COPY (SELECT id, n38, n, (extract(epoch FROM ts) * 1000000)::numeric(30, 0) AS ts, u, j, to_json(ta) AS ta, encode(b, 'hex') AS b, e, c
      FROM awkward ORDER BY id) TO STDOUT (FORMAT csv, HEADER, NULL '\N')
