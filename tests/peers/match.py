"""What was served against what is stored.

Of each sensor the answers that a device gave and the rows that are stored are walked through side by
side. An answer may be without a row only where the design says so: the first poll after a start,
and what was served so shortly before a kill that it was not synced yet. Everything else must stand
in the table once, in order, with its slot before the moment it was served and with its value to the bit.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace

from stations import ANSWERS, STATIONS, Point, Station


@dataclass(frozen=True)
class Run:
    """One life of the gateway. What is served after its end and before the next belongs to it."""

    started_us: int
    ended_us: int
    killed: bool


@dataclass(frozen=True)
class Row:
    """A stored reading."""

    sensor: str
    time_us: int
    value: float | None
    quality: int
    epoch: str
    seq: int


@dataclass(frozen=True)
class Served:
    """A value that a device gave, in which of its answers."""

    us: int
    value: float
    answer: int


@dataclass
class Verdict:
    """What was found."""

    problems: list[str] = field(default_factory=list)
    matched: int = 0
    first_polls: int = 0
    unsynced: int = 0
    #: Which slots the values of an answer are stored under.
    slots: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))

    def say(self, text: str) -> None:
        self.problems.append(text)


@dataclass(frozen=True)
class Limits:
    """Within which times an answer may be without a row."""

    #: `sync_every`, and what a busy machine may need on top of it.
    sync_us: int
    #: The longest that an answer may take: the bus's `timeout`.
    timeout_us: int


def served_values(log: list[dict], measurements: dict[str, list[dict[str, str]]]) -> dict[str, list[Served]]:
    """What each sensor was served, each answer held against the data it was to be made of."""
    stations = {station.unit: station for station in STATIONS}
    served = defaultdict(list)
    for number, answer in enumerate(log):
        station = stations[answer["unit"]]
        row = measurements[station.name][answer["row"]]
        for point in asked(station, answer):
            start = point.address - answer["address"]
            words = answer["words"][start : start + point.width]
            text = str(answer["answers"]) if point.column == ANSWERS else row[point.column]
            if words != point.words(text):
                raise SystemExit(f"the device served {words} for {station.sensor(point)} = {text}")
            served[station.sensor(point)].append(Served(answer["us"], point.value(words), number))
    return served


def asked(station: Station, answer: dict) -> list[Point]:
    """The points whose registers an answer has."""
    start, end = answer["address"], answer["address"] + len(answer["words"])
    return [point for point in station.points if start <= point.address and point.address + point.width <= end]


def check(served: dict[str, list[Served]], stored: list[Row], runs: list[Run], limits: Limits) -> Verdict:
    """Holds all that was served against all that is stored."""
    verdict = Verdict()
    check_identities(stored, verdict)
    every_us = {station.sensor(point): point.every_ms * 1000 for station in STATIONS for point in station.points}
    by_sensor = defaultdict(list)
    for row in stored:
        by_sensor[row.sensor].append(row)
    unstored = unstored_answers(served, stored)
    for sensor in sorted(by_sensor.keys() | served.keys()):
        if sensor.startswith("_system/"):
            # The gateway's own, once an hour: no device served them.
            continue
        if sensor not in every_us:
            verdict.say(f"{sensor}: nobody configured it")
            continue
        rows = sorted(by_sensor[sensor], key=lambda row: row.time_us)
        check_sensor(sensor, every_us[sensor], served[sensor], rows, unstored.get(sensor, set()), runs, limits, verdict)
    for answer, slots in verdict.slots.items():
        if len(slots) > 1:
            verdict.say(f"answer {answer}: its values are stored under several slots: {sorted(slots)}")
    return verdict


def unstored_answers(served: dict[str, list[Served]], stored: list[Row]) -> dict[str, set[int]]:
    """For each sensor the answers of which it is known that nothing is stored: their own number is not.

    Points of one period stand and fall together. A measurement may be the same in two answers, the number
    never is: a first poll that ends beyond the border of its slot could else be taken for the next slot's.
    """
    known = {}
    for station in STATIONS:
        counter = next(point for point in station.points if point.column == ANSWERS)
        sensor = station.sensor(counter)
        numbers = {row.value for row in stored if row.sensor == sensor}
        unstored = {one.answer for one in served.get(sensor, []) if one.value not in numbers}
        known |= {station.sensor(point): unstored for point in station.points if point.every_ms == counter.every_ms}
    return known


def check_identities(stored: list[Row], verdict: Verdict) -> None:
    """No row twice, no number of the spool twice, and none left out."""
    for what, count in Counter((row.sensor, row.time_us) for row in stored).items():
        if count > 1:
            verdict.say(f"{what[0]}: slot {what[1]} is stored {count} times")
    numbers = defaultdict(list)
    for row in stored:
        numbers[row.epoch].append(row.seq)
    if len(numbers) > 1:
        verdict.say(f"{len(numbers)} epochs, where one spool was used")
    for epoch, seqs in numbers.items():
        if sorted(seqs) != list(range(1, len(seqs) + 1)):
            verdict.say(f"epoch {epoch}: the numbers are not 1 to {len(seqs)}, each once")


def check_sensor(
    sensor: str,
    every_us: int,
    served: list[Served],
    rows: list[Row],
    unstored: set[int],
    runs: list[Run],
    limits: Limits,
    verdict: Verdict,
) -> None:
    """Walks through one sensor's answers and rows. Of the answers `unstored` nothing is stored."""
    rest = iter(rows)
    row = next(rest, None)
    previous, is_first, is_lost = None, True, False
    for answer in served:
        run = next(run for run in reversed(runs) if run.started_us <= answer.us)
        if run != previous:
            previous, is_first, is_lost = run, True, False
        may_be_stored = not is_lost and answer.answer not in unstored
        if may_be_stored and row is not None and is_same(row, answer, every_us, limits):
            verdict.matched += 1
            verdict.slots[answer.answer].add(row.time_us)
            if row.time_us % every_us:
                verdict.say(f"{sensor}: {row.time_us} is no slot of its grid")
            row = next(rest, None)
        elif is_first:
            verdict.first_polls += 1
        elif run.killed and answer.us > run.ended_us - limits.sync_us:
            # Nothing of this life may come after what was lost.
            verdict.unsynced += 1
            is_lost = True
        else:
            verdict.say(f"{sensor}: {answer.value!r}, served at {answer.us}, is not stored (the next row is {row})")
        is_first = False
    while row is not None:
        verdict.say(f"{sensor}: {row} was never served, or is stored twice")
        row = next(rest, None)


