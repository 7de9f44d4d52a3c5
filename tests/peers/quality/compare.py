"""Flags of ioos_qc and of Tjern on random series. Every difference has to be one that docs/quality.md explains.

Each test by itself, with the same parameters: hourly values with a daily wave, noise, steps, spikes, flat stretches and missing values,
from a seed. Then how long each takes over the same points, without reading and writing them."""

import argparse
import re
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from ioos_qc import qartod

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


# name, our line, theirs
def tests():
    hour = 3600
    months = [dict(tspan=(month, month), vspan=(8 + month / 4, 22 - month / 4), fspan=(2, 30), period="month") for month in range(1, 13)]
    climatology = "\n".join(f"t/t,climatology,{m},suspect={8 + m / 4}..{22 - m / 4} fail=2..30" for m in range(1, 13))
    yield "range", "t/t,range,,suspect=9..21 fail=5..25", lambda v, t: qartod.gross_range_test(v, (5, 25), (9, 21))
    yield "climatology", climatology, lambda v, t: qartod.climatology_test(months, v, t, np.full(len(v), np.nan))
    yield "spike", "t/t,spike,,suspect=1.5 fail=4", lambda v, t: qartod.spike_test(v, 1.5, 4, method="differential")
    rate = "t/t,rate_of_change,,suspect=2 fail=5 per=1h"
    yield "rate_of_change", rate, lambda v, t: qartod.rate_of_change_test(v, t, 2 / hour, 5 / hour)
    flat = "t/t,flat_line,,suspect=5h fail=8h tolerance=0.01"
    yield "flat_line", flat, lambda v, t: qartod.flat_line_test(v, t, 5 * hour, 8 * hour, 0.01)
    attenuated = "t/t,attenuated_signal,,suspect=4 fail=1 period=12h count=9"
    their = lambda v, t: qartod.attenuated_signal_test(v, t, 4, 1, 12 * hour, min_obs=9, check_type="range")
    yield "attenuated_signal", attenuated, their
    yield "gap", "t/t,gap,,longer=2h", lambda v, t: qartod.time_gap_test(t, 2)


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


def explained(name, row, values, theirs, our):
    """Whether docs/quality.md has this difference."""
    near_missing = bool(np.isnan(values[max(0, row - 12) : row + 2]).any())
    if name == "climatology":
        return np.isnan(values[row]) and (theirs, our) == (1, 9)
    if name == "spike":
        return theirs == 2 and near_missing
    if name == "rate_of_change":
        return (row == 0 and our == 2) or (theirs == 1 and np.isnan(values[row - 1]))
    if name == "flat_line":
        return (theirs == 1 and our == 2 and (row < 8 or near_missing)) or near_missing
    if name == "attenuated_signal":
        return theirs == 2 and near_missing
    if name == "gap":
        return row == 0 or near_missing
    return False


#: The tests that are timed together: those that need no season.
TOGETHER = ["range", "spike", "rate_of_change", "flat_line", "attenuated_signal", "gap"]


def speed(arguments, random, start):
    """Points a second of each test and of six together: the best of some rounds, ours and theirs in turn."""
    values = series(random, arguments.points, missing=False)
    times = start + HOUR * np.arange(len(values), dtype="int64")
    stamps = times.astype("datetime64[us]").astype("datetime64[ns]")
    every = {name: (line, their) for name, line, their in tests()}
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
    arguments.add_argument("--points", type=int, default=100_000)
    arguments.add_argument("--rounds", type=int, default=1)
    arguments = arguments.parse_args()
    print(f"peers: quality beside ioos_qc, seed {arguments.seed}")
    random, wrong = np.random.default_rng(arguments.seed), 0
    start = int(np.datetime64("2026-01-01T00:00:00", "us").astype("int64"))
    for name, line, their in tests():
        same = differences = 0
        for number in range(arguments.series):
            values = series(random, 2_000, missing=number % 2 == 1)
            times = start + HOUR * np.arange(len(values), dtype="int64")
            theirs = np.ma.filled(np.ma.array(their(values, times.astype("datetime64[us]").astype("datetime64[ns]"))), 9).astype(int)
            our, _ = ours(arguments.bin, name, line, times, values)
            if name == "gap":
                theirs[np.isnan(values)] = 9
            for row in np.flatnonzero(theirs != our):
                if explained(name, row, values, theirs[row], our[row]):
                    differences += 1
                else:
                    wrong += 1
                    print(f"  {name}: series {number}, row {row}: theirs {theirs[row]}, ours {our[row]}, {values[max(0, row - 3) : row + 3]}")
            same += int((theirs == our).sum())
        print(f"  {name}: {same} flags equal, {differences} different and explained")
    speed(arguments, random, start)
    if wrong:
        sys.exit(f"peers: {wrong} flags differ from ioos_qc's, and docs/quality.md does not say why")


main()
