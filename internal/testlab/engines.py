"""Filters leat's files with the engines that users read them with; readers.py starts it.

A question is {"kind": "parquet" or "iceberg", "path": folder, "type": PostgreSQL's, "filters": [[operator, value, ...], ...]}. The answer is
{"rows": number of rows, "files": [[id, ...], ...], "memory": [[id, ...], ...]}: files are what the engine finds in the files for each filter, with all it
skips by statistics, and memory what it finds in its own copy of all rows; null where it has no such comparison. Filters are of the column
v, ids of the column id. {"kind": "version"} asks for {"version": name and version}.
"""

import datetime
import decimal
import glob
import os
import re
import uuid

# Types by PostgreSQL's names without their modifiers, as each engine writes them.
TYPES = {
    "boolean": ("boolean", "boolean", "Boolean"),
    "smallint": ("smallint", "smallint", "Int16"),
    "integer": ("int", "integer", "Int32"),
    "bigint": ("bigint", "bigint", "Int64"),
    "real": ("float", "float", "Float32"),
    "double precision": ("double", "double", "Float64"),
    "text": ("string", "varchar", "Utf8"),
    "uuid": ("string", "uuid", "uuid"),
    "bytea": ("binary", "blob", "Binary"),
    "date": ("date", "date", "Date32"),
    "time": (None, "time", "Time64(Microsecond)"),
    "timestamp": ("timestamp_ntz", "timestamp", "Timestamp(Microsecond, None)"),
    "timestamptz": ("timestamp", "timestamptz", 'Timestamp(Microsecond, Some("UTC"))'),
}


def metadata(folder):
    files = glob.glob(folder + "/metadata/v*.metadata.json")
    return max(files, key=lambda f: int(re.search(r"/v(\d+)\.", f).group(1)))


def base(kind):
    return re.sub(r"\(.*", "", kind)


def modifier(kind):
    return [int(n) for n in re.search(r"\((\d+),(\d+)\)", kind).groups()]


def python(kind, value):
    """A literal as Python has it."""
    return {
        "smallint": int, "integer": int, "bigint": int, "real": float, "double precision": float, "boolean": lambda s: s == "true", "numeric": decimal.Decimal,
        "bytea": lambda s: bytes.fromhex(s.removeprefix("\\x")), "uuid": uuid.UUID, "date": datetime.date.fromisoformat, "time": datetime.time.fromisoformat,
        "timestamp": datetime.datetime.fromisoformat, "timestamptz": datetime.datetime.fromisoformat,
    }.get(base(kind), str)(value)  # fmt: skip


def typed(engine, kind, value):
    """A literal in an engine's SQL; decimals keep their modifier."""
    name, text = base(kind), value.replace("'", "''")
    if name == "numeric":
        p, s = modifier(kind)
        return f"arrow_cast('{text}', 'Decimal128({p}, {s})')" if engine == 2 else f"cast('{text}' as decimal({p},{s}))"
    to = TYPES.get(name, TYPES["text"])[engine]
    if name == "bytea":
        hexed = value.removeprefix("\\x")
        return [f"X'{hexed}'", f"unhex('{hexed}')", f"X'{hexed}'"][engine]
    if name == "uuid" and engine == 2:
        return f"arrow_cast(X'{value.replace('-', '')}', 'FixedSizeBinary(16)')"
    if engine == 2:
        return f"arrow_cast('{text}', '{to}')"
    return f"cast('{text}' as {to})"


def condition(engine, kind, f):
    op, *values = f
    values = [typed(engine, kind, v) for v in values]
    if op in ("is null", "is not null"):
        return f"v {op}"
    if op == "between":
        return f"v between {values[0]} and {values[1]}"
    if op in ("in", "not in"):
        return f"v {op} ({', '.join(values)})"
    return f"v {op} {values[0]}"


def sql(engine, version, run, table, memory):
    """Filters by an engine that speaks SQL: run(statement) gives rows."""

    def answer(q):
        if q["kind"] == "version":
            return {"version": version}
        files = table(q)
        conditions = [condition(engine, q["type"], f) for f in q["filters"]]

        def ids(relation):
            found = [[] for _ in conditions]
            some = " union all ".join(f"select {i} as q, id from {relation} where {c}" for i, c in enumerate(conditions))
            for i, row in run(some):
                found[i].append(row)
            return [sorted(f) for f in found]

        held = run("select id" + "".join(f", {c}" for c in conditions) + f" from {memory(files)}")
        return {"rows": len(held), "files": ids(files), "memory": [sorted(row[0] for row in held if row[1 + i]) for i in range(len(conditions))]}

    return answer