def is_same(row: Row, answer: Served, every_us: int, limits: Limits) -> bool:
    """A poll is begun in its slot, and answered within the timeout."""
    in_time = row.time_us <= answer.us < row.time_us + every_us + limits.timeout_us
    return in_time and row.value == answer.value and row.quality == 2


def canaries(served: dict[str, list[Served]], stored: list[Row], runs: list[Run], limits: Limits) -> list[str]:
    """Damages what is stored in ways that must be noticed. Returns those that were not."""
    candidates = [row for row in stored if row.sensor == "tiefenbrunnen/air_temperature"]
    row = candidates[len(candidates) // 2]
    others = [one for one in stored if one is not row]
    changes = {
        "a lost row": others,
        "a row twice": [*stored, row],
        "a row in two slots": [*stored, replace(row, time_us=row.time_us + 100_000, seq=len(stored) + 1)],
        "another value": [*others, replace(row, value=row.value + 1e-9)],
        "another slot": [*others, replace(row, time_us=row.time_us - 100_000)],
        "a missing value": [*others, replace(row, value=None, quality=9)],
        "a number twice": [*others, replace(row, seq=row.seq + 1)],
        "an end cut off": [one for one in stored if one.seq < len(stored) - 50],
    }
    return [name for name, changed in changes.items() if not check(served, changed, runs, limits).problems]
