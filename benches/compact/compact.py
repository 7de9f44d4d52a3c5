"""Compaction's rows a second and peak memory, beside DuckDB and Polars on the same files.

A table `readings` is made of many files, as ingest leaves them: each has some minutes of all sensors, and together they are one
old day per `--days`. Then, in turn and several times over, each in a process of its own:

- `tjern pipeline compact`: reads all, sorts, writes files of the target size, checks the multiset, commits; with `--core` its own
  work without the rest of the program (`benches/compact/core`), which is built in a minute;
- DuckDB: `COPY (SELECT * FROM read_parquet(…) ORDER BY sensor, time) TO … (FORMAT parquet, COMPRESSION zstd)`;
- Polars: `scan_parquet(…).sort("sensor", "time").sink_parquet(…, compression="zstd")`, streamed, and collected first.

DuckDB has one thread, two, and two with as much memory as `tjern`; Polars has two and one; `tjern` has as many as there
are cores, up to four. Printed are the best of the rounds by the wall clock and by the processor (user and system, all threads), the ratios to
`tjern`, and the bytes that were written. The others neither check nor commit.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import deltalake
import polars as pl

DAY_US = 86_400_000_000
#: 2020-01-01: a year that is sealed long since.
BEGIN_US = 1_577_836_800_000_000

DUCKDB = """
import duckdb, glob, sys
files = glob.glob(sys.argv[1] + "/*.parquet")
memory = sys.argv[3]
base = duckdb.connect()
base.execute(f"SET threads = {sys.argv[4]}; SET enable_progress_bar = false")
if memory != "-":
    base.execute(f"SET memory_limit = '{memory}'")
