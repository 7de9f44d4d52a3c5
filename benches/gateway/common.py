"""What the gateway's benchmarks share: C programs compiled, processes that run, what the kernel says of them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent


class Failure(Exception):
    """Why there is no figure."""


def compile_c(source: str, folder: Path, *libraries: str) -> Path:
    program = folder / Path(source).stem
    command = [os.environ.get("CC", "cc"), "-O2", "-Wall", "-Wextra", "-o", program, HERE / source, *libraries]
    if subprocess.run(command, check=False).returncode != 0:
        raise Failure(f"{source} does not compile")
    return program


@contextlib.contextmanager
def running(command: list, **options) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def first_line(process: subprocess.Popen) -> str:
    line = process.stdout.readline().strip()
    if not line:
        raise Failure(f"{process.args[0]} said nothing")
    return line


def stop(process: subprocess.Popen, patience_s: float = 30) -> str:
    """Ends it with SIGTERM; what it printed meanwhile."""
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=patience_s)
    return printed or ""


def cpu_s(pid: int) -> float:
    """User and system time of a process until now, threads that ended included: the kernel's clock of it, in nanoseconds,
    where /proc has hundredths of a second, of which a loop in C uses four in twenty seconds."""
    clock = ~pid << 3 | 2  # as clock_getcpuclockid(3) makes it
    return time.clock_gettime(clock)


def memory_kib(pid: int) -> dict[str, int]:
    """Peak and present resident memory, and how much of it is the program's file."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    found = dict(line.split(":", 1) for line in lines if line.startswith(("VmHWM", "VmRSS", "RssFile")))
    return {name: int(text.split()[0]) for name, text in found.items()}


def machine() -> str:
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "unknown",
    )
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores of {model}, load {load:.1f} at the start"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
