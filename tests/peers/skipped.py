"""What could not be played here: one line each on stderr, and one in the file that `run` counts at its end."""

import os
import sys

#: Names the file.
VARIABLE = "TJERN_PEERS_SKIPPED"

_reasons: list[str] = []


def skip(who: str, why: str) -> None:
    line = f"{who}: SKIPPED: {why}"
    _reasons.append(line)
    print(line, file=sys.stderr, flush=True)
    if path := os.environ.get(VARIABLE):
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def summary() -> str:
    """How many parts of this program's were skipped."""
    match len(_reasons):
        case 0:
            return "nothing was skipped"
        case 1:
            return "1 part was skipped"
        case count:
            return f"{count} parts were skipped"
