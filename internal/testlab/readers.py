"""Reads Iceberg tables with Spark or PyIceberg and writes values as PostgreSQL would write them in text.

Arguments: "spark JARS SCRATCH", "pyiceberg", or an engine of engines.py. A question is a line of JSON; the answer is a line:
{"columns": [...], "rows": [[...], ...]} or {"error": "..."}. Moments are in UTC, arrays are JSON without spaces. Spark
answers the questions of engines.py too, which have a kind.
"""

import datetime
import decimal
import json
import os
import sys

import engines

# Nothing but answers may go to standard output.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def text(value, zoned=False):
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, datetime.datetime):
        fraction = f".{value.microsecond:06d}".rstrip("0") if value.microsecond else ""
        return value.strftime("%Y-%m-%d %H:%M:%S") + fraction + ("+00" if zoned or value.tzinfo else "")
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, (bytes, bytearray)):
        return "\\x" + value.hex()
    if isinstance(value, list):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return str(value)


def spark(jars, scratch):
    """Answers {"catalog": name, "settings": {...}, "sql": "..."}; settings count when a catalog is named first."""
    from pyspark.sql import SparkSession
    from pyspark.sql.types import TimestampType

    session = (
        SparkSession.builder.master("local[1]")
        .config("spark.driver.memory", "768m")
        .config("spark.driver.extraClassPath", jars)
        # The compiler that is quick, and no collector that runs beside: a session lives for minutes.
        .config("spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.local.dir", scratch)
        .config("spark.sql.warehouse.dir", scratch + "/warehouse")
        .config("spark.sql.catalogImplementation", "in-memory")
        .config("spark.sql.extensions", "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", "1")
        # Compiling code for a few rows takes longer than reading them.
        .config("spark.sql.codegen.wholeStage", "false")
        .config("spark.sql.codegen.factoryMode", "NO_CODEGEN")
        .config("spark.sql.adaptive.enabled", "false")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    known, files = set(), engines.spark(session)

    def answer(question):
        if "kind" in question:
            return files(question)
        name = question["catalog"]
        if name not in known:
            session.conf.set(f"spark.sql.catalog.{name}", "org.apache.iceberg.spark.SparkCatalog")
            # Else a table stays as it was at the first look.
            session.conf.set(f"spark.sql.catalog.{name}.cache-enabled", "false")
            for key, value in question["settings"].items():
                session.conf.set(f"spark.sql.catalog.{name}.{key}", value)
            known.add(name)
        frame = session.sql(question["sql"])
        zoned = [isinstance(field.dataType, TimestampType) for field in frame.schema]
        return {"columns": frame.columns, "rows": [[text(v, z) for v, z in zip(row, zoned)] for row in frame.collect()]}

    return answer


def pyiceberg():
    """Answers {"settings": {...}, "table": ["schema", "name"]} through a catalog, or {"folder": "file:///...", "properties": {...}} without one."""
    from pyiceberg.catalog import load_catalog
    from pyiceberg.io import load_file_io
    from pyiceberg.table import StaticTable

    def newest(folder, properties):
        io = load_file_io(properties, folder)
        with io.new_input(f"{folder}/metadata/version-hint.text").open() as f:
            version = int(f.read().decode().strip())
        while io.new_input(f"{folder}/metadata/v{version + 1}.metadata.json").exists():  # the hint may lag behind
            version += 1
        return StaticTable.from_metadata(f"{folder}/metadata/v{version}.metadata.json", properties)

    def answer(question):
        if "folder" in question:
            table = newest(question["folder"], question.get("properties", {}))
        else:
            table = load_catalog("lake", **question["settings"]).load_table(tuple(question["table"]))
        rows = table.scan().to_arrow()
        columns = [[text(v) for v in column.to_pylist()] for column in rows.columns]
        return {"columns": rows.column_names, "rows": [list(row) for row in zip(*columns)]}

    return answer


answer = {
    "spark": spark, "pyiceberg": pyiceberg, "duckdb": engines.duckdb, "polars": engines.polars, "datafusion": engines.datafusion, "pyarrow": engines.pyarrow,
}[sys.argv[1]](*sys.argv[2:])  # fmt: skip
for line in sys.stdin:
    try:
        reply = answer(json.loads(line))
    except BaseException as e:  # the test tells it; a panic of Rust's is no Exception
        reply = {"error": f"{type(e).__name__}: {e}"}
    print(json.dumps(reply), file=answers, flush=True)
