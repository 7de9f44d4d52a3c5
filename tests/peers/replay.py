"""Real measurements through a foreign device and the gateway into a lake, read by foreign readers.

1. `device.py` replays the measurements over Modbus TCP, a row an answer, and writes down what it served.
2. The gateway polls it in four lives: two are killed, two are told to stop; one ingest runs meanwhile.
3. Ingest, twice: the second time there is nothing to do.
4. Every value served must stand in `readings` once (`match.py`); Polars hands out the rows.
5. Python's `deltalake`, Polars and `tjern query` count the same, also after a compaction.

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
from pathlib import Path

import deltalake
import polars

import match
from stations import STATIONS, Point, Station, rows

SYNC_EVERY_MS = 1_000
#: A group commit waits for `sync_every`, then for the disk; a machine that also builds needs some more.
#: Answers may take far longer than a poll's period: on a busy machine they are late, and not lost.
TIMEOUT_S = 20
LIMITS = match.Limits(sync_us=(SYNC_EVERY_MS + 2_000) * 1000, timeout_us=TIMEOUT_S * 1_000_000)
#: A life of the gateway that is too short shows nothing.
LIFE_MIN_S = 4.0
END_PATIENCE_S = 30
#: A device answers a gateway that was killed meanwhile; that shall not be taken for the next one's.
SILENCE_S = 0.3


class City:
    """A folder with configurations, a lake and a spool, and the programs that work on it."""

    def __init__(self, folder: Path, bin_folder: Path, port: int):
        self.folder, self.bin_folder = folder, bin_folder
        self.gateway_toml, self.tjern_toml = folder / "gateway.toml", folder / "tjern.toml"
        self.lake = folder / "lake"
        self.gateway_toml.write_text(gateway_toml(self.lake, folder / "spool", port), encoding="utf-8")
        self.tjern_toml.write_text(f'version = 1\nlake = "{self.lake.as_uri()}"\n', encoding="utf-8")
        self.runs: list[match.Run] = []

    def start_gateway(self) -> subprocess.Popen:
        log = (self.folder / f"gateway-{len(self.runs) + 1}.log").open("w", encoding="utf-8")
        command = [self.bin_folder / "tjern-gateway", "run", "--config", self.gateway_toml]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)

    def live(self, seconds: float, end: signal.Signals, meanwhile=None) -> None:
        """One life of the gateway."""
        started_us = now_us()
        gateway = self.start_gateway()
        try:
            if meanwhile is not None:
                time.sleep(seconds / 2)
                meanwhile()
            left = started_us / 1e6 + seconds - time.time()
            time.sleep(max(left, 0))
            if gateway.poll() is not None:
                raise Failure(f"the gateway ended by itself with status {gateway.returncode}{self.last_log()}")
            killed = end == signal.SIGKILL
            gateway.send_signal(end)
            signalled_us = now_us()
            status = gateway.wait(END_PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise Failure(f"the gateway did not end within {END_PATIENCE_S} s of {end.name}{self.last_log()}") from None
        finally:
            if gateway.poll() is None:
                gateway.kill()
                gateway.wait()
        wanted = -signal.SIGKILL if killed else 0
        if status != wanted:
            raise Failure(f"the gateway ended with status {status} after {end.name}{self.last_log()}")
        ended_us = now_us()
        self.runs.append(match.Run(started_us, ended_us, killed))
        took_ms = (ended_us - signalled_us) / 1000
        say(f"gateway: {seconds:.1f} s, then {end.name}: ended after {took_ms:.0f} ms with status {status}")
        time.sleep(SILENCE_S)

    def last_log(self) -> str:
        logs = sorted(self.folder.glob("gateway-*.log"))
        return "\n" + logs[-1].read_text(encoding="utf-8")[-2_000:] if logs else ""

    def tjern(self, *arguments: str) -> str:
        command = [self.bin_folder / "tjern", *arguments, "--config", self.tjern_toml]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            shown = " ".join(str(word) for word in command)
            raise Failure(f"`{shown}` ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def count(self) -> int:
        """The rows as our own SQL counts them."""
        answer = self.tjern("query", "SELECT count(*) AS rows FROM readings", "--format", "csv")
        header, count = answer.split()
        if header != "rows":
            raise Failure(f"the header of the CSV is {header!r}")
        return int(count)


class Failure(Exception):
    """Something did not hold."""


def now_us() -> int:
    return time.time_ns() // 1000


def say(text: str) -> None:
    print(f"peers: {text}", flush=True)


def gateway_toml(lake: Path, spool: Path, port: int) -> str:
    """A bus for each station, both on the device's one port."""
    parts = [
        f'version = 1\ngateway = "peers-01"\nlake = "{lake.as_uri()}"\n\n'
        f'[spool]\ndir = "{spool}"\nsync_every = "{SYNC_EVERY_MS}ms"\n\n[upload]\nevery = "300ms"\n'
    ]
    for station in STATIONS:
        parts.append(
            f'\n[[bus]]\nname = "{station.name}"\nkind = "modbus-tcp"\n'
            f'address = "127.0.0.1:{port}"\ntimeout = "{TIMEOUT_S}s"\n\n'
            f'[[bus.device]]\nname = "{station.name}"\nunit_id = {station.unit}\n'
        )
        parts.extend(point_toml(station, point) for point in station.points)
    return "".join(parts)


def point_toml(station: Station, point: Point) -> str:
    return (
        f'\n[[bus.device.point]]\nsensor = "{station.sensor(point)}"\nregister = "{station.table}:{point.address}"\n'
        f'type = "{point.type}"\norder = "{point.order}"\nscale = {point.scale}\nevery = "{point.every_ms}ms"\n'
    )


