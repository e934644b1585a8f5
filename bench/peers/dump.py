"""dump.py PEER TABLE KEY LAST OUT: writes one table of a PostgreSQL to Parquet (zstd) as people do with PEER.

The server is named by PGPORT, PGDATABASE and PGUSER and listens on 127.0.0.1. KEY is a column of whole numbers from 1 to LAST, by
which those that can read in two parts. OUT is an empty folder.
"""

import os
import sys

PORT, DATABASE, USER = os.environ["PGPORT"], os.environ["PGDATABASE"], os.environ["PGUSER"]
PARTS = 2  # connections, as many as the machine of the figures has cores


def uri(scheme="postgresql"):
    return f"{scheme}://{USER}@127.0.0.1:{PORT}/{DATABASE}"


def duckdb(table, key, last, out):
    import duckdb as d
    import duckdb_extension_postgres_scanner as scanner

    c = d.connect(config={"autoinstall_known_extensions": "false", "allow_unsigned_extensions": "true"})
    c.execute(f"load '{os.path.dirname(scanner.__file__)}/extensions/v{d.__version__}/postgres_scanner.duckdb_extension'")
    c.execute(f"attach 'host=127.0.0.1 port={PORT} user={USER} dbname={DATABASE}' as p (type postgres, read_only)")
    c.execute(f"copy (select * from p.{table}) to '{out}/t.parquet' (format parquet, compression zstd)")


def connectorx(table, key, last, out):
    import connectorx as cx
    import pyarrow.parquet as pq

    t = cx.read_sql(uri(), f"select * from {table}", return_type="arrow", protocol="binary", partition_on=key, partition_num=PARTS)
    pq.write_table(t, f"{out}/t.parquet", compression="zstd")


def adbc(table, key, last, out):
    import adbc_driver_postgresql.dbapi as dbapi
    import pyarrow.parquet as pq

    with dbapi.connect(uri()) as connection, connection.cursor() as cursor:
        cursor.execute(f"select * from {table}")
        batches = cursor.fetch_record_batch()
        with pq.ParquetWriter(f"{out}/t.parquet", batches.schema, compression="zstd") as w:
            for batch in batches:
                w.write_batch(batch)


def polars(table, key, last, out):
    import polars as pl

    pl.read_database_uri(f"select * from {table}", uri(), engine="adbc").write_parquet(f"{out}/t.parquet", compression="zstd")


def chdb(table, key, last, out):
    import chdb as c

    source = f"postgresql('127.0.0.1:{PORT}', '{DATABASE}', '{table}', '{USER}', '')"
    c.query(f"insert into function file('{out}/t.parquet', 'Parquet') select * from {source} settings output_format_parquet_compression_method='zstd'")


def spark(table, key, last, out):
    from pyspark.sql import SparkSession

    jar = os.environ["PEERS_JDBC"]
    s = SparkSession.builder.master(f"local[{PARTS}]").config("spark.jars", jar).config("spark.driver.extraClassPath", jar)
    s = s.config("spark.driver.memory", "4g").config("spark.ui.enabled", "false").config("spark.sql.session.timeZone", "UTC")
    s = s.config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1").getOrCreate()
    r = s.read.format("jdbc").option("url", f"jdbc:postgresql://127.0.0.1:{PORT}/{DATABASE}").option("user", USER)
    r = r.option("driver", "org.postgresql.Driver").option("dbtable", table).option("fetchsize", "10000")
    r = r.option("partitionColumn", key).option("lowerBound", "1").option("upperBound", last).option("numPartitions", str(PARTS))
    r.load().write.mode("overwrite").option("compression", "zstd").parquet(f"{out}/t")


def dlt(backend):
    def write(table, key, last, out):
        import dlt as d
        from dlt.sources.sql_database import sql_table

        os.environ["DATA_WRITER__DISABLE_COMPRESSION"] = "true"
        more = {"backend_kwargs": {"protocol": "binary", "return_type": "arrow"}} if backend == "connectorx" else {}
        source = sql_table(credentials=uri("postgresql+psycopg2"), table=table, backend=backend, chunk_size=100_000, **more)
        there = d.destinations.filesystem(bucket_url="file://" + out)
        p = d.pipeline(f"{table}_{backend}", pipelines_dir=out + "/state", destination=there, dataset_name="d")
        p.run(source, loader_file_format="parquet", write_disposition="replace")

    return write


PEERS = {
    "duckdb": duckdb,
    "connectorx": connectorx,
    "adbc": adbc,
    "polars": polars,
    "chdb": chdb,
    "spark": spark,
    "dlt-pyarrow": dlt("pyarrow"),
    "dlt-connectorx": dlt("connectorx"),
}

if __name__ == "__main__":
    PEERS[sys.argv[1]](*sys.argv[2:])
    sys.stdout.flush()
    os._exit(0)  # some of them leave threads that keep the process