def duckdb():
    import duckdb
    import duckdb_extension_avro
    import duckdb_extension_iceberg

    c = duckdb.connect(config={"threads": 1})
    for name, module in (("avro", duckdb_extension_avro), ("iceberg", duckdb_extension_iceberg)):
        c.execute(f"load '{glob.glob(os.path.dirname(module.__file__) + '/extensions/*/' + name + '.duckdb_extension')[0]}'")
    c.execute("set timezone = 'UTC'")

    def table(q):
        if q["kind"] == "parquet":
            return f"read_parquet('{q['path']}/*.parquet')"
        return f"iceberg_scan('{metadata(q['path'])}')"

    def memory(files):
        c.execute(f"create or replace temp table held as select id, v from {files}")
        return "held"

    return sql(1, "DuckDB " + duckdb.__version__, lambda statement: c.execute(statement).fetchall(), table, memory)


def datafusion():
    import datafusion as df

    x = df.SessionContext()
    x.sql("set datafusion.execution.parquet.pushdown_filters = true").collect()
    x.sql("set datafusion.execution.target_partitions = 1").collect()
    made = []

    def run(statement):
        return [tuple(row.values()) for batch in x.sql(statement).collect() for row in batch.to_pylist()]

    def table(q):
        if q["kind"] != "parquet":
            raise NotImplementedError("DataFusion has no reader of Iceberg of its own")
        made.append(f"t{len(made)}")
        x.register_parquet(made[-1], q["path"] + "/")
        return made[-1]

    def memory(files):
        x.register_record_batches(files + "m", [x.sql(f"select id, v from {files}").collect()])
        return files + "m"

    return sql(2, "DataFusion " + df.__version__, run, table, memory)


def spark(session):
    """Filters by a Spark that runs already."""
    lakes = {}

    def table(q):
        if q["kind"] == "parquet":
            session.read.parquet(q["path"]).createOrReplaceTempView("files")
            return "files"
        root, schema, name = q["path"].rsplit("/", 2)
        if root not in lakes:
            lakes[root] = f"lake{len(lakes)}"
            session.conf.set(f"spark.sql.catalog.{lakes[root]}", "org.apache.iceberg.spark.SparkCatalog")
            session.conf.set(f"spark.sql.catalog.{lakes[root]}.type", "hadoop")
            session.conf.set(f"spark.sql.catalog.{lakes[root]}.warehouse", root)
            session.conf.set(f"spark.sql.catalog.{lakes[root]}.cache-enabled", "false")
        return f"{lakes[root]}.{schema}.{name}"

    def memory(files):  # a checkpoint, since a cached table would answer for the files too
        session.sql(f"select id, v from {files}").localCheckpoint().createOrReplaceTempView("held")
        return "held"

    iceberg = session._jvm.org.apache.iceberg.IcebergBuild.version()
    return sql(0, f"Spark {session.version}, Iceberg {iceberg}", lambda statement: [tuple(r) for r in session.sql(statement).collect()], table, memory)


def polars():
    import polars as pl

    def lit(kind, value):
        x = python(kind, value)
        dtype = {"real": pl.Float32, "timestamp": pl.Datetime("us"), "timestamptz": pl.Datetime("us", "UTC")}.get(base(kind))
        if base(kind) == "numeric":
            dtype = pl.Decimal(*modifier(kind))
        if base(kind) == "uuid":
            x = x.bytes
        return pl.lit(x).cast(dtype) if dtype else pl.lit(x)

    def expression(kind, f):
        op, *values = f
        v, x = pl.col("v"), [lit(kind, value) for value in values]
        either = lambda: (v == x[0]) | (v == x[1])
        return {
            "=": lambda: v == x[0], "<>": lambda: v != x[0], "<": lambda: v < x[0], "<=": lambda: v <= x[0], ">": lambda: v > x[0], ">=": lambda: v >= x[0],
            "between": lambda: (v >= x[0]) & (v <= x[1]), "in": either, "not in": lambda: ~either(), "is null": v.is_null, "is not null": v.is_not_null,
        }[op]()  # fmt: skip

    def answer(q):
        if q["kind"] == "version":
            return {"version": "Polars " + pl.__version__}
        scan = pl.scan_parquet(q["path"] + "/*.parquet") if q["kind"] == "parquet" else pl.scan_iceberg(metadata(q["path"]))
        held = scan.select("id", "v").collect()
        filters = [expression(q["type"], f) for f in q["filters"]]
        ids = lambda frame: sorted(frame["id"].to_list())
        return {"rows": held.height, "files": [ids(scan.filter(f).select("id").collect()) for f in filters], "memory": [ids(held.filter(f)) for f in filters]}

    return answer


