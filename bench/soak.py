"""Reads the lake that a soak has left, by engines that are not leat's.

soak.py judge LAKE TRUTH EXPECTED   by PyIceberg: the current rows are TRUTH's (a file of JSON lines a table), the history has every version of every
                                    row once, and the current rows as of an earlier snapshot are what the history says of its position.
                                    Writes what each snapshot that it has read holds to EXPECTED.
soak.py spark LAKE EXPECTED JARS    by Spark: the same snapshots hold the same.
soak.py trino LAKE EXPECTED URL     by a Trino server at URL with a catalog called iceberg, which may register tables.

Prints a line of JSON with what was read; what is wrong ends it with a message.
"""

import datetime
import decimal
import glob
import json
import os
import re
import sys
import urllib.request

AT_MOST = 6  # earlier snapshots of each table that are read
EVERY = 10  # of how many tables one is read by engines that are slow to answer


def metadata(table):
    files = glob.glob(os.path.join(table, "metadata", "v*.metadata.json"))
    return max(files, key=lambda f: int(re.search(r"v(\d+)\.metadata", f)[1]))


def lsn(text):
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def told(v):
    """A value as JSON tells it, or as close to it as matters here."""
    if isinstance(v, datetime.datetime):
        return v.astimezone(datetime.timezone.utc)
    if isinstance(v, str) and re.match(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00$", v):
        return datetime.datetime.fromisoformat(v)
    return v


def rows_of(arrow):
    return {r["id"]: {k: told(v) for k, v in r.items()} for r in arrow.to_pylist()}


def ordered(rows):
    return sorted(rows, key=lambda r: (r["_leat_lsn"], r["_leat_seq"] or 0))


def copied(r):
    """Rows of a copy, and the truncation before one that came later, have the position from which the log follows."""
    return r["_leat_op"] == "r" or r["_leat_seq"] == -1


def fold(rows, position):
    """What a history says of the rows at a position: id to version."""
    state = {}
    for r in rows:
        if r["_leat_lsn"] + (0 if copied(r) else 1) > position:
            break
        if r["_leat_op"] == "t":
            state = {}
        elif r["_leat_op"] == "d":
            state.pop(r["id"], None)
        else:
            state[r["id"]] = r["version"]
    return state


def complete(name, rows):
    """Every version of a row follows the one before it. The log may begin before the copy's snapshot: with versions that the copy is past, and
    with rows that were gone by then."""
    copied_to = max(r["id"] for r in rows if r["_leat_op"] == "r")
    last, fresh = {}, set()
    for r in rows:
        i, version = r["id"], r["version"]
        if r["_leat_op"] in "td":
            continue
        if r["_leat_op"] == "r":
            fresh.add(i)
        elif version == last.get(i, 0) + 1 or i in fresh and version <= last[i] or i not in last and i <= copied_to:
            fresh.discard(i)
        else:
            raise SystemExit(f"{name}: the history has version {version} of row {i} after {last.get(i)}")
        last[i] = version


def chosen(snapshots):
    step = max(1, len(snapshots) // AT_MOST)
    return snapshots[::step][:AT_MOST] + snapshots[-1:]


def judge(lake, truth, expected):
    from pyiceberg.table import StaticTable

    read, changes = {}, 0
    for file in sorted(glob.glob(os.path.join(truth, "*.jsonl"))):
        name = os.path.basename(file).removesuffix(".jsonl")
        with open(file) as f:
            want = {r["id"]: {k: told(v) for k, v in r.items()} for r in (json.loads(line, parse_float=decimal.Decimal) for line in f)}
        current = StaticTable.from_metadata(metadata(os.path.join(lake, "soak", name)))
        got = rows_of(current.scan().to_arrow())
        if got != want:
            wrong = [i for i in want.keys() | got.keys() if got.get(i) != want.get(i)]
            raise SystemExit(f"{name}: {len(wrong)} rows differ, among them {want.get(wrong[0])}, in the lake {got.get(wrong[0])}")
        past = StaticTable.from_metadata(metadata(os.path.join(lake, "soak", name + "_history")))
        rows = ordered(past.scan().to_arrow().to_pylist())
        complete(name, rows)
        changes += len(rows)
        snapshots = sorted(current.metadata.snapshots, key=lambda s: s.sequence_number)
        for s in chosen([s for s in snapshots if "leat.position" in s.summary.additional_properties]):
            position = lsn(s.summary.additional_properties["leat.position"])
            arrow = current.scan(snapshot_id=s.snapshot_id, selected_fields=("id", "version")).to_arrow()
            state = dict(zip(arrow["id"].to_pylist(), arrow["version"].to_pylist()))
            if len(state) != arrow.num_rows or state != fold(rows, position):
                raise SystemExit(f"{name}: its rows as of snapshot {s.snapshot_id} are not those of its history before {position:X}")
            read.setdefault(name, []).append([s.snapshot_id, len(state), sum(state), sum(state.values())])
    with open(expected, "w") as f:
        json.dump(read, f)
    print(json.dumps({"tables": len(read), "snapshots": sum(map(len, read.values())), "changes": changes}))


def compare(expected, query, time_travel):
    with open(expected) as f:
        all_read = json.load(f)
    tables = list(all_read)[::EVERY]
    snapshots = 0
    for name in tables:
        for snapshot, *want in all_read[name]:
            got = query(name, f"SELECT count(*), coalesce(sum(id), 0), coalesce(sum(version), 0) FROM {{}} {time_travel.format(snapshot)}")
            if list(got) != want:
                raise SystemExit(f"{name} as of snapshot {snapshot}: {got}, not {want}")
            snapshots += 1
    print(json.dumps({"tables": len(tables), "snapshots": snapshots}))


def spark(lake, expected, jars):
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master("local[2]").config("spark.driver.extraClassPath", jars).config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1").config("spark.sql.catalog.soak", "org.apache.iceberg.spark.SparkCatalog")
        .config("spark.sql.catalog.soak.type", "hadoop").config("spark.sql.catalog.soak.warehouse", lake).getOrCreate()
    )
    compare(expected, lambda name, sql: session.sql(sql.format(f"soak.soak.{name}")).collect()[0], "VERSION AS OF {}")


def trino(lake, expected, url):
    def ask(sql):
        headers, rows = {"X-Trino-User": "soak"}, []
        reply = json.load(urllib.request.urlopen(urllib.request.Request(url + "/v1/statement", sql.encode(), headers)))
        while True:
            if "error" in reply:
                raise SystemExit(f"{sql}: {reply['error']['message']}")
            rows += reply.get("data", [])
            if "nextUri" not in reply:
                return rows
            reply = json.load(urllib.request.urlopen(urllib.request.Request(reply["nextUri"], headers=headers)))

    registered = set()

    def query(name, sql):
        if name not in registered:
            place = os.path.join(lake, "soak", name)
            ask(f"CALL iceberg.system.register_table('soak', '{name}', 'file://{place}', '{os.path.basename(metadata(place))}')")
            registered.add(name)
        return ask(sql.format(f"iceberg.soak.{name}"))[0]

    ask("CREATE SCHEMA iceberg.soak")
    try:
        compare(expected, query, "FOR VERSION AS OF {}")
    finally:
        for name in registered:
            ask(f"CALL iceberg.system.unregister_table('soak', '{name}')")
        ask("DROP SCHEMA iceberg.soak")


{"judge": judge, "spark": spark, "trino": trino}[sys.argv[1]](*sys.argv[2:])
