"""Flags of ioos_qc and of Tjern on the same series. A difference has to be one that docs/quality.md explains, in the row that causes it, and with the
flag that the page says (differences.py).

Each test by itself, with the same parameters: values with a daily wave, noise, steps, spikes, flat stretches and missing values, from a seed,
hourly and at uneven times; and a real series, where there is one (`--real`). Then the canary: with another threshold in our rules each test has
to be found different. Then how long each takes over the same points, without reading and writing them."""

import argparse
import gzip
import re
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import differences
import numpy as np
from ioos_qc import qartod
from skipped import skip

warnings.filterwarnings("ignore")
HOUR = 3_600_000_000
PLACES = {"range": 0, "climatology": 4, "spike": 6, "rate_of_change": 8, "flat_line": 10, "attenuated_signal": 12, "gap": 14}
QARTOD = {0: 2, 1: 1, 2: 3, 3: 4}


def series(random, count, missing):
    hours = np.arange(count)
    values = 15 + 3 * np.sin(2 * np.pi * hours / 24) + random.normal(0, 0.2, count)
    for _ in range(count // 60):
        at, what = int(random.integers(1, count - 20)), random.integers(0, 4)
        if what == 0:
            values[at] += random.normal(0, 6)
        elif what == 1:
            values[at:] += random.normal(0, 3)
        elif what == 2:
            values[at : at + int(random.integers(3, 18))] = values[at]
        elif missing:
            values[at : at + int(random.integers(1, 4))] = np.nan
    return np.round(values, 3)


def uneven(random, count):
    """Times that are not hourly: minutes to hours apart, now and then a day and more."""
    steps = random.choice([600, 900, 1800, 3600, 3600, 3600, 5400], count)
    steps[random.random(count) < 0.01] = 3 * 3600
    steps[random.random(count) < 0.003] = 30 * 3600
    return 1_000_000 * np.cumsum(steps).astype("int64")


# name, our line, a line of ours with another threshold, theirs, what differences.py has to know
def tests(scale=1):
    hour, s = 3600, scale
    spans = {month: (8 + month / 4, 22 - month / 4) for month in range(1, 13)}
    months = [
        dict(tspan=(month, month), vspan=(low * s, high * s), fspan=(2 * s, 30 * s), period="month") for month, (low, high) in spans.items()
    ]
    lines = lambda more: "\n".join(
        f"t/t,climatology,{month},suspect={(low + more) * s}..{high * s} fail={2 * s}..{30 * s}" for month, (low, high) in spans.items()
    )
    line = "t/t,range,,suspect={}..{} fail={}..{}"
    right, wrong = line.format(9 * s, 21 * s, 5 * s, 25 * s), line.format(9 * s, 20 * s, 5 * s, 25 * s)
    yield "range", right, wrong, lambda v, t: qartod.gross_range_test(v, (5 * s, 25 * s), (9 * s, 21 * s)), {}
    yield "climatology", lines(0), lines(0.5), lambda v, t: qartod.climatology_test(months, v, t, np.full(len(v), np.nan)), {}
    line = "t/t,spike,,suspect={} fail={}"
    their = lambda v, t: qartod.spike_test(v, 1.5 * s, 4 * s, method="differential")
    yield "spike", line.format(1.5 * s, 4 * s), line.format(1.2 * s, 4 * s), their, dict(suspect=1.5 * s, fail=4 * s)
    line = "t/t,rate_of_change,,suspect={} fail={} per=1h"
    their = lambda v, t: qartod.rate_of_change_test(v, t, 2 * s / hour, 5 * s / hour)
    yield "rate_of_change", line.format(2 * s, 5 * s), line.format(2 * s, 4 * s), their, dict(suspect=2 * s, fail=5 * s)
    line = "t/t,flat_line,,suspect={}h fail={}h tolerance=0.01"
    their = lambda v, t: qartod.flat_line_test(v, t, 5 * hour, 8 * hour, 0.01)
    yield "flat_line", line.format(5, 8), line.format(5, 9), their, dict(suspect=5, fail=8, tolerance=0.01)
    line = "t/t,attenuated_signal,,suspect={} fail={} period=12h count=9"
    their = lambda v, t: qartod.attenuated_signal_test(v, t, 4 * s, 1 * s, 12 * hour, min_obs=9, check_type="range")
    known = dict(suspect=4 * s, fail=1 * s, period=12, count=9)
    yield "attenuated_signal", line.format(4 * s, 1 * s), line.format(4.3 * s, 1 * s), their, known
    yield "gap", "t/t,gap,,longer=2h", "t/t,gap,,longer=4h", lambda v, t: qartod.time_gap_test(t, 2), dict(hours=2)


def ours(binary, name, line, times, values):
    """Our flag of one test, the others off; and the seconds that the tests took, by the wall clock and by the processor."""
    flags_of, took = run(binary, [name], line, times, values)
    return flags_of(name), took


def run(binary, names, lines, times, values):
    """Our flags of some tests, the others off; and the seconds that they took."""
    rules = "sensors,test,months,parameters\n" + lines + "\n"
    rules += "".join(f"t/t,{other},,off\n" for other in [*PLACES, "exposure", "backward"] if other not in names)
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "quality.csv"
        path.write_text(rules)
        lines = "\n".join(f"{t},{'' if np.isnan(v) else repr(float(v))}" for t, v in zip(times, values))
        done = subprocess.run([binary, path, "t/t", "Cel", "sample", "-"], input=lines, capture_output=True, text=True, check=True)
    tests = [int(line.split(",")[1]) for line in done.stdout.split()]

    def flags_of(name):
        flags = np.array([QARTOD[(bits >> PLACES[name]) & 3] for bits in tests])
        flags[np.isnan(values)] = 9
        return flags

    return flags_of, [float(seconds) for seconds in re.findall(r"([0-9.]+) s", done.stderr)]


def held_against(arguments, times, values, test, line):
    """How many flags are the same; how many are different and explained, by cause; the rows that are neither."""
    name, _, _, their, limits = test
    stamps = times.astype("datetime64[us]").astype("datetime64[ns]")
    theirs = np.ma.filled(np.ma.array(their(values, stamps)), 9).astype(int)
    our, _ = ours(arguments.bin, name, line, times, values)
    causes, wanted = differences.of(name, times, values, limits)
    explained, wrong, same = {}, [], 0
    for row in range(len(values)):
        # Where a difference is explained our flag is known too, also where it happens to be theirs.
        if our[row] != (wanted[row] if causes[row] else theirs[row]):
            wrong.append((row, theirs[row], our[row], causes[row], wanted[row]))
        elif our[row] == theirs[row]:
            same += 1
        else:
            explained[causes[row]] = explained.get(causes[row], 0) + 1
    return same, explained, wrong


def all_series(arguments, random):
    """Names, times, values and by how much larger the thresholds are than those of water."""
    start = int(np.datetime64("2026-01-01T00:00:00", "us").astype("int64"))
    for number in range(arguments.series):
        values = series(random, 2_000, missing=number % 2 == 1)
        hourly = start + HOUR * np.arange(len(values), dtype="int64")
        yield f"series {number}, hourly", hourly, values, 1
        yield f"series {number}, uneven", start + uneven(random, len(values)), values, 1
    if arguments.real is None:
        skip("quality", "the real series: TJERN_QARTOD does not name the folder with ioos_20363_1000427.csv.gz")
        return
    with gzip.open(arguments.real, "rt") as lines:
        fields = [line.rstrip("\n").split(",") for line in lines][1:]
    times = 1_000_000 * np.array([int(field[1]) for field in fields], dtype="int64")
    yield f"the real series of {len(fields)} readings", times, np.array([float(field[5] or "nan") for field in fields]), 40


def compare(arguments, random):
    """Every test on every series. Returns how many flags differ without a reason, and tests whose canary was not caught."""
    total, caught, wrong_count = {}, {name: 0 for name, *_ in tests()}, 0
    for title, times, values, scale in all_series(arguments, random):
        for test in tests(scale):
            name, right, other, *_ = test
            same, explained, wrong = held_against(arguments, times, values, test, right)
            known = total.setdefault(name, [0, {}])
            known[0] += same
            for cause, count in explained.items():
                known[1][cause] = known[1].get(cause, 0) + count
            wrong_count += len(wrong)
            for row, theirs, our, cause, wanted in wrong[:5]:
                why = f"explained by `{cause}` it would be {wanted}" if cause else "no difference is known here"
                print(f"  {name}: {title}, row {row}: theirs {theirs}, ours {our}; {why}; {values[max(0, row - 3) : row + 3]}")
            caught[name] += len(held_against(arguments, times, values, test, other)[2])
    for name, (same, explained) in total.items():
        causes = "; ".join(f"{count} {cause}" for cause, count in sorted(explained.items())) or "none different"
        print(f"  {name}: {same} flags equal; {causes}; with another threshold {caught[name]} are found")
    return wrong_count, [name for name, count in caught.items() if count == 0]


#: The tests that are timed together: those that need no season.
TOGETHER = ["range", "spike", "rate_of_change", "flat_line", "attenuated_signal", "gap"]


def speed(arguments, random, start):
    """Points a second of each test and of six together: the best of some rounds, ours and theirs in turn."""
    values = series(random, arguments.points, missing=False)
    times = start + HOUR * np.arange(len(values), dtype="int64")
    stamps = times.astype("datetime64[us]").astype("datetime64[ns]")
    every = {name: (line, their) for name, line, _, their, _ in tests()}
    best = {}
    keep = lambda name, took: best.update({name: [min(pair) for pair in zip(took, best.get(name, took))]})
    for _ in range(arguments.rounds):
        together = np.zeros(2)
        for name, (line, their) in every.items():
            began, before = time.perf_counter(), time.process_time()
            their(values, stamps)
            took = np.array([time.perf_counter() - began, time.process_time() - before])
            keep(f"{name}, ioos_qc", took)
            together += took if name in TOGETHER else 0
            keep(f"{name}, ours", ours(arguments.bin, name, line, times, values)[1])
        keep("together, ioos_qc", together)
        lines = "\n".join(every[name][0] for name in TOGETHER)
        keep("together, ours", run(arguments.bin, TOGETHER, lines, times, values)[1])
    print(f"  {arguments.points} points, the best of {arguments.rounds} rounds; million points a second, by the clock and by the processor:")
    for name in [*every, "together"]:
        our, their = best[f"{name}, ours"], best[f"{name}, ioos_qc"]
        rate = lambda took: " ".join(f"{arguments.points / seconds / 1e6:.2f}" for seconds in took)
        print(f"  {name}: ours {rate(our)}, ioos_qc {rate(their)}, ratio {their[0] / our[0]:.2f} {their[1] / our[1]:.2f}")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--bin", required=True)
    arguments.add_argument("--seed", type=int, default=20170701)
    arguments.add_argument("--series", type=int, default=10)
    arguments.add_argument("--real", type=Path)
    arguments.add_argument("--points", type=int, default=100_000)
    arguments.add_argument("--rounds", type=int, default=1)
    arguments = arguments.parse_args()
    print(f"peers: quality beside ioos_qc, seed {arguments.seed}")
    random = np.random.default_rng(arguments.seed)
    wrong, missed = compare(arguments, random)
    speed(arguments, random, int(np.datetime64("2026-01-01T00:00:00", "us").astype("int64")))
    if wrong:
        sys.exit(f"peers: {wrong} flags differ from ioos_qc's, and docs/quality.md does not say why")
    if missed:
        sys.exit(f"peers: another threshold in our rules is not noticed by the comparison of {', '.join(missed)}")


main()