def stored_rows(table: Path) -> list[match.Row]:
    """The table as Polars reads it."""
    columns = ["sensor", "time", "value", "quality", "epoch", "seq"]
    frame = polars.read_delta(str(table)).select(columns)
    frame = frame.with_columns(polars.col("time").dt.timestamp("us"), polars.col("sensor", "epoch").cast(polars.String))
    return [match.Row(*row) for row in frame.iter_rows()]


def count_everywhere(city: City) -> tuple[int, int]:
    """The table's version, and its rows as three programs count them, which has to be the same."""
    path = str(city.lake / "tables" / "readings")
    table = deltalake.DeltaTable(path)
    by_deltalake = deltalake.QueryBuilder().register("readings", table).execute("SELECT count(*) AS n FROM readings")
    counts = {
        "deltalake": by_deltalake.read_all()["n"][0].as_py(),
        "polars": polars.scan_delta(path).select(polars.len()).collect().item(),
        "tjern query": city.count(),
    }
    if len(set(counts.values())) != 1:
        raise Failure(f"they do not count the same: {counts}")
    say(f"version {table.version()} of readings, {len(table.file_uris())} files: {counts}")
    return table.version(), counts["tjern query"]


def start_device(folder: Path, data: Path, first_row: int) -> tuple[subprocess.Popen, int]:
    command = [sys.executable, "-B", Path(__file__).with_name("device.py"), "--data", data]
    command += ["--log", folder / "served.jsonl", "--first-row", str(first_row)]
    device = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    line = device.stdout.readline()
    if not line.strip().isdigit():
        device.kill()
        raise Failure("the device did not start")
    return device, int(line)


def live_four_lives(city: City, seconds: float, seed: random.Random) -> None:
    """Lengths that are never the same; ingest is at work while the third one lives."""
    share = [seed.uniform(0.5, 1.5) for _ in range(4)]
    lengths = [max(LIFE_MIN_S, seconds * one / sum(share)) for one in share]
    city.live(lengths[0], signal.SIGKILL)
    city.live(lengths[1], signal.SIGINT)
    city.live(lengths[2], signal.SIGKILL, meanwhile=lambda: ingest_often(city, lengths[2] / 2))
    city.live(lengths[3], signal.SIGTERM)


def ingest_often(city: City, seconds: float) -> None:
    """Many small commits, while the gateway uploads: something to compact."""
    end = time.time() + seconds
    while time.time() < end:
        city.tjern("pipeline", "ingest")


def compare(city: City, folder: Path, data: Path) -> None:
    log = [json.loads(line) for line in (folder / "served.jsonl").read_text(encoding="utf-8").splitlines()]
    served = match.served_values(log, {station.name: rows(data, station) for station in STATIONS})
    stored = stored_rows(city.lake / "tables" / "readings")
    verdict = match.check(served, stored, city.runs, LIMITS)
    say(
        f"{len(log)} answers with {sum(map(len, served.values()))} values served, {len(stored)} stored, "
        f"{verdict.matched} matched; not stored: {verdict.first_polls} of first polls, "
        f"{verdict.unsynced} served within {LIMITS.sync_us // 1000} ms of a kill"
    )
    if verdict.problems:
        shown = "\n  ".join(verdict.problems[:20])
        raise Failure(f"{len(verdict.problems)} things are wrong:\n  {shown}")
    if not verdict.matched:
        raise Failure("nothing was stored at all")
    lived_us = sum(run.ended_us - run.started_us for run in city.runs)
    for station in STATIONS:
        every_us = station.points[0].every_ms * 1000
        polled = sum(row.sensor == station.sensor(station.points[0]) for row in stored)
        say(f"{station.name}: {polled} slots of {every_us // 1000} ms in {lived_us / 1e6:.1f} s, starts included")
    if missed := match.canaries(served, stored, city.runs, LIMITS):
        raise Failure(f"the check does not notice {', '.join(missed)}")


def play(folder: Path, bin_folder: Path, data: Path, seconds: float, seed: int) -> None:
    chance = random.Random(seed)
    device, port = start_device(folder, data, chance.randrange(30_000))
    try:
        city = City(folder, bin_folder, port)
        live_four_lives(city, seconds, chance)
        if device.poll() is not None:
            raise Failure("the device ended meanwhile")
    finally:
        device.terminate()
        device.wait()
    city.tjern("pipeline", "ingest")
    before = count_everywhere(city)
    city.tjern("pipeline", "ingest")
    if count_everywhere(city) != before:
        raise Failure("an ingest with nothing to do changed the table")
    compare(city, folder, data)
    city.tjern("pipeline", "compact")
    if count_everywhere(city)[1:] != before[1:]:
        raise Failure("a compaction changed how many rows there are")
    compare(city, folder, data)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=Path, required=True, help="the folder with `tjern` and `tjern-gateway`")
    parser.add_argument("--data", type=Path, required=True, help="the folder with the measurements")
    parser.add_argument("--work", type=Path, required=True, help="an empty folder for lake, spool and logs")
    parser.add_argument("--seconds", type=float, default=40, help="how long the gateway lives in all")
    parser.add_argument("--seed", type=int, default=os.environ.get("TJERN_SEED"), help="a run that was printed, again")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else int.from_bytes(os.urandom(4), "big")
    say(f"seed {seed}, {arguments.seconds:.0f} s")
    try:
        play(arguments.work.resolve(), arguments.bin.resolve(), arguments.data.resolve(), arguments.seconds, seed)
    except Failure as failure:
        print(f"peers: FAILED: {failure}", file=sys.stderr)
        return 1
    say("all that was served is stored, once; deltalake and Polars agree")
    return 0


if __name__ == "__main__":
    sys.exit(main())