def pyarrow():
    """PyArrow filters Parquet, PyIceberg plans and filters tables."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds
    import pyiceberg
    import pyiceberg.expressions as ie
    from pyiceberg.expressions.visitors import bind
    from pyiceberg.io.pyarrow import expression_to_pyarrow
    from pyiceberg.table import StaticTable

    decimal.getcontext().prec = 40

    def compared(op, v, x):
        either = lambda: (v == x[0]) | (v == x[1])
        return {
            "=": lambda: v == x[0], "<>": lambda: v != x[0], "<": lambda: v < x[0], "<=": lambda: v <= x[0], ">": lambda: v > x[0], ">=": lambda: v >= x[0],
            "between": lambda: (v >= x[0]) & (v <= x[1]), "in": either, "not in": lambda: ~either(),
            "is null": v.is_null, "is not null": v.is_valid,
        }[op]()  # fmt: skip

    def arrow(type, kind, f):
        op, *values = f
        plain = type.storage_type if isinstance(type, pa.BaseExtensionType) else type
        literal = lambda s: python(kind, s).bytes if base(kind) == "uuid" else python(kind, s)
        return compared(op, pc.field("v").cast(plain), [pa.scalar(literal(s), plain) for s in values])

    def literal(kind, s):
        x = python(kind, s)
        return x.quantize(decimal.Decimal(1).scaleb(-modifier(kind)[1])) if base(kind) == "numeric" else x

    def iceberg(kind, f):
        op, *values = f
        x = [literal(kind, s) for s in values]
        return {
            "=": lambda: ie.EqualTo("v", x[0]), "<>": lambda: ie.And(ie.NotNull("v"), ie.NotEqualTo("v", x[0])), "<": lambda: ie.LessThan("v", x[0]),
            "<=": lambda: ie.LessThanOrEqual("v", x[0]), ">": lambda: ie.GreaterThan("v", x[0]), ">=": lambda: ie.GreaterThanOrEqual("v", x[0]),
            "between": lambda: ie.And(ie.GreaterThanOrEqual("v", x[0]), ie.LessThanOrEqual("v", x[1])), "in": lambda: ie.In("v", x),
            "not in": lambda: ie.And(ie.NotNull("v"), ie.NotIn("v", x)), "is null": lambda: ie.IsNull("v"), "is not null": lambda: ie.NotNull("v"),
        }[op]()  # fmt: skip

    ids = lambda table: sorted(table["id"].to_pylist())

    def answer(q):
        if q["kind"] == "version":
            return {"version": f"PyArrow {pa.__version__}, PyIceberg {pyiceberg.__version__}"}
        if q["kind"] == "parquet":
            files = ds.dataset(glob.glob(q["path"] + "/*.parquet"))
            type, held = files.schema.field("v").type, files.to_table(columns=["id", "v"])
            find = lambda f: ids(files.to_table(columns=["id"], filter=arrow(type, q["type"], f)))
            memory = lambda f: ids(held.filter(arrow(type, q["type"], f)))
        else:
            table = StaticTable.from_metadata(metadata(q["path"]))
            held = table.scan().to_arrow()
            # PyIceberg has no literal for NaN, and no filter of a list.
            lacks = lambda f: "NaN" in f or q["type"].endswith("[]")
            bound = lambda f: bind(table.schema(), iceberg(q["type"], f), True)
            find = lambda f: None if lacks(f) else ids(table.scan(row_filter=iceberg(q["type"], f)).to_arrow())
            kept = lambda f: arrow(held.schema.field("v").type, "uuid", f) if q["type"] == "uuid" else expression_to_pyarrow(bound(f), table.schema())
            memory = lambda f: None if lacks(f) else ids(held.filter(kept(f)))
        return {"rows": held.num_rows, "files": [find(f) for f in q["filters"]], "memory": [memory(f) for f in q["filters"]]}

    return answer
