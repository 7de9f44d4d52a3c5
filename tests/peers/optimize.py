"""Somebody else's `OPTIMIZE` beside our own compaction: it breaks neither order nor answers.

1. Why we have a compactor of our own: two of Python's `deltalake` compact one table from one version, both commit, and every
   row is there twice.
2. A foreign OPTIMIZE between two of ours: the rows stay, sorted queries are sorted, `tjern pipeline verify` finds nothing.
3. A foreign OPTIMIZE that read before ours committed is refused.
4. One of ours that had written its files when a foreign OPTIMIZE committed is refused.
5. Both at once, several times, after appends: whatever comes first, the rows stay.

Exit status 0 where all of it holds.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import deltalake
import polars as pl

DAY_US = 86_400_000_000
BEGIN_US = 1_780_272_000_000_000  # 2026-06-01
FILE_ROWS = 200


class Failure(Exception):
    """Something did not hold."""


def say(text: str) -> None:
    print(f"peers: optimize: {text}", flush=True)


class Lake:
    """A lake, and what was written into it."""

    def __init__(self, folder: Path, tjern: Path, seed: int):
        self.tjern_binary, self.config = tjern, folder / "tjern.toml"
        lake = folder / "lake"
        self.config.write_text(f'version = 1\nlake = "{lake.as_uri()}"\n', encoding="utf-8")
        self.table, self.chance, self.written = str(lake / "tables" / "readings"), random.Random(seed), 0
        self.tjern("pipeline", "ingest")

    def tjern(self, *arguments: str) -> subprocess.CompletedProcess:
        command = [self.tjern_binary, *arguments, "--config", self.config]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failure(f"`{' '.join(map(str, command))}` ended with status {done.returncode}:\n{done.stderr}")
        return done

    def files(self) -> set[str]:
        return {path.relative_to(self.table).as_posix() for path in Path(self.table).rglob("*.parquet") if "_delta_log" not in path.parts}

    def is_committed(self, file: str) -> bool:
        """Whether any commit has added it."""
        log = (line for path in Path(self.table, "_delta_log").glob("*.json") for line in path.read_text(encoding="utf-8").splitlines())
        return any(json.loads(line).get("add", {}).get("path") == file for line in log)

    def stopped_before_its_commit(self) -> tuple[subprocess.Popen, set[str]] | None:
        """A compaction of ours that stands still, and the files that it has written; None where it was done before."""
        before = self.files()
        command = [self.tjern_binary, "pipeline", "compact", "--config", self.config]
        ours = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while not (new := self.files() - before) and ours.poll() is None:
            time.sleep(0.0005)
        if ours.poll() is None:
            ours.send_signal(signal.SIGSTOP)
            # It stands still once the system says so, and only then is what it has done known.
            _, status = os.waitpid(ours.pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                ours.returncode = os.waitstatus_to_exitcode(status)
            elif any(map(self.is_committed, new)):
                ours.send_signal(signal.SIGCONT)
            else:
                return ours, new
        if ours.wait() != 0:
            raise Failure(f"our compaction ended with status {ours.returncode}")
        return None

    def append(self, files: int) -> None:
        """Files of one day, whose rows come in no order."""
        for _ in range(files):
            numbers = list(range(self.written, self.written + FILE_ROWS))
            self.chance.shuffle(numbers)
            seq = pl.Series("seq", numbers, dtype=pl.Int64)
            frame = pl.DataFrame({"seq": seq}).select(
                sensor=pl.format("tarn-{}/level", pl.col("seq") % 7),
                time=(BEGIN_US + pl.col("seq") * 1_000_003 % DAY_US).cast(pl.Datetime("us", "UTC")),
                value=pl.col("seq").cast(pl.Float64),
                quality=pl.lit(1, dtype=pl.Int8),
                cause=pl.lit(None, dtype=pl.String),
                lag_ms=pl.lit(None, dtype=pl.Int32),
                source=pl.lit("landfall-01"),
                epoch=pl.lit("0123456789abcdef0123456789abcdef"),
                seq="seq",
                revision=pl.lit(0, dtype=pl.Int16),
                level=pl.lit(0, dtype=pl.Int8),
                tests=pl.lit(None, dtype=pl.Int32),
                received=pl.lit(BEGIN_US, dtype=pl.Int64).cast(pl.Datetime("us", "UTC")),
            )
            frame.write_delta(self.table, mode="append")
            self.written += FILE_ROWS

    def check(self, when: str) -> int:
        """Everything is there once, in order where it was asked for. Returns the number of files."""
        wanted = self.written, self.written * (self.written - 1) // 2
        frame = pl.read_delta(self.table)
        got = len(frame), frame["seq"].sum()
        if got != wanted or frame["seq"].n_unique() != wanted[0]:
            raise Failure(f"{when}: Polars counts {got}, {frame['seq'].n_unique()} different; written were {wanted}")
        sql = "SELECT sensor, time, seq FROM readings ORDER BY sensor, time, seq"
        answer = self.tjern("query", sql, "--format", "csv").stdout.splitlines()[1:]
        in_order = frame.sort("sensor", "time", "seq")["seq"].to_list()
        if [int(line.rsplit(",", 1)[1]) for line in answer] != in_order:
            raise Failure(f"{when}: `tjern query` hands out another order than Polars")
        self.tjern("pipeline", "verify")
        return len(deltalake.DeltaTable(self.table).file_uris())


def foreign(table: str) -> str:
    """What became of a foreign OPTIMIZE."""
    try:
        done = deltalake.DeltaTable(table).optimize.compact()
        return f"{done['numFilesRemoved']} files became {done['numFilesAdded']}"
    except Exception as error:  # The library has no one class for a refused commit.
        return f"refused: {error}".splitlines()[0]


def doubles(folder: Path) -> None:
    table = str(folder / "doubled")
    for part in range(6):
        pl.DataFrame({"x": range(part * 100, part * 100 + 100)}).write_delta(table, mode="append")
    one, other = deltalake.DeltaTable(table), deltalake.DeltaTable(table)
    one.optimize.compact()
    other.optimize.compact()
    count = len(pl.read_delta(table))
    if count != 1_200:
        raise Failure(f"two OPTIMIZE at once left {count} rows of 600: the reason for a compactor of our own has gone")
    say(f"two of deltalake {deltalake.__version__} at once: 600 rows became {count}")


def between(lake: Lake) -> None:
    for round_ in range(2):
        lake.append(8)
        lake.check("after appends")
        ours = lake.tjern("pipeline", "compact").stderr.strip().splitlines()[-1]
        lake.check("after ours")
        lake.append(3)
        theirs = foreign(lake.table)
        if theirs.startswith("refused"):
            raise Failure(f"nobody else was there, and OPTIMIZE was {theirs}")
        files = lake.check("after theirs")
        say(f"between: ours: {ours}; theirs: {theirs}; {files} files, {lake.written} rows, sorted and whole")


def stale(lake: Lake) -> None:
    lake.append(8)
    before = deltalake.DeltaTable(lake.table)
    lake.tjern("pipeline", "compact")
    try:
        before.optimize.compact()
    except Exception as error:
        say(f"stale: theirs was refused: {str(error).splitlines()[0]}")
    else:
        lake.check("after a stale OPTIMIZE")
        raise Failure("an OPTIMIZE of files that ours had removed was accepted")
    lake.check("after a stale OPTIMIZE")


def overtaken(lake: Lake) -> None:
    for attempt in range(1, 51):
        lake.append(6)
        stopped = lake.stopped_before_its_commit()
        if stopped is None:
            continue
        ours, written = stopped
        theirs = foreign(lake.table)
        ours.send_signal(signal.SIGCONT)
        if theirs.startswith("refused"):
            raise Failure(f"ours stood still, and OPTIMIZE was {theirs}")
        if ours.wait() != 0:
            raise Failure(f"our compaction, overtaken, ended with status {ours.returncode}")
        if any(map(lake.is_committed, written)):
            raise Failure("files of ours were committed over a foreign OPTIMIZE of what they were made of")
        lake.check("after one of ours that was overtaken")
        say(f"overtaken: theirs: {theirs}; ours was refused, at attempt {attempt}")
        return
    raise Failure("in 50 attempts none of ours was caught before its commit")


def race(lake: Lake, rounds: int) -> None:
    outcomes: dict[str, int] = {}
    for round_ in range(rounds):
        lake.append(6)
        with ThreadPoolExecutor(2) as both:
            ours = both.submit(lake.tjern, "pipeline", "compact")
            theirs = both.submit(foreign, lake.table)
            ours, theirs = ours.result().stderr.strip().splitlines()[-1], theirs.result()
        lake.check(f"after race {round_}: ours {ours}, theirs {theirs}")
        won = "theirs refused" if theirs.startswith("refused") else "ours did nothing" if " 0 files" in ours else "one after the other"
        outcomes[won] = outcomes.get(won, 0) + 1
    say(f"race: {rounds} rounds, {outcomes}; {lake.written} rows, each once")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=Path, required=True, help="the folder with `tjern`")
    parser.add_argument("--work", type=Path, required=True, help="an empty folder")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    try:
        doubles(arguments.work)
        lake = Lake(arguments.work.resolve(), arguments.bin.resolve() / "tjern", arguments.seed)
        between(lake)
        stale(lake)
        overtaken(lake)
        race(lake, arguments.rounds)
    except Failure as failure:
        print(f"peers: optimize: FAILED: {failure}", file=sys.stderr)
        return 1
    say("order and answers stand")
    return 0


if __name__ == "__main__":
    sys.exit(main())
