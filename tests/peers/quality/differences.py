"""What docs/quality.md says of the differences between ioos_qc and Tjern, row by row.

For each test: in which rows something is there that the two treat differently, by name, and which flag ours then has to be. Written down from
the page and not from our code. In all other rows the flags have to be the same."""

import numpy as np
import pandas as pd

HOUR = 3_600_000_000
#: Readings further apart are no neighbours of ours.
REACH = 24 * HOUR
GOOD, UNKNOWN, SUSPECT, FAIL, MISSING = 1, 2, 3, 4, 9


def of(name, times, values, limits):
    """For each row the name of a difference, or an empty text; and our flag where there is one."""
    causes, flags = np.full(len(values), "", dtype=object), np.full(len(values), UNKNOWN)
    missing = np.isnan(values)
    rows = np.flatnonzero(~missing)
    if len(rows):
        DIFFERENCES[name](times, values, rows, limits, causes, flags)
    flags[missing] = MISSING
    causes[missing] = "a missing value" if name in ("climatology", "gap") else ""
    return causes, flags


def graded(size, limits):
    return FAIL if size > limits["fail"] else SUSPECT if size > limits["suspect"] else GOOD


def spike(times, values, rows, limits, causes, flags):
    for place, row in enumerate(rows):
        if place in (0, len(rows) - 1):
            causes[row] = "" if row in (0, len(values) - 1) else "beside a missing value"
            continue
        before, after = rows[place - 1], rows[place + 1]
        if row - before > 1 or after - row > 1:
            causes[row] = "beside a missing value"
        elif times[row] - times[before] > REACH or times[after] - times[row] > REACH:
            causes[row] = "no neighbour"
        if times[row] - times[before] <= REACH and times[after] - times[row] <= REACH:
            came, went = values[row] - values[before], values[after] - values[row]
            flags[row] = graded(min(abs(came), abs(went)) if came * went < 0 else 0, limits)


def rate_of_change(times, values, rows, limits, causes, flags):
    causes[rows[0]] = "the first"
    for before, row in zip(rows, rows[1:]):
        elapsed = times[row] - times[before]
        if row - before > 1:
            causes[row] = "after a missing value"
        elif elapsed > REACH:
            causes[row] = "no neighbour"
        elif elapsed < HOUR:
            causes[row] = "a step in less than `per`"
        if elapsed <= REACH:
            rate = abs(values[row] - values[before]) / (max(elapsed, HOUR) / 1e6)
            flags[row] = graded(rate, {name: limit / 3600 for name, limit in limits.items()})


def flat_line(times, values, rows, limits, causes, flags):
    valid, when = values[rows], times[rows]
    median = np.median(np.diff(times.astype("datetime64[us]"))).astype("timedelta64[s]").astype(float)
    stamps = when.astype("datetime64[us]")
    for hours, bad in ((limits["suspect"], SUSPECT), (limits["fail"], FAIL)):
        windows = pd.Series(valid, index=stamps).rolling(f"{hours}h", closed="both")
        span = (windows.max() - windows.min()).to_numpy()
        first = np.searchsorted(when, when - hours * HOUR)
        count = np.arange(len(when)) - first + 1
        covered = (when - when[first] >= hours * HOUR / 100 * 90) & (count >= 3)
        back = int(hours * 3600 / median)
        for place, row in enumerate(rows):
            if row < back:
                causes[row] = causes[row] or "before the window is full"
            elif not covered[place]:
                causes[row] = causes[row] or "readings miss in the window"
            elif rows[first[place]] != row - back:
                causes[row] = causes[row] or "time, not count"
            if covered[place]:
                if span[place] < limits["tolerance"]:
                    flags[row] = bad
                elif flags[row] == UNKNOWN:
                    flags[row] = GOOD


def attenuated_signal(times, values, rows, limits, causes, flags):
    hours, valid, when = limits["period"], values[rows], times[rows]
    windows = pd.Series(valid, index=when.astype("datetime64[us]")).rolling(f"{hours}h", closed="right")
    span, count = (windows.max() - windows.min()).to_numpy(), windows.count().to_numpy()
    missing = np.cumsum(np.isnan(values))
    begin = np.searchsorted(times, times - hours * HOUR, side="right")
    before = np.where(begin > 0, missing[begin - 1], 0)
    for place, row in enumerate(rows):
        if missing[row] > before[row]:
            causes[row] = "up to a period after a missing value"
        if count[place] >= limits["count"]:
            flags[row] = FAIL if span[place] < limits["fail"] else SUSPECT if span[place] < limits["suspect"] else GOOD


def gap(times, values, rows, limits, causes, flags):
    causes[rows[0]], flags[rows[0]] = "the first", FAIL
    for before, row in zip(rows, rows[1:]):
        flags[row] = GOOD if times[row] - times[before] <= limits["hours"] * HOUR else FAIL
        causes[row] = "after a missing value" if row - before > 1 else ""


def none(times, values, rows, limits, causes, flags):
    pass


DIFFERENCES = {
    "range": none,
    "climatology": none,
    "spike": spike,
    "rate_of_change": rate_of_change,
    "flat_line": flat_line,
    "attenuated_signal": attenuated_signal,
    "gap": gap,
}
