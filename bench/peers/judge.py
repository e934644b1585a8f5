"""judge.py TRUTH OUT COLUMN...: compares columns of the Parquet files below OUT with TRUTH, the same table as PostgreSQL tells it (CSV, NULL as \\N).

Prints one line of JSON: for each column its type in the files, how many of its values are wrong, and one of them.
"""

import csv
import datetime
import decimal
import glob
import json
import sys
import uuid

import pyarrow as pa
import pyarrow.parquet as pq

decimal.getcontext().prec = 2000
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def number(v):
    if isinstance(v, float):
        return decimal.Decimal(repr(v)) if v == v else decimal.Decimal("NaN")
    return decimal.Decimal(text(v))


def same_number(v, truth):
    v, truth = number(v), decimal.Decimal(truth)
    return v.is_nan() and truth.is_nan() or v == truth


def text(v):
    return v.decode() if isinstance(v, bytes) else str(v)


def same_time(v, truth):
    if isinstance(v, tuple):  # an instant in a unit
        return v[0] * 10**6 == int(truth) * v[1]
    v = datetime.datetime.fromisoformat(text(v))
    if v.tzinfo is None:
        v = v.replace(tzinfo=datetime.timezone.utc)
    return (v - EPOCH) // datetime.timedelta(microseconds=1) == int(truth)


def same_uuid(v, truth):
    if isinstance(v, bytes) and len(v) == 16:
        v = uuid.UUID(bytes=v)
    return uuid.UUID(text(v)) == uuid.UUID(truth)


def parsed(v):
    return json.loads(text(v), parse_float=decimal.Decimal)


def same_list(v, truth):
    if isinstance(v, (str, bytes)):
        v = json.loads(text(v))
    return v == json.loads(truth)


def same_bytes(v, truth):
    if isinstance(v, str):
        v = bytes.fromhex(v.removeprefix("\\x"))
    return v == bytes.fromhex(truth)


SAME = {
    "id": lambda v, t: v == int(t),
    "n38": same_number,
    "n": same_number,
    "ts": same_time,
    "u": same_uuid,
    "j": lambda v, t: parsed(v) == parsed(t),
    "ta": same_list,
    "b": same_bytes,
    "e": lambda v, t: text(v) == t,
    "c": lambda v, t: text(v) == t,
}


def values_of(column):
    """The values of a column; instants as numbers, because Python's have neither nanoseconds nor every year."""
    if not pa.types.is_timestamp(column.type):
        return column.to_pylist()
    unit = PER_SECOND[column.type.unit]
    return [None if v is None else (v, unit) for v in column.cast(pa.int64()).to_pylist()]


def right(same, v, truth):
    if v is None or truth == "\\N":
        return v is None and truth == "\\N"
    try:
        return bool(same(v, truth))
    except (ValueError, TypeError, decimal.InvalidOperation):
        return False


def main(truth, out, *columns):
    with open(truth, newline="") as f:
        rows = {int(r["id"]): r for r in csv.DictReader(f)}
    found = {}
    files = [f for f in glob.glob(out + "/**/*.parquet", recursive=True) if "/state/" not in f and "_dlt_" not in f]
    if not files:
        raise SystemExit("there are no Parquet files")
    for name in columns:
        wrong, example, seen, kind = 0, "", set(), ""
        for file in files:
            t = pq.ParquetFile(file, coerce_int96_timestamp_unit="us").read(columns=list({"id", name}))
            kind = str(t.schema.field(name).type)
            for i, v in zip(t.column("id").to_pylist(), values_of(t.column(name))):
                seen.add(i)
                if not right(SAME[name], v, rows[int(i)][name]):
                    wrong += 1
                    example = example or f"{rows[int(i)][name]} became {v}"[:120]
        found[name] = {"type": kind, "wrong": wrong + len(rows) - len(seen), "example": example}
    print(json.dumps(found))


main(*sys.argv[1:])
