"""The same hours, by DuckDB from the same Parquet files.

Two questions, each the best of five rounds: all hours of all sensors from `readings`, and thirty days of hours of thirty
sensors, which is what a dashboard without rollups would ask. Which row counts is as in `observations`. DuckDB is told
nothing of the register, so it adds up everything and knows no counters and angles: less than the rollup does.
"""

import glob
import sys
import time

import duckdb

HOURS = """
WITH best AS (
    SELECT sensor, time, value, quality FROM read_parquet({files})
    WHERE {where}
    QUALIFY row_number() OVER (PARTITION BY sensor, time
        ORDER BY coalesce(cause IN ('not_assigned', 'unit', 'future'), false), revision DESC, received DESC,
            source DESC, epoch DESC, seq DESC) = 1)
SELECT sensor, epoch_us(time) // 3600000000 AS hour, quality, count(*), count(value), sum(value), min(value), max(value),
    arg_min(value, time), min(time), arg_max(value, time), max(time)
FROM best GROUP BY ALL
"""
#: As in pipeline/benches/rollup.rs.
KINDS = ["sample", "interval_mean", "interval_sum", "counter", "angle", "state"]
ROUNDS = 5


def ask(base: duckdb.DuckDBPyConnection, title: str, sql: str) -> None:
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        # The rows stay with DuckDB: to make them Python's would be most of the time.
        base.execute(f"CREATE OR REPLACE TEMP TABLE answer AS {sql}")
        times.append(time.perf_counter() - began)
    (rows,) = base.execute("SELECT count(*) FROM answer").fetchone()
    print(f"| {title} | {rows} | {min(times) * 1e3:.1f} |")


def main() -> None:
    files = sorted(glob.glob(sys.argv[1] + "/*.parquet"))
    base = duckdb.connect()
    base.execute("SET TimeZone = 'UTC'")
    print(f"\n| DuckDB {duckdb.__version__}, from readings | rows | ms |\n|---|---|---|")
    ask(base, "all hours of all sensors", HOURS.format(files=files, where="true"))
    (newest,) = base.execute(f"SELECT epoch_us(max(time)) FROM read_parquet({files})").fetchone()
    names = ", ".join(f"'site-{sensor:03}/{KINDS[sensor % len(KINDS)]}'" for sensor in range(30))
    where = f"sensor IN ({names}) AND time >= make_timestamptz({newest - 30 * 86_400_000_000})"
    ask(base, "30 days of 30 sensors", HOURS.format(files=files, where=where))


main()
