"""How much of a serial line the gateway uses: polls a second beside what the line can carry.

`line.c` is a line on a pseudo terminal that is as slow as its baud rate, with ten devices of 10 ms turnaround. The
gateway is asked for more than the line can carry, so that it polls as fast as it can. The limit of the line, with 11 bits
a character: `(8 + 5 + 2n) characters + 2 × 3.5 characters of silence + turnaround` a poll. The same again with one of
the ten devices dead, counted from ten seconds after the start. Results on stdout as JSON, a line each.

Exit status 1 where a share is below `--at-least`: what was promised, if nothing else is said.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Failure, compile_c, first_line, machine, running, say, stop

UNITS = 10
TURNAROUND_MS = 10
BAUDS = (9_600, 19_200, 38_400, 115_200)
#: Ten registers a poll: five `f32` that share a request.
NUMBERS = 5
#: All devices answer when the count begins, and the dead one is known to be dead.
SETTLE_S = 10
#: Of the line's limit, and of that with all alive: what the gateway promises.
PROMISED = 0.95
TIMEOUT_MS = 300


def limit(baud: int) -> float:
    """Polls a second that the line can carry."""
    character_s = 11 / baud
    silence_s = 0.00175 if baud > 19_200 else 3.5 * character_s
    return 1 / ((8 + 5 + 2 * 2 * NUMBERS) * character_s + 2 * silence_s + TURNAROUND_MS / 1000)


def configuration(folder: Path, port: str, baud: int) -> Path:
    lines = ["version = 1", 'gateway = "bench"', f'lake = "{(folder / "lake").as_uri()}"']
    lines += ["[spool]", f'dir = "{folder / "spool"}"', "[[bus]]", 'name = "line"', 'kind = "modbus-rtu"']
    lines += [f'port = "{port}"', f"baud = {baud}", f'timeout = "{TIMEOUT_MS}ms"']
    for unit in range(1, UNITS + 1):
        lines += ["[[bus.device]]", f'name = "device-{unit}"', f"unit_id = {unit}"]
        for number in range(NUMBERS):
            lines += ["[[bus.device.point]]", f'sensor = "bench/unit-{unit}/number-{number}"', 'every = "50ms"']
            lines += [f'register = "input:{number * 2}"', 'type = "f32"']
    path = folder / "gateway.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def measure(arguments: argparse.Namespace, line_program: Path, baud: int, dead: int, folder: Path) -> dict:
    folder.mkdir()
    command = [line_program, baud, TURNAROUND_MS, UNITS, dead]
    with running(command, stdout=subprocess.PIPE, text=True) as line, (folder / "gateway.log").open("w") as log:
        config = configuration(folder, first_line(line), baud)
        with running([arguments.gateway, "run", "--config", config], stderr=log) as gateway:
            time.sleep(SETTLE_S)
            line.send_signal(signal.SIGUSR1)
            time.sleep(arguments.seconds)
            counted = json.loads(stop(line))
            if gateway.poll() is not None:
                raise Failure(f"the gateway ended: {(folder / 'gateway.log').read_text()[-1000:]}")
    answers = sum(counted["answers"].values())
    if answers == 0:
        raise Failure(f"nothing was answered: {(folder / 'gateway.log').read_text()[-1000:]}")
    fewest = min(count for unit, count in counted["answers"].items() if int(unit) != dead)
    polls = answers / counted["seconds"]
    return {
        "baud": baud,
        "dead": dead,
        "polls_per_s": round(polls, 2),
        "limit_per_s": round(limit(baud), 2),
        "share": round(polls / limit(baud), 4),
        "fewest_of_a_device": fewest,
        "most_of_a_device": max(counted["answers"].values()),
        "asked_the_dead": counted["in_vain"],
        "hasty": counted["hasty"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gateway", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--baud", type=int, action="append")
    parser.add_argument("--at-least", type=float, default=PROMISED)
    arguments = parser.parse_args()
    say(f"{machine()}; {arguments.seconds:.0f} s each")
    worst = 1.0
    with tempfile.TemporaryDirectory() as folder:
        program = compile_c("line.c", Path(folder))
        for baud in arguments.baud or BAUDS:
            alive = measure(arguments, program, baud, 0, Path(folder) / f"{baud}-alive")
            print(json.dumps(alive), flush=True)
            with_dead = measure(arguments, program, baud, UNITS // 2, Path(folder) / f"{baud}-dead")
            with_dead["beside_all_alive"] = round(with_dead["polls_per_s"] / alive["polls_per_s"], 4)
            print(json.dumps(with_dead), flush=True)
            worst = min(worst, alive["share"], with_dead["beside_all_alive"])
    return 0 if worst >= arguments.at_least else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        say(f"error: {failure}")
        sys.exit(1)
