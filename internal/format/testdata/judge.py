"""Reads Parquet files with pyarrow and DuckDB and holds them against the same rows in Arrow IPC files.

Usage: judge.py types FILE.parquet FILE.arrow | judge.py shop FILE.parquet FILE.arrow | judge.py bare FILE.parquet ROWS
Prints each difference on a line; no line means that all is well.
"""
import sys

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq


def complain(*words):
    print(*words)


def plain(t):
    """The type to compare in: times by their numbers, since Python's datetime is narrower."""
    if pa.types.is_list(t) or pa.types.is_large_list(t):
        return pa.list_(plain(t.value_type))
    if pa.types.is_timestamp(t) or pa.types.is_time64(t):
        return pa.int64()
    if pa.types.is_date32(t) or pa.types.is_time32(t):
        return pa.int32()
    return t


def comparable(column):
    """Python values that compare exactly; repr keeps NaN and the sign of zero apart."""
    t = column.type
    if isinstance(t, pa.BaseExtensionType):
        column = pa.chunked_array([c.storage for c in column.chunks], type=t.storage_type)
    elif plain(t) != t:
        column = column.cast(plain(t))
    return [repr(v) for v in column.to_pylist()]


def same_values(parquet, ipc):
    table = pq.read_table(parquet, page_checksum_verification=True)
    if table.num_rows != ipc.num_rows or table.column_names != ipc.column_names:
        complain("shape", table.shape, ipc.shape)
        return
    for name in ipc.column_names:
        got, want = table[name], ipc[name]
        for row, (g, w) in enumerate(zip(comparable(got), comparable(want))):
            if g != w:
                complain("pyarrow", name, "row", row, "read", g[:200], "wrote", w[:200])
                break


def exactness(parquet):
    """By row group and column, whether the bounds are whole; DuckDB's word, and only where it can show every bound."""
    return {
        (g, c): (lo, hi)
        for g, c, lo, hi in duckdb.connect()
        .execute(f"SELECT row_group_id, column_id, min_is_exact, max_is_exact FROM parquet_metadata('{parquet}')")
        .fetchall()
    }


def statistics(parquet, exact):
    """Holds each chunk's statistics against its values."""
    f = pq.ParquetFile(parquet)
    for g in range(f.metadata.num_row_groups):
        rows = f.read_row_group(g)
        for i in range(f.metadata.num_columns):
            chunk = f.metadata.row_group(g).column(i)
            name = chunk.path_in_schema
            if not chunk.has_offset_index:
                complain("no offset index", name)
            if name not in rows.column_names:
                continue
            values = rows[name]
            s = chunk.statistics
            if s.null_count != values.null_count:
                complain("null_count", name, s.null_count, values.null_count)
            if pa.types.is_null(values.type):
                continue
            if isinstance(values.type, pa.BaseExtensionType):
                values = pa.chunked_array([c.storage for c in values.chunks], type=values.type.storage_type)
            extremes(name, values, s, chunk, exact.get((g, i)))


def extremes(name, values, s, chunk, exact):
    known = values.drop_null()
    if pa.types.is_floating(values.type) and pc.any(pc.is_nan(known)).as_py():
        if s.has_min_max:  # readers would skip the NaN, which is above all numbers
            complain("bounds beside a NaN", name)
        return
    if pa.types.is_fixed_size_binary(values.type):
        known = known.cast(pa.binary())
    if len(known) == 0:
        if s.has_min_max:
            complain("bounds without values", name)
        return
    if not s.has_min_max or not chunk.has_column_index:
        complain("no bounds", name, s.has_min_max, chunk.has_column_index)
        return
    lo, hi = (known.sort(order=o)[0] for o in ("ascending", "descending"))
    if pa.types.is_timestamp(lo.type) or pa.types.is_time(lo.type) or pa.types.is_date(lo.type):
        wide = pa.int32() if lo.type.bit_width == 32 else pa.int64()
        lo, hi = lo.cast(wide).as_py(), hi.cast(wide).as_py()
        got = s.min_raw, s.max_raw
    else:
        lo, hi = lo.as_py(), hi.as_py()
        got = s.min, s.max
        if isinstance(lo, str) and isinstance(got[0], bytes):
            got = got[0].decode(), got[1].decode()
        if isinstance(lo, str):  # Python compares characters, Parquet bytes; the order is the same
            lo, hi, got = lo.encode(), hi.encode(), (got[0].encode(), got[1].encode())
        if pa.types.is_decimal(values.type):
            lo, hi = str(lo), str(hi)
            got = str(got[0]), str(got[1])
    if isinstance(lo, bytes) and max(len(lo), len(hi)) > 64:
        low = got[0] == lo if len(lo) <= 64 else got[0] <= lo and lo.startswith(got[0]) and len(got[0]) > 60
        high = got[1] == hi if len(hi) <= 64 else got[1] > hi and 40 < len(got[1]) <= 65
        if not low or not high or exact and exact != (len(lo) <= 64, len(hi) <= 64):
            complain("cut bounds", name, got, lo, hi)
    elif repr(got) != repr((lo, hi)) and got != (lo, hi):
        complain("bounds", name, "say", got, "values say", (lo, hi))


