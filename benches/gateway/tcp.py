"""What 10,000 points a second cost the gateway: memory, and CPU per million points, beside a loop in C and one in Python.

A Modbus TCP server in a process of its own (`server.c`, libmodbus) holds 10,000 `f32`, a hundred each under a hundred unit ids;
each client in turn reads all of them once a second, in 200 requests. The gateway also keeps each reading in its spool, seals batches and uploads them: to an S3 server in another
process, with TLS (`lake.py`, where `--s3-python` has moto), and into a folder. Its configuration is written as a technician
would write it, a hundred devices with one profile, also with eight requests at once; in the last row it is the long form, one device and a table
for each point, in 162 requests. The peers read
and decode and do nothing else: `floor.c` (libmodbus) is the least it can cost, `plain.py` what a few lines of pymodbus cost.
Results on stdout as JSON, a line each.
"""

import argparse
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Failure, compile_c, cpu_s, first_line, machine, memory_kib, running, say

DEVICES, POINTS_EACH = 100, 100
POINTS = DEVICES * POINTS_EACH
SETTLE_S = 5
#: The long form of the configuration has 50,000 lines.
START_MAX_S = 120
KEY_ID, SECRET = "AKIABENCH", "secret-of-a-bench"


def unit_environment() -> dict[str, str]:
    """What the packaged systemd unit sets: how the C library gives memory back."""
    unit = Path(__file__).parents[2] / "dist" / "tjern-gateway.service"
    lines = unit.read_text(encoding="utf-8").splitlines()
    return dict(line.partition("=")[2].split("=", 1) for line in lines if line.startswith("Environment="))


def head(folder: Path, lake: str, port: str, credentials: Path | None) -> list[str]:
    lines = ["version = 1", 'gateway = "bench"', f'lake = "{lake}"', "[upload]", 'every = "10s"']
    lines += [f'credentials_file = "{credentials}"'] if credentials else []
    lines += ["[spool]", f'dir = "{folder / "spool"}"']
    lines += ["[[bus]]", 'name = "tcp"', 'kind = "modbus-tcp"', f'address = "127.0.0.1:{port}"']
    return lines


def with_profile(in_flight: int = 1) -> list[str]:
    """Equal devices, each with a unit id of its own."""
    lines = [f"in_flight = {in_flight}"]
    for device in range(DEVICES):
        lines += ["[[bus.device]]", f'name = "unit-{device}"', f"unit_id = {device + 1}", 'profile = "meter"']
        lines += [f'place = "bench/unit-{device}"']
    lines += ["[[profile]]", 'name = "meter"']
    for point in range(POINTS_EACH):
        lines += ["[[profile.point]]", f'quantity = "number-{point}"', f'register = "input:{point * 2}"']
        lines += ['type = "f32"', 'every = "1s"']
    return lines


def in_full() -> list[str]:
    """One device, each point with all that there is to say of it."""
    lines = ["[[bus.device]]", 'name = "server"', "unit_id = 1"]
    for point in range(POINTS):
        lines += ["[[bus.device.point]]", f'sensor = "bench/unit-{point // 100}/number-{point % 100}"', 'every = "1s"']
        lines += [f'register = "input:{point * 2}"', 'type = "f32"']
    return lines


def count_landed(lake: Path) -> int:
    """Readings in the landing zone, from the names of the batches."""
    bounds = (path.stem.split("-") for path in lake.glob("landing/bench/*/*.arrow"))
    return sum(int(last) - int(first) + 1 for first, last in bounds)


def measure(name: str, command: list, seconds: float, log: Path, environment: dict | None = None) -> dict:
    with log.open("w") as errors, running(command, stderr=errors, env=environment) as process:
        started = time.monotonic()
        while "run" in command and "gateway started" not in log.read_text():
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
        "of_it_program_mib": round(memory["RssFile"] / 1024, 1),
    }


def gateway(name: str, arguments: argparse.Namespace, port: str, points: list[str], s3: bool) -> dict:
    """A gateway with a spool and a lake of its own."""
    with tempfile.TemporaryDirectory() as folder_name, contextlib.ExitStack() as ending:
        folder = Path(folder_name)
        lake, credentials = folder / "lake", None
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        environment |= unit_environment()
        url = lake.as_uri()
        if s3:
            script = Path(__file__).parent / "lake.py"
            command = [arguments.s3_python, "-B", script, folder]
            store = ending.enter_context(running(command, stdout=subprocess.PIPE, text=True))
            endpoint, url = first_line(store), "s3://bench/prefix"
            credentials = folder / "lake.env"
            credentials.touch(mode=0o600)
            credentials.write_text(
                f"AWS_ENDPOINT={endpoint}\nAWS_ACCESS_KEY_ID={KEY_ID}\nAWS_SECRET_ACCESS_KEY={SECRET}\n", encoding="utf-8"
            )
            environment["SSL_CERT_FILE"] = str(folder / "certificate.pem")
        config = folder / "gateway.toml"
        lines = head(folder, url, port, credentials) + points
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        command = [arguments.gateway, "run", "--config", config]
        found = measure(name, command, arguments.seconds, folder / "log", environment)
        if s3:
            store.send_signal(signal.SIGTERM)
            found["landed"] = int(first_line(store))
        else:
            found["landed"] = count_landed(lake)
        # The first slot after a start may count as a sign of life only.
        if found["landed"] < POINTS * (math.floor(arguments.seconds + SETTLE_S) - 2):
            raise Failure(f"only {found['landed']} readings came into the lake: {(folder / 'log').read_text()[-1000:]}")
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gateway", type=Path, required=True)
    parser.add_argument("--python", type=Path, default=sys.executable, help="one that has pymodbus")
    parser.add_argument("--s3-python", type=Path, help="one that has moto: uploads with TLS to S3 are measured as well")
    parser.add_argument("--seconds", type=float, default=30)
    arguments = parser.parse_args()
    say(f"{machine()}; {POINTS} points a second, {arguments.seconds:.0f} s each")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server, floor = compile_c("server.c", folder, "-lmodbus"), compile_c("floor.c", folder, "-lmodbus")
        with running([server], stdout=subprocess.PIPE, text=True) as serving:
            port, log = first_line(serving), folder / "log"
            plain = [arguments.python, "-B", Path(__file__).parent / "plain.py", port, POINTS, DEVICES]
            found = [
                measure("libmodbus in C", [floor, port, POINTS, DEVICES], arguments.seconds, log),
                measure("pymodbus", plain, arguments.seconds, log),
            ]
            if arguments.s3_python and arguments.s3_python.exists():
                found.append(gateway("gateway, S3 with TLS", arguments, port, with_profile(), True))
                found.append(gateway("gateway, S3 with TLS, 8 requests at once", arguments, port, with_profile(8), True))
            else:
                say("without --s3-python (moto): nothing is uploaded with TLS")
            found.append(gateway("gateway, a folder", arguments, port, with_profile(), False))
            found.append(gateway("gateway, a folder, long configuration", arguments, port, in_full(), False))
    for result in found:
        for peer in found[:2]:
            share = result["cpu_s_per_million"] / max(peer["cpu_s_per_million"], 1e-9)
            result[f"times_{peer['client'].split()[0]}"] = round(share, 2)
        print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        say(f"error: {failure}")
        sys.exit(1)
