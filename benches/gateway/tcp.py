"""What 10,000 points a second cost the gateway: memory, and CPU per million points, beside a loop in C and one in Python.

A Modbus TCP server in a process of its own (`server.c`, libmodbus) holds 10,000 `f32`; each client in turn reads all of them
once a second. The gateway also keeps each reading in its spool, seals batches and uploads them to a lake: a folder, or what
`--lake` says. The peers read and decode and do nothing else: `floor.c` (libmodbus) is the least it can cost, `plain.py`
what a few lines of pymodbus cost. Results on stdout as JSON, a line each.
"""

import argparse
import contextlib
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Failure, compile_c, cpu_s, first_line, machine, memory_kib, running, say

POINTS = 10_000
SETTLE_S = 5
#: A configuration of 10,000 points has 30,000 lines.
START_MAX_S = 120
GATEWAY = "tjern-gateway"


def configuration(folder: Path, lake: str, port: str) -> Path:
    lines = ["version = 1", 'gateway = "bench"', f'lake = "{lake}"', "[upload]", 'every = "10s"']
    lines += ["[spool]", f'dir = "{folder / "spool"}"', "[[bus]]", 'name = "tcp"', 'kind = "modbus-tcp"']
    lines += [f'address = "127.0.0.1:{port}"', "[[bus.device]]", 'name = "server"', "unit_id = 1"]
    for point in range(POINTS):
        lines += ["[[bus.device.point]]", f'sensor = "bench/unit-{point // 100}/number-{point % 100}"', 'every = "1s"']
        lines += [f'register = "input:{point * 2}"', 'type = "f32"']
    path = folder / "gateway.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def count_landed(lake: Path) -> int:
    """Readings in the landing zone, from the names of the batches."""
    bounds = (path.stem.split("-") for path in lake.glob("landing/bench/*/*.arrow"))
    return sum(int(last) - int(first) + 1 for first, last in bounds)


def measure(name: str, command: list, seconds: float, log: Path) -> dict:
    with log.open("w") as errors, running(command, stderr=errors) as process:
        started = time.monotonic()
        while name == GATEWAY and "gateway started" not in log.read_text():
            time.sleep(0.1)
            if process.poll() is not None or time.monotonic() - started > START_MAX_S:
                raise Failure(f"{name} does not start: {log.read_text()[-1000:]}")
        ready_s = time.monotonic() - started
        time.sleep(SETTLE_S)
        before_s, began = cpu_s(process.pid), time.monotonic()
        time.sleep(seconds)
        if process.poll() is not None:
            raise Failure(f"{name} ended: {log.read_text()[-1000:]}")
        used_s, took_s = cpu_s(process.pid) - before_s, time.monotonic() - began
        memory = memory_kib(process.pid)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
    return {
        "client": name,
        "start_s": round(ready_s, 1),
        "cpu_s_per_million": round(used_s / (POINTS * took_s / 1e6), 3),
        "cpu_share": round(used_s / took_s, 4),
        "peak_mib": round(memory["VmHWM"] / 1024, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gateway", type=Path, required=True)
    parser.add_argument("--python", type=Path, default=sys.executable, help="one that has pymodbus")
    parser.add_argument("--lake", help="a lake's URL; a folder without")
    parser.add_argument("--seconds", type=float, default=30)
    arguments = parser.parse_args()
    say(f"{machine()}; {POINTS} points a second, {arguments.seconds:.0f} s each")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server, floor = compile_c("server.c", folder, "-lmodbus"), compile_c("floor.c", folder, "-lmodbus")
        with running([server], stdout=subprocess.PIPE, text=True) as serving:
            port = first_line(serving)
            lake = folder / "lake"
            config = configuration(folder, arguments.lake or lake.as_uri(), port)
            clients = {
                GATEWAY: [arguments.gateway, "run", "--config", config],
                "libmodbus in C": [floor, port, POINTS],
                "pymodbus": [arguments.python, "-B", Path(__file__).parent / "plain.py", port, POINTS],
            }
            log = folder / "log"
            found = {name: measure(name, command, arguments.seconds, log) for name, command in clients.items()}
            gateway = found[GATEWAY]
            for peer in ("libmodbus in C", "pymodbus"):
                gateway[f"times_{peer.split()[0]}"] = round(
                    gateway["cpu_s_per_million"] / max(found[peer]["cpu_s_per_million"], 1e-9), 2
                )
            if not arguments.lake:
                landed = count_landed(lake)
                gateway["landed"] = landed
                # The first slot after a start may count as a sign of life only.
                if landed < POINTS * (math.floor(arguments.seconds + SETTLE_S) - 2):
                    raise Failure(f"only {landed} readings came into the lake")
    for result in found.values():
        print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        say(f"error: {failure}")
        sys.exit(1)
