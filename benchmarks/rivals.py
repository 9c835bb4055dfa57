"""The rivals, each in an environment of its own, in the best configuration that its documentation gives and a trial confirmed.

A program gets kind, url, table and output folder as its arguments. TLS is off for all, JiVS included: what is compared is
reading, not encryption.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
ENVIRONMENTS = ROOT / "bench-data" / "environments"
DUCKDB = "1.5.5"


@cache
def environment(name: str, *requirements: str) -> Path:
    """The folder of programs of a virtual environment with these packages; made when first asked for."""
    folder = ENVIRONMENTS / name
    marker = folder / ".complete"
    wanted = "\n".join(requirements)
    if not marker.exists() or marker.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", *requirements], check=True)
        marker.write_text(wanted)
    return folder / "bin"


_DUCKDB = """
import os, sys, duckdb
from importlib.util import find_spec
from urllib.parse import unquote, urlsplit
kind, url, table, out = sys.argv[1:5]
con = duckdb.connect()
folder = os.path.dirname(find_spec(f"duckdb_extension_{kind}_scanner").origin)
con.execute(f"load '{folder}/extensions/v{duckdb.__version__}/{kind}_scanner.duckdb_extension'")
con.execute("set preserve_insertion_order = false")
schema = ""
if kind == "mysql":  # by default it compresses what is sent, which costs more than it saves here
    p = urlsplit(url)
    url = f"host={p.hostname} port={p.port} user={p.username} password={unquote(p.password)} database={p.path[1:]} compression=disabled"
if table.endswith(".*"):
    con.execute(f"attach '{url}' as src (type {kind}, read_only, schema '{table[:-2]}')")
    con.execute(f"export database src to '{out}/x' (format parquet, compression zstd, compression_level 1)")
else:
    con.execute(f"attach '{url}' as src (type {kind}, read_only)")
    con.execute(f"copy (from src.{table}) to '{out}/x.parquet' (format parquet, compression zstd, compression_level 1)")
"""

_CONNECTORX = """
import sys, connectorx as cx, pyarrow.parquet as pq
from concurrent.futures import ThreadPoolExecutor
kind, url, table, out = sys.argv[1:5]
if table.endswith(".*"):
    names = cx.read_sql(url, f"select tablename::text from pg_tables where schemaname='{table[:-2]}'", return_type="arrow").column(0).to_pylist()
    def one(n): pq.write_table(cx.read_sql(url, f'select * from {table[:-2]}.{n}', return_type="arrow"), f"{out}/{n}.parquet", compression="zstd", compression_level=1)
    with ThreadPoolExecutor(4) as pool: list(pool.map(one, names))
else:
    reader = cx.read_sql(url, f"select * from {table}", return_type="arrow_stream", batch_size=500000)
    with pq.ParquetWriter(f"{out}/x.parquet", reader.schema, compression="zstd", compression_level=1) as w:
        for b in reader: w.write_batch(b)
"""

_ADBC = """
import sys, pyarrow.parquet as pq
kind, url, table, out = sys.argv[1:5]
if kind == "postgres":
    import adbc_driver_postgresql.dbapi as dbapi
    from adbc_driver_postgresql import StatementOptions
    option = {StatementOptions.BATCH_SIZE_HINT_BYTES.value: str(64 << 20)}
else:
    import adbc_driver_sqlite.dbapi as dbapi
    from adbc_driver_sqlite import StatementOptions
    option = {StatementOptions.BATCH_ROWS.value: "100000"}
    url = "file:" + url.removeprefix("sqlite:///") + "?mode=ro"
with dbapi.connect(url) as con, con.cursor() as cur:
    names = [table]
    if table.endswith(".*"):
        cur.execute("select tablename::text from pg_tables where schemaname = $1", [table[:-2]])
        names = [f"{table[:-2]}.{name}" for (name,) in cur.fetchall()]
    else:
        cur.adbc_statement.set_options(**option)
    for name in names:
        cur.execute(f"select * from {name}")
        reader = cur.fetch_record_batch()
        with pq.ParquetWriter(f"{out}/{name}.parquet", reader.schema, compression="zstd", compression_level=1) as w:
            for b in reader: w.write_batch(b)
"""

_POLARS = """
import sys, polars as pl
kind, url, table, out = sys.argv[1:5]
pl.read_database_uri(f"select * from {table}", url, engine="connectorx").write_parquet(f"{out}/x.parquet", compression="zstd", compression_level=1)
"""

_RIVET = """
import json, os, subprocess, sys
kind, url, table, out = sys.argv[1:5]
json.dump({"source": {"type": "postgres", "url": url, "environment": "local"}, "exports": [{
  "name": "x", "table": table, "mode": "chunked", "chunk_column": "l_orderkey", "chunk_count": 2, "parallel": 2, "format": "parquet",
  "compression": "zstd", "compression_level": 1, "destination": {"type": "local", "path": out}}]}, open(f"{out}/r.yaml", "w"))
os.chdir(out)
subprocess.run([os.path.dirname(sys.executable) + "/rivet", "run", "-c", f"{out}/r.yaml"], check=True)
"""

RIVALS: dict[str, tuple[tuple[str, ...], str]] = {
    f"DuckDB {DUCKDB}": (
        (f"duckdb=={DUCKDB}", *(f"duckdb-extension-{kind}-scanner=={DUCKDB}" for kind in ("postgres", "mysql", "sqlite"))),
        _DUCKDB,
    ),
    "connectorx 0.4.6": (("connectorx==0.4.6", "pyarrow==26.0.1"), _CONNECTORX),
    "ADBC 1.13": (
        ("adbc-driver-postgresql==1.13.0", "adbc-driver-sqlite==1.13.0", "adbc-driver-manager==1.13.0", "pyarrow==26.0.1"),
        _ADBC,
    ),
    "polars 2.1 with connectorx": (("polars==2.1.0", "connectorx==0.4.6", "pyarrow==26.0.1"), _POLARS),
    "rivet 0.32.2": (("rivet-cli==0.32.2",), _RIVET),
}
"""Name -> requirements, program."""


def command(rival: str, kind: str, url: str, table: str, out: Path) -> list[str]:
    """The command line of a rival."""
    requirements, program = RIVALS[rival]
    return [
        str(environment(rival.split(maxsplit=1)[0].lower(), *requirements) / "python"),
        "-c",
        program,
        kind,
        url,
        table,
        str(out),
    ]