def quoted(v):
    return "'" + str(v).replace("'", "''") + "'"


def same_filters(con, name, kind):
    """Asks the file, which skips by statistics, and a table made from IPC, which does not know them."""
    samples = [r[0] for r in con.execute(f'SELECT DISTINCT "{name}"::VARCHAR FROM ipc WHERE "{name}" IS NOT NULL ORDER BY hash(1) LIMIT 6').fetchall()]
    samples += [r[0] for r in con.execute(f'SELECT min("{name}")::VARCHAR FROM ipc UNION ALL SELECT max("{name}")::VARCHAR FROM ipc').fetchall()]
    conditions = [f'"{name}" IS NULL', f'"{name}" IS NOT NULL']
    for v in samples:
        if v is None:
            continue
        literal = f"CAST({quoted(v)} AS {kind})"
        conditions += [f'"{name}" {op} {literal}' for op in ("=", "<", "<=", ">", ">=", "<>")]
    if kind == "VARCHAR":
        conditions += [f'"{name}" LIKE \'{p}%\'' for p in ("ca", "fu", "value", "zz")]
    for c in conditions:
        got, want = (con.execute(f"SELECT count(*) FROM {t} WHERE {c}").fetchone()[0] for t in ("file", "ipc"))
        if got != want:
            complain("duckdb", c, "finds", got, "rows in the file and", want, "in the rows written")


def bloom(con, parquet):
    """A value that is there must never be excluded, one that is not nearly always."""
    for name, kind in con.execute("SELECT column_name, column_type FROM (DESCRIBE ipc) WHERE column_name LIKE 'bloom%'").fetchall():
        there = [r[0] for r in con.execute(f'SELECT DISTINCT "{name}" FROM ipc WHERE "{name}" IS NOT NULL ORDER BY hash("{name}") LIMIT 40').fetchall()]
        for v in there:
            groups = con.execute(f"SELECT bloom_filter_excludes FROM parquet_bloom_probe('{parquet}', '{name}', {quoted(v)}::{kind})").fetchall()
            if all(g[0] for g in groups):
                complain("the bloom filter hides", name, v)
        missing = [("nowhere %d" % i) if kind == "VARCHAR" else 10**9 + i for i in range(100)]
        excluded = total = 0
        for v in missing:
            for (e,) in con.execute(f"SELECT bloom_filter_excludes FROM parquet_bloom_probe('{parquet}', '{name}', {quoted(v)}::{kind})").fetchall():
                excluded, total = excluded + e, total + 1
        if total == 0 or excluded < 0.95 * total:
            complain("the bloom filter of", name, "excludes", excluded, "of", total)


def types(parquet, ipc):
    same_values(parquet, ipc)
    statistics(parquet, {})


def shop(parquet, ipc):
    same_values(parquet, ipc)
    statistics(parquet, exactness(parquet))
    con = duckdb.connect()
    con.execute("SET timezone = 'UTC'")
    con.register("arrow_rows", ipc)
    con.execute("CREATE TABLE ipc AS SELECT * FROM arrow_rows")
    con.execute(f"CREATE VIEW file AS SELECT * FROM '{parquet}'")
    for a, b in (("file", "ipc"), ("ipc", "file")):
        rows = con.execute(f"SELECT count(*) FROM (SELECT * FROM {a} EXCEPT ALL SELECT * FROM {b})").fetchone()[0]
        if rows:
            complain("duckdb:", rows, "rows of", a, "are not in", b)
    for name, kind in con.execute("SELECT column_name, column_type FROM (DESCRIBE ipc)").fetchall():
        if "[" not in kind and "STRUCT" not in kind and "MAP" not in kind and "BLOB" not in kind:
            same_filters(con, name, kind)
    bloom(con, parquet)


def bare(parquet, rows):
    n = pq.ParquetFile(parquet).metadata.num_rows
    if n != int(rows):
        complain("pyarrow counts", n, "rows, not", rows)
    t = pq.read_table(parquet)
    if t.num_columns == 0 and t.num_rows != int(rows):
        complain("pyarrow reads", t.num_rows, "rows, not", rows)
    if t.num_columns:
        n = duckdb.connect().execute(f"SELECT count(*) FROM '{parquet}'").fetchone()[0]
        if n != int(rows):
            complain("duckdb counts", n, "rows, not", rows)


def main():
    verb, parquet, other = sys.argv[1:]
    if verb == "bare":
        return bare(parquet, other)
    with pa.ipc.open_file(other) as f:
        {"types": types, "shop": shop}[verb](parquet, f.read_all())


main()
