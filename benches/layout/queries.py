#!/usr/bin/env python3
"""The two queries of the design over a river's points: Tjern's layouts, DuckDB's own format, ClickHouse's MergeTree.

    benches/layout/queries.py --program PROGRAM --work FOLDER [--stations 10] [--sensors 10] [--days 60] [--rounds 3]

PROGRAM: the example `queries` of tjern-lake, which makes the points (FOLDER/points, kept between runs) in many layouts and asks them by
Tjern's own engine. DuckDB is asked too, over the same files: what differs then is the layout and nothing else. Needs duckdb
and chdb. Each of these is asked in a process of its own, with one thread and with two, in turn with ours, and the best round
of each counts: the mean of 40 askings of three sensors' day, and of 3 of the hourly mean of 30 sensors over 45 days, by the wall
clock and by the processor. All answers have to have the same number of rows.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

START_US = 1_735_689_600_000_000
DAY_US = 86_400_000_000
DAYS_ASKED, HOURS_ASKED = 40, 3


def names(size, count):
    stations, sensors, _ = size
    every = [f"station-{station:02}/position-{sensor:03}/quantity" for station in range(stations) for sensor in range(sensors)]
    return ", ".join(f"'{name}'" for name in every[:count])


def size_of(points):
    stations, sensors, days = points.joinpath("size").read_text().split()
    return int(stations), int(sensors), float(days)


def duckdb_queries(size, folder):
    """What is asked of a table `readings`, or of a folder whose files are laid out differently."""
    moment = lambda day: f"make_timestamptz({START_US + day * DAY_US})"
    within = lambda first, last: f"time >= {moment(first)} AND time < {moment(last)} AND value IS NOT NULL"
    day = f"SELECT sensor, time, value FROM readings WHERE sensor IN ({names(size, 3)}) AND {within(40, 41)} ORDER BY sensor, time"
    hours = (
        f"SELECT sensor, epoch_us(time) // 3600000000 AS hour, avg(value) FROM readings "
        f"WHERE sensor IN ({names(size, 30)}) AND {within(5, 50)} GROUP BY ALL"
    )
    if folder.name.endswith("numbers-for-sensors"):
        return [re.sub(r"sensor IN \([^)]*\)", f"sensor < {count}", query) for query, count in ((day, 3), (hours, 30))]
    if folder.name.endswith("a-column-a-sensor"):
        return wide_queries(size, folder, moment)
    return day, hours


def wide_queries(size, folder, moment):
    """Each station has a file with a column for each sensor."""
    within = lambda first, last: f"time >= {moment(first)} AND time < {moment(last)}"
    station = lambda number: f"read_parquet('{folder}/station-{number:02}.parquet')"
    columns = lambda count: [name.strip("'") for name in names(size, count).split(", ")]
    one = lambda name: f"""SELECT '{name}' AS sensor, time, "{name}" AS value FROM {station(0)} WHERE "{name}" IS NOT NULL AND {within(40, 41)}"""
    day = f"SELECT * FROM ({' UNION ALL '.join(map(one, columns(3)))}) ORDER BY sensor, time"
    parts = []
    for number in range(-(-30 // size[1])):
        wanted = [name for name in columns(30) if name.startswith(f"station-{number:02}/")]
        means = ", ".join(f'avg("{name}") AS "{name}"' for name in wanted)
        hours = f"SELECT epoch_us(time) // 3600000000 AS hour, {means} FROM {station(number)} WHERE {within(5, 50)} GROUP BY 1"
        parts.append(f"SELECT sensor, hour, mean FROM (UNPIVOT ({hours}) ON COLUMNS(* EXCLUDE hour) INTO NAME sensor VALUE mean)")
    return day, " UNION ALL ".join(parts)


def clickhouse_queries(size):
    moment = lambda day: f"fromUnixTimestamp64Micro({START_US + day * DAY_US}, 'UTC')"
    within = lambda first, last: f"time >= {moment(first)} AND time < {moment(last)} AND value IS NOT NULL"
    day = f"SELECT sensor, time, value FROM tjern.readings WHERE sensor IN ({names(size, 3)}) AND {within(40, 41)} ORDER BY sensor, time"
    hours = (
        f"SELECT sensor, toStartOfHour(time) AS hour, avg(value) FROM tjern.readings "
        f"WHERE sensor IN ({names(size, 30)}) AND {within(5, 50)} GROUP BY sensor, hour"
    )
    return day, hours


def timed(ask, query, times):
    """Rows of the answer; milliseconds and processor milliseconds."""
    rows = ask(query)
    began, before = time.perf_counter(), time.process_time()
    for _ in range(times):
        ask(query)
    each = lambda seconds: 1_000 * seconds / times
    return rows, each(time.perf_counter() - began), each(time.process_time() - before)


def tell(ask, queries):
    """One line, for the process that compares."""
    day, hours = (timed(ask, query, times) for query, times in zip(queries, (DAYS_ASKED, HOURS_ASKED)))
    print(*day, *hours, sep="\t")


def duckdb_child(place, points, threads):
    import duckdb

    connection = duckdb.connect() if place.is_dir() else duckdb.connect(str(place), read_only=True)
    connection.execute(f"SET threads = {threads}; SET TimeZone = 'UTC'")
    if place.is_dir():
        connection.execute(f"CREATE VIEW readings AS SELECT * FROM read_parquet('{place}/**/*.parquet')")
    tell(lambda query: connection.execute(query).to_arrow_table().num_rows, duckdb_queries(size_of(points), place))


def clickhouse_child(place, points, threads):
    import chdb.session
    import pyarrow.ipc

    session = chdb.session.Session(str(place))

    def ask(query):
        answer = session.query(f"{query} SETTINGS max_threads = {threads}", "ArrowStream")
        return pyarrow.ipc.open_stream(answer.bytes()).read_all().num_rows

    tell(ask, clickhouse_queries(size_of(points)))


def make_duckdb(place, plain):
    import duckdb

    with duckdb.connect(str(place)) as connection:
        connection.execute(f"CREATE TABLE readings AS SELECT * FROM read_parquet('{plain}') ORDER BY sensor, time")
        connection.execute("CHECKPOINT")


def make_clickhouse(place, plain):
    import chdb.session

    session = chdb.session.Session(str(place))
    session.query("CREATE DATABASE tjern ENGINE = Atomic")
    session.query(
        """CREATE TABLE tjern.readings (
            sensor LowCardinality(String), time DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(3)),
            value Nullable(Float64) CODEC(ZSTD(3)), quality Int8 CODEC(ZSTD(3)), cause LowCardinality(Nullable(String)),
            lag_ms Nullable(Int32) CODEC(ZSTD(3)), source LowCardinality(String), epoch LowCardinality(String),
            seq Int64 CODEC(DoubleDelta, ZSTD(3)), revision Int16 CODEC(ZSTD(3)), level Int8 CODEC(ZSTD(3)),
            tests Int32 CODEC(ZSTD(3)), received DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(3)))
        ENGINE = MergeTree ORDER BY (sensor, time) SETTINGS min_bytes_for_wide_part = 0"""
    )
    session.query(f"INSERT INTO tjern.readings SELECT * FROM file('{plain}', Parquet)")
    session.query("OPTIMIZE TABLE tjern.readings FINAL")


def bytes_in(place):
    if place.is_file():
        return place.stat().st_size
    return sum(path.stat().st_size for path in place.rglob("*") if path.suffix in (".bin", ".mrk", ".cmrk2", ".cidx", ".parquet"))


def ours(program, points, threads):
    """What Tjern's own engine takes, by layout."""
    command = [program, "ask", points, "--threads", str(threads), "--rounds", "1"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return {cells[0]: [float(cell) for cell in cells[1:]] for cells in (line.split("\t") for line in lines)}


def child(kind, place, points, threads):
    command = [sys.executable, "-B", __file__, "--child", kind, "--place", place, "--work", points.parent, "--threads", str(threads)]
    return [float(cell) for cell in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\t")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program")
    parser.add_argument("--work", type=Path, required=True)
    for flag, default in (("--stations", 10), ("--sensors", 10), ("--days", 60), ("--rounds", 3), ("--threads", 0)):
        parser.add_argument(flag, type=int, default=default)
    parser.add_argument("--child")
    parser.add_argument("--place", type=Path)
    arguments = parser.parse_args()
    points = arguments.work.absolute() / "points"
    if arguments.child:
        children = {"duckdb": duckdb_child, "clickhouse": clickhouse_child}
        return children[arguments.child](arguments.place, points, arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    if not points.joinpath("size").exists():
        flags = [f"--{name}={getattr(arguments, name)}".split("=") for name in ("stations", "sensors", "days")]
        subprocess.run([arguments.program, "make", points, *sum(flags, [])], check=True)
    places = {"duckdb": arguments.work / "one.duckdb", "clickhouse": arguments.work / "clickhouse"}
    for kind, make in (("duckdb", make_duckdb), ("clickhouse", make_clickhouse)):
        if not places[kind].exists():
            make(places[kind], points / "plain.parquet")
    import duckdb
    import chdb
    import pyarrow.parquet

    rows = pyarrow.parquet.read_metadata(points / "plain.parquet").num_rows
    stations, sensors, days = size_of(points)
    print(f"{rows} readings: {stations} stations, {sensors} sensors each, every 10 s for {days:g} days; {arguments.rounds} rounds")
    print(f"load {os.getloadavg()[0]:.1f}; DuckDB {duckdb.__version__}, chDB {chdb.__version__}")
    asked = {"DuckDB, its own format": ("duckdb", places["duckdb"]), "chDB, MergeTree": ("clickhouse", places["clickhouse"])}
    for folder in sorted(path for path in points.iterdir() if path.is_dir()):
        asked[f"DuckDB over: {folder.name}"] = ("duckdb", folder)
    for threads in (1, 2):
        print(f"\nthreads: {threads}\n| layout | bytes/reading | day, ms | of the processor | 45 days' hours, ms | of the processor |")
        print("|---|---|---|---|---|---|", flush=True)
        best, rows_seen = {}, set()
        for _ in range(arguments.rounds):
            told = ours(arguments.program, points, threads) if arguments.program else {}
            for name, (kind, place) in asked.items():
                day_rows, day, day_cpu, hours_rows, hours, hours_cpu = child(kind, place, points, threads)
                told[name] = [bytes_in(place) / rows, day, day_cpu, hours, hours_cpu]
                rows_seen.add((day_rows, hours_rows))
            for name, figures in told.items():
                best[name] = [min(pair) for pair in zip(figures, best.get(name, figures))]
        if len(rows_seen) != 1:
            sys.exit(f"the answers differ in their rows: {rows_seen}")
        for name, (each, day, day_cpu, hours, hours_cpu) in best.items():
            print(f"| {name} | {each:.3f} | {day:.2f} | {day_cpu:.2f} | {hours:.1f} | {hours_cpu:.1f} |", flush=True)


if __name__ == "__main__":
    main()