base.execute(f"SET temp_directory = '{sys.argv[2]}.spill'")
base.execute(f"COPY (SELECT * FROM read_parquet({files!r}) ORDER BY sensor, time) TO '{sys.argv[2]}' (FORMAT parquet, COMPRESSION zstd)")
"""
POLARS_STREAMED = """
import polars, sys
rows = polars.scan_parquet(sys.argv[1] + "/*.parquet").sort("sensor", "time")
rows.sink_parquet(sys.argv[2], compression="zstd", engine="streaming")
"""
POLARS_COLLECTED = """
import polars, sys
rows = polars.read_parquet(sys.argv[1] + "/*.parquet").sort("sensor", "time")
rows.write_parquet(sys.argv[2], compression="zstd")
"""


def rows_of(part: int, parts: int, sensors: int, per_sensor: int, seed: int) -> pl.DataFrame:
    """Some minutes of all sensors: a drifting value with noise, now and then a failed poll."""
    every_us = DAY_US // per_sensor
    first, last = part * per_sensor // parts, (part + 1) * per_sensor // parts
    count = (last - first) * sensors
    slot = pl.int_range(first, last, eager=True).repeat_by(sensors).explode()
    sensor = pl.concat([pl.int_range(0, sensors, eager=True)] * (last - first))
    noise = pl.int_range(0, count, eager=True).hash(seed + part) % 100
    frame = pl.DataFrame({"slot": slot, "sensor": sensor, "noise": noise.cast(pl.Int64)})
    text = lambda value: pl.lit(value, dtype=pl.String)
    missing = pl.col("noise") == 99
    return frame.select(
        sensor=pl.format("station-{}/probe-{}/water_temperature", pl.col("sensor") // 100, pl.col("sensor") % 100),
        time=(BEGIN_US + pl.col("slot") * every_us).cast(pl.Datetime("us", "UTC")),
        value=pl.when(missing).then(None).otherwise((pl.col("slot") / 50 + pl.col("noise")) / 10),
        quality=pl.when(missing).then(9).otherwise(1).cast(pl.Int8),
        cause=pl.when(missing).then(text("timeout")),
        lag_ms=pl.lit(None, dtype=pl.Int32),
        source=pl.format("gateway-{}", pl.col("sensor") // 100),
        epoch=pl.format("{}{}", pl.col("sensor") // 100 + 10, text("c3ab8ff13720e8ad9047dd39466b3c")),
        seq=pl.col("slot") * 100 + pl.col("sensor") % 100 + 1,
        revision=pl.lit(0, dtype=pl.Int16),
        level=pl.lit(0, dtype=pl.Int8),
        tests=pl.lit(None, dtype=pl.Int32),
        received=(BEGIN_US + pl.lit(last) * every_us + 5_000_000).cast(pl.Datetime("us", "UTC")),
    ).sort("sensor", "time")


def make(lake: Path, arguments: argparse.Namespace) -> int:
    """The table, in files as ingest would leave them. Returns its rows."""
    table = lake / "tables" / "readings"
    total = 0
    for part in range(arguments.files):
        frame = rows_of(part, arguments.files, arguments.sensors, arguments.rows // arguments.sensors, arguments.seed)
        total += len(frame)
        frame.write_delta(str(table), mode="append")
    newest = frame.head(1).with_columns(time=pl.col("time") + pl.duration(days=900))
    newest.write_delta(str(table), mode="append")
    return total


#: What a run took: seconds by the wall clock and by the processor, the most memory in bytes.
Took = tuple[float, float, int]


def run(command: list, label: str, environment: dict[str, str] | None = None) -> Took:
    """Runs it to its end."""
    environment = {**os.environ, **(environment or {})}
    began = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{label} ended with status {process.returncode}: {said.decode(errors='replace')[-2000:]}")
    return time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def compact(arguments: argparse.Namespace, work: Path, original: Path) -> tuple[Took, int]:
    if arguments.core:
        out = work / "core.parquet"
        source = original / "tables" / "readings"
        took = run([arguments.core, source, out, str(int(arguments.memory.removesuffix("MB")) * 1_000_000)], "core")
        return took, out.stat().st_size
    lake = work / "lake"
    shutil.rmtree(lake, ignore_errors=True)
    shutil.copytree(original, lake)
    config = work / "tjern.toml"
    config.write_text(f'version = 1\nlake = "{lake.as_uri()}"\n[compact]\nmemory = "{arguments.memory}"\nspill = "{work}"\n')
    took = run([arguments.tjern, "pipeline", "compact", "--config", config], "tjern")
    table = deltalake.DeltaTable(str(lake / "tables" / "readings"))
    sizes = table.get_add_actions().column("size_bytes").to_pylist()
    if len(sizes) > arguments.files / 2:
        sys.exit(f"nothing was compacted: {len(sizes)} files")
    return took, sum(sizes)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tjern", type=Path, help="the program `tjern`")
    parser.add_argument("--core", type=Path, help="instead of it the program of benches/compact/core")
    parser.add_argument("--work", type=Path, required=True, help="an empty folder on a disk")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--sensors", type=int, default=1_000)
    parser.add_argument("--files", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", default="512MB", help="what tjern may take, and DuckDB in its second line")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    if bool(arguments.tjern) == bool(arguments.core):
        parser.error("either --tjern or --core")
    original = arguments.work / "original"
    total = make(original, arguments)
    source = original / "tables" / "readings"
    size = sum(path.stat().st_size for path in source.glob("*.parquet"))
    print(f"{total} rows, {arguments.sensors} sensors, {arguments.files} files, {size} bytes; {arguments.rounds} rounds, seed {arguments.seed}")
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores; DuckDB {version('duckdb')}, Polars {version('polars')}")
    out = arguments.work / "out.parquet"
    python = lambda code, *more: [sys.executable, "-c", code, str(source), str(out), *more]
    one = {"POLARS_MAX_THREADS": "1"}
    others = {
        "DuckDB, 1 thread": (python(DUCKDB, "-", "1"), None),
        "DuckDB, 2 threads": (python(DUCKDB, "-", "2"), None),
        f"DuckDB, {arguments.memory}": (python(DUCKDB, arguments.memory, "2"), None),
        "Polars, streamed": (python(POLARS_STREAMED), {"POLARS_MAX_THREADS": "2"}),
        "Polars, 1 thread": (python(POLARS_STREAMED), one),
        "Polars, collected": (python(POLARS_COLLECTED), {"POLARS_MAX_THREADS": "2"}),
    }
    name_of_ours = f"{'the core' if arguments.core else 'tjern'}, {arguments.memory}"
    best: dict[str, tuple[Took, int]] = {}
    for _ in range(arguments.rounds):
        rounds = {name_of_ours: compact(arguments, arguments.work, original)}
        for name, (command, environment) in others.items():
            out.unlink(missing_ok=True)
            rounds[name] = run(command, name, environment), out.stat().st_size
        for name, (took, written) in rounds.items():
            former = best.get(name, (took, 0))[0]
            best[name] = tuple(min(pair) for pair in zip(took, former)), written
    wall, cpu, least = best[name_of_ours][0]
    print("| | rows a second | ours is times as fast | processor s | times ours | peak MB | times ours | bytes a row |")
    print("|---|---|---|---|---|---|---|---|")
    for name, ((seconds, processor, memory), written) in best.items():
        print(
            f"| {name} | {total / seconds:,.0f} | {seconds / wall:.2f} | {processor:.2f} | {processor / cpu:.2f} "
            f"| {memory / 1e6:,.0f} | {memory / least:.2f} | {written / total:.2f} |"
        )


if __name__ == "__main__":
    main()
