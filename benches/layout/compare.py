#!/usr/bin/env python3
"""Bytes per reading, all columns, beside DuckDB's own format, ClickHouse's MergeTree and plain Parquet.

    benches/layout/compare.py --seal PROGRAM FOLDER          # benches/layout/sizes makes both

FOLDER: the files of `tjern-layout --write FOLDER`. PROGRAM: the example `seal` of tjern-lake. Needs the packages
duckdb, chdb and pyarrow. ClickHouse's columns `value` and `received`
are made once per codec, and the best of each counts; its other columns have the codecs that its documentation
recommends for such data. ALP is left out: it is in beta there.
"""

import argparse
import pathlib
import subprocess
import tempfile

import chdb.session
import duckdb
import pyarrow.parquet

VALUE_CODECS = ["ZSTD(3)", "Gorilla, ZSTD(3)", "FPC, ZSTD(3)", "Delta(8), ZSTD(3)", "DoubleDelta, ZSTD(3)"]
RECEIVED_CODECS = ["DoubleDelta, ZSTD(3)", "Delta(8), ZSTD(3)", "T64, ZSTD(3)", "ZSTD(3)"]


def ours(program, path):
    """Bytes, and millions of readings that one core writes in a second: the best of three."""
    runs = [subprocess.run([program, path], check=True, capture_output=True, text=True).stdout.split("\t") for _ in range(3)]
    return int(runs[0][2]), int(runs[0][1]) / min(float(run[4]) for run in runs) / 1e6


def of_duckdb(path, scratch):
    place = scratch / "one.duckdb"
    place.unlink(missing_ok=True)
    with duckdb.connect(str(place)) as connection:
        connection.execute(f"CREATE TABLE readings AS SELECT * FROM read_parquet('{path}') ORDER BY sensor, time")
        connection.execute("CHECKPOINT")
    return place.stat().st_size


def of_clickhouse(path, session, codec, received):
    session.query("DROP TABLE IF EXISTS tjern.readings SYNC")
    session.query(
        f"""CREATE TABLE tjern.readings (
            sensor LowCardinality(String), time DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(3)),
            value Nullable(Float64) CODEC({codec}), quality Int8 CODEC(ZSTD(3)), cause LowCardinality(Nullable(String)),
            lag_ms Nullable(Int32) CODEC(ZSTD(3)), source LowCardinality(String), epoch LowCardinality(String),
            seq Int64 CODEC(DoubleDelta, ZSTD(3)), revision Int16 CODEC(ZSTD(3)), level Int8 CODEC(ZSTD(3)),
            tests Int32 CODEC(ZSTD(3)), received DateTime64(6, 'UTC') CODEC({received}))
        ENGINE = MergeTree ORDER BY (sensor, time) SETTINGS min_bytes_for_wide_part = 0"""
    )
    session.query(f"INSERT INTO tjern.readings SELECT * FROM file('{path}', Parquet)")
    session.query("OPTIMIZE TABLE tjern.readings FINAL")
    answer = session.query("SELECT sum(bytes_on_disk) FROM system.parts WHERE table = 'readings' AND active", "CSV")
    return int(str(answer).strip())


def best_of_clickhouse(path, session):
    received = smallest(RECEIVED_CODECS, lambda codec: of_clickhouse(path, session, VALUE_CODECS[0], codec))[0]
    value, size = smallest(VALUE_CODECS, lambda codec: of_clickhouse(path, session, codec, received))
    return f"value {value}; received {received}", size


def smallest(codecs, size_of):
    sizes = {}
    for codec in codecs:
        try:
            sizes[codec] = size_of(codec)
        except Exception as error:  # a codec that this version does not have for this type
            print(f"# ClickHouse without {codec}: {str(error).splitlines()[0][:100]}")
    codec = min(sizes, key=sizes.get)
    return codec, sizes[codec]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seal", required=True)
    parser.add_argument("folder", type=pathlib.Path)
    arguments = parser.parse_args()
    print(f"DuckDB {duckdb.__version__}, chDB {chdb.__version__}; bytes per reading, all 13 columns\n")
    print("| readings | Tjern | written, M/s | plain Parquet, zstd 3 | DuckDB | ClickHouse (its best codec) |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        session = chdb.session.Session(str(scratch / "clickhouse"))
        session.query("CREATE DATABASE tjern ENGINE = Atomic")
        for path in sorted(arguments.folder.glob("*.parquet")):
            rows = pyarrow.parquet.read_metadata(path).num_rows
            codec, clickhouse = best_of_clickhouse(path, session)
            size, speed = ours(arguments.seal, path)
            others = [path.stat().st_size, of_duckdb(path, scratch), clickhouse]
            cells = [f"{size / rows:.3f}", f"{speed:.2f}", *(f"{other / rows:.3f}" for other in others)]
            print(f"| {path.stem} ({rows}) | " + " | ".join(cells) + f" ({codec}) |", flush=True)


if __name__ == "__main__":
    main()
