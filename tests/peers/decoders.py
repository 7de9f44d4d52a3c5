"""The same registers by decoders that are not ours and by the gateway: every type, every order, both wires.

pymodbus serves a map of registers and bits, over TCP and over RTU on a pair of pseudo terminals that `socat` joins.
Then the same addresses are read by pymodbus's own client, by `mbpoll` (which is libmodbus) and by `tjern-gateway`, whose
batches Polars reads. All must say what Python's `struct` packed. What pymodbus's client hears is judged a second time by
what other libraries know of byte orders (`by_other_means`), so that the map itself is not believed. Exit status 0 where
they agree; without `mbpoll` or `socat` their share is skipped, with a line each on stderr, and counted in the last line.
"""

import argparse
import asyncio
import contextlib
import math
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars
from pymodbus.client import ModbusSerialClient, ModbusTcpClient
from pymodbus.client.mixin import ModbusClientMixin
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from skipped import skip, summary

UNIT = 7
BAUD = 115_200
PATIENCE_S = 20
#: A sensor is polled each second, so that the first slot after the start comes soon.
EVERY = "1s"
EXACT_MAX = 2**53

NUMBERS = {
    "u16": ("H", [0, 1, 0x1234, 0x8000, 0xFFFF]),
    "i16": ("h", [0, -1, 0x1234, -0x8000, 0x7FFF]),
    "u32": ("I", [1, 0x01020304, 0x80000000, 0xFFFFFFFF]),
    "i32": ("i", [-1, 0x01020304, -0x80000000, 0x7FFFFFFF]),
    "f32": ("f", [0.5, -273.15, 3.4e38, 1.2e-38, math.nan]),
    "u64": ("Q", [0x0001020304050607, EXACT_MAX, EXACT_MAX + 1]),
    "i64": ("q", [-0x0001020304050607, -EXACT_MAX, -1]),
    "f64": ("d", [-273.15, 1.7e308, math.pi, math.inf]),
}
#: What `struct` does not know: how many registers it takes, and whether its digits are decimal.
OTHERS = {
    "u48": (3, False, [1, 0x010203040506, 0x800000000000, 0xFFFFFFFFFFFF]),
    "i48": (3, False, [-1, 0x010203040506, -0x800000000000, 0x7FFFFFFFFFFF]),
    "bcd16": (1, True, [0, 7, 1234, 9999]),
    "bcd32": (2, True, [90, 12345678, 99999999]),
    "bcd64": (4, True, [1234567890123456, EXACT_MAX - 1, EXACT_MAX, 9999999999999999]),
}
ORDERS = ("abcd", "cdab", "badc", "dcba")
#: The orders that only four registers have: where each byte lies, `a` being the most significant.
ORDERS_OF_FOUR = ("efghabcd", "fehgbadc", "cdabghef", "dcbahgfe")
#: What pymodbus's client calls the types; it has word orders only.
PYMODBUS = {
    "u16": ModbusClientMixin.DATATYPE.UINT16,
    "i16": ModbusClientMixin.DATATYPE.INT16,
    "u32": ModbusClientMixin.DATATYPE.UINT32,
    "i32": ModbusClientMixin.DATATYPE.INT32,
    "f32": ModbusClientMixin.DATATYPE.FLOAT32,
    "u64": ModbusClientMixin.DATATYPE.UINT64,
    "i64": ModbusClientMixin.DATATYPE.INT64,
    "f64": ModbusClientMixin.DATATYPE.FLOAT64,
}
MBPOLL = {"i32": "int", "f32": "float"}
BITS = [True, False, False, True, True, True, False, True, False, True, True]


class Failure(Exception):
    """What does not agree."""


def say(text: str) -> None:
    print(f"decoders: {text}", flush=True)


@dataclass(frozen=True)
class Point:
    """A number in the map."""

    kind: str
    order: str
    address: int
    value: float

    @property
    def width(self) -> int:
        return OTHERS[self.kind][0] if self.kind in OTHERS else struct.calcsize(NUMBERS[self.kind][0]) // 2

    @property
    def packed(self) -> bytes:
        if self.kind not in OTHERS:
            return struct.pack(">" + NUMBERS[self.kind][0], self.value)
        width, is_decimal, _ = OTHERS[self.kind]
        if is_decimal:
            return bytes.fromhex(f"{self.value:0{4 * width}d}")
        return self.value.to_bytes(2 * width, "big", signed=self.kind[0] == "i")

    @property
    def words(self) -> list[int]:
        packed = self.packed
        if self.order in ORDERS_OF_FOUR:
            packed = bytes(packed[ord(letter) - ord("a")] for letter in self.order)
        words = list(struct.unpack(f">{self.width}H", packed))
        if self.order in ("cdab", "dcba"):
            words.reverse()
        if self.order in ("badc", "dcba"):
            words = [(word & 0xFF) << 8 | word >> 8 for word in words]
        return words

    @property
    def held(self) -> float:
        """The number as its type holds it."""
        if self.kind in OTHERS:
            return self.value
        form = ">" + NUMBERS[self.kind][0]
        return struct.unpack(form, struct.pack(form, self.value))[0]


def points() -> list[Point]:
    found, address = [], 0
    kinds = [(kind, values) for kind, (_, values) in NUMBERS.items()]
    kinds += [(kind, values) for kind, (_, _, values) in OTHERS.items()]
    for kind, values in kinds:
        has_four = Point(kind, "abcd", 0, 0).width == 4
        for order in ORDERS + (ORDERS_OF_FOUR if has_four else ()):
            for value in values:
                point = Point(kind, order, address, value)
                found.append(point)
                address += point.width
    return found


@dataclass(frozen=True)
class Part:
    """A part of a register: a half, or a bit."""

    kind: str
    #: What the configuration says besides the type.
    key: str
    address: int
    value: float


def halves(word: int) -> Iterator[tuple[str, str, float]]:
    """Both halves of a register, as `struct` reads them: the high byte comes first."""
    for kind, form in (("u8", ">BB"), ("i8", ">bb")):
        for half, value in zip(("high", "low"), struct.unpack(form, struct.pack(">H", word)), strict=True):
            yield kind, f'half = "{half}"', float(value)


def bits(word: int) -> Iterator[tuple[str, str, float]]:
    """The bits of a register, as Python writes them (the least significant comes last) and as pymodbus's client reads them
    (the high byte comes first, and of each byte the least significant)."""
    found = ModbusClientMixin.convert_from_registers([word], ModbusClientMixin.DATATYPE.BITS)
    for place, digit in enumerate(reversed(f"{word:016b}")):
        if found[(place + 8) % 16] != (digit == "1"):
            raise Failure(f"Python and pymodbus differ on bit {place} of {word:#06x}")
        yield "bool", f"bit = {place}", float(digit)


POINTS = points()
PARTS_AT = sum(point.width for point in POINTS)
PART_WORDS = [0x0000, 0xFFFF, 0x807F, 0x7F80, 0x1234, 0xA55A, 0x0001, 0x8000]
PARTS = [
    Part(kind, key, PARTS_AT + place, value)
    for place, word in enumerate(PART_WORDS)
    for kind, key, value in [*halves(word), *bits(word)]
]
WORDS = [word for point in POINTS for word in point.words] + PART_WORDS


def device() -> SimDevice:
    bits = [SimData(0, values=BITS, datatype=DataType.BITS)]
    words = [SimData(0, values=WORDS, datatype=DataType.REGISTERS)]
    return SimDevice(UNIT, (bits, list(reversed(bits)), words, list(words)))


async def serve(port: str | None) -> None:
    """The device's own process: on a pseudo terminal, or on a free port of loopback, which is printed."""
    if port is None:
        server = ModbusTcpServer([device()], address=("127.0.0.1", 0))
    else:
        server = ModbusSerialServer([device()], port=port, baudrate=BAUD)
    await server.serve_forever(background=True)
    print(port or server.transport.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


@contextlib.contextmanager
def running(command: list, **options) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def served(port: str | None) -> Iterator[str]:
    command = [sys.executable, "-B", __file__, "--serve", port or "tcp"]
    with running(command, stdout=subprocess.PIPE, text=True) as process:
        place = process.stdout.readline().strip()
        if not place:
            raise Failure("pymodbus serves nothing")
        yield place


@contextlib.contextmanager
def terminals(folder: Path) -> Iterator[tuple[str, str]]:
    """Two pseudo terminals: what goes into one comes out of the other."""
    ends = [folder / "device", folder / "client"]
    command = ["socat", *(f"pty,raw,echo=0,link={end}" for end in ends)]
    with running(command):
        wait_for("the pseudo terminals", lambda: all(end.exists() for end in ends))
        # socat ends when nobody has an end open any more: this one stays open between the clients.
        kept = os.open(ends[1], os.O_RDWR | os.O_NOCTTY)
        try:
            yield str(ends[0]), str(ends[1])
        finally:
            os.close(kept)


def wait_for(what: str, is_so) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > end:
            raise Failure(f"{what}: not within {PATIENCE_S} s")
        time.sleep(0.05)


def same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def little_pairs(registers: list[int]) -> list[int]:
    """Numbers of two registers each with the low one first, as pymodbus's client knows them."""
    kind = ModbusClientMixin.DATATYPE.UINT32
    pairs = [registers[:2], registers[2:]]
    return [ModbusClientMixin.convert_from_registers(pair, kind, word_order="little") for pair in pairs]


def by_other_means(order: str, registers: list[int]) -> int:
    """The bits of a number as one unsigned integer, by what `struct`, `int` and pymodbus know of orders, and without the
    layout of the map: whole numbers with the least significant byte first, two numbers of half the width, registers one
    by one."""
    heard = struct.pack(f">{len(registers)}H", *registers)
    swapped = list(struct.unpack(f"<{len(registers)}H", heard))

    def joined(words: list[int]) -> int:
        return sum(word << 16 * place for place, word in enumerate(reversed(words)))

    match order:
        case "abcd":
            return int.from_bytes(heard, "big")
        case "dcba":
            return int.from_bytes(heard, "little")
        case "badc":
            return joined(swapped)
        case "cdab":
            return joined(registers[::-1])
        case "efghabcd":
            low, high = struct.unpack(">II", heard)
        case "fehgbadc":
            low, high = joined(swapped[:2]), joined(swapped[2:])
        case "cdabghef":
            high, low = little_pairs(registers)
        case "dcbahgfe":
            high, low = struct.unpack("<II", heard)
        case _:
            raise Failure(f"nobody knows the order {order}")
    return high << 32 | low


def meant(kind: str, width: int, number: int) -> float:
    """What a number's bits mean as this type."""
    if kind in NUMBERS:
        return struct.unpack(">" + NUMBERS[kind][0], struct.pack(">" + {1: "H", 2: "I", 4: "Q"}[width], number))[0]
    if OTHERS[kind][1]:
        return sum((number >> 4 * digit & 0xF) * 10**digit for digit in range(4 * width))
    return number - (1 << 48 if kind == "i48" and number >> 47 else 0)


def by_pymodbus(client) -> int:
    """What pymodbus's client hears, by its own conversion for the orders it knows, and by other means for all of them."""
    if not client.connect():
        raise Failure("pymodbus's client does not connect")
    checked = 0
    for point in POINTS:
        answer = client.read_input_registers(point.address, count=point.width, device_id=UNIT)
        got = meant(point.kind, point.width, by_other_means(point.order, answer.registers))
        if not same(got, point.held):
            raise Failure(f"the words that pymodbus reads mean {got} for {point}")
        checked += 1
        if point.order not in ("abcd", "cdab") or point.kind in OTHERS:
            continue
        order = "big" if point.order == "abcd" else "little"
        got = client.convert_from_registers(answer.registers, PYMODBUS[point.kind], word_order=order)
        if not same(got, point.held):
            raise Failure(f"pymodbus reads {got} for {point}")
    answer = client.read_input_registers(PARTS_AT, count=len(PART_WORDS), device_id=UNIT)
    if answer.registers != PART_WORDS:
        raise Failure(f"pymodbus reads {answer.registers} for the registers with parts")
    client.close()
    return checked


def mbpoll(wire: list[str], first: int, count: int, kind: str, *options: str) -> list[str]:
    command = ["mbpoll", *wire[:-1], "-a", str(UNIT), "-0", "-1", "-o", "3"]
    command += ["-t", kind, "-r", str(first), "-c", str(count), *options, wire[-1]]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=30)
    values = re.findall(r"^\[\d+\]:\s+(\S+)", done.stdout, re.MULTILINE)
    if len(values) != count:
        raise Failure(f"`{' '.join(command)}`:\n{done.stdout}{done.stderr}")
    return values


def by_mbpoll(wire: list[str]) -> int:
    """libmodbus's words of the whole map, its bits, and its own idea of two kinds of number."""
    words = []
    for first in range(0, len(WORDS), 100):
        words += [int(word, 16) for word in mbpoll(wire, first, min(100, len(WORDS) - first), "4:hex")]
    if words != WORDS:
        raise Failure(f"mbpoll reads other words: {words}")
    for table in "01":
        if [word == "1" for word in mbpoll(wire, 0, len(BITS), table)] != BITS:
            raise Failure(f"mbpoll reads other bits of table {table}")
    typed = 0
    for kind, word in MBPOLL.items():
        for order, options in (("abcd", ["-B"]), ("cdab", [])):
            run = [point for point in POINTS if (point.kind, point.order) == (kind, order)]
            got = mbpoll(wire, run[0].address, len(run), f"3:{word}", *options)
            for point, text in zip(run, got, strict=True):
                # It prints six digits of a float.
                if not (same(float(text), point.held) or math.isclose(float(text), point.held, rel_tol=1e-5)):
                    raise Failure(f"mbpoll reads {text} for {point}")
                typed += 1
    return len(words) + 2 * len(BITS) + typed


def sensor(wire: str, point: Point) -> str:
    return f"{wire}/at-{point.address}/{point.kind}-{point.order}"


def part_sensor(wire: str, part: Part) -> str:
    word, value = part.key.split(" = ")
    return f"{wire}/at-{part.address}/{part.kind}-{word}-{value.strip(chr(34))}"


def gateway_toml(folder: Path, wires: dict[str, str]) -> str:
    lines = ["version = 1", 'gateway = "decoders"', f'lake = "{(folder / "lake").as_uri()}"']
    lines += ["[spool]", f'dir = "{folder / "spool"}"']
    for wire, place in wires.items():
        lines += ["[[bus]]", f'name = "{wire}"', 'timeout = "3s"']
        if wire == "tcp":
            lines += ['kind = "modbus-tcp"', f'address = "127.0.0.1:{place}"']
        else:
            lines += ['kind = "modbus-rtu"', f'port = "{place}"', f"baud = {BAUD}"]
        lines += ["[[bus.device]]", 'name = "map"', f"unit_id = {UNIT}"]
        for place, point in enumerate(POINTS):
            table = ("input", "holding")[place % 2]
            lines += ["[[bus.device.point]]", f'sensor = "{sensor(wire, point)}"', f'every = "{EVERY}"']
            lines += [f'register = "{table}:{point.address}"', f'type = "{point.kind}"', f'order = "{point.order}"']
        for place, part in enumerate(PARTS):
            table = ("input", "holding")[place % 2]
            lines += ["[[bus.device.point]]", f'sensor = "{part_sensor(wire, part)}"', f'every = "{EVERY}"']
            lines += [f'register = "{table}:{part.address}"', f'type = "{part.kind}"', part.key]
        for address in range(len(BITS)):
            table = ("coil", "discrete")[address % 2]
            lines += ["[[bus.device.point]]", f'sensor = "{wire}/bit-{address}/state"', f'every = "{EVERY}"']
            lines += [f'register = "{table}:{address}"', 'type = "bool"']
    return "\n".join(lines) + "\n"


def stored(folder: Path) -> dict[str, tuple[float | None, str | None]]:
    """What Polars finds in the batches of the landing zone: the last word of each sensor."""
    found = {}
    for batch in sorted((folder / "lake").glob("landing/decoders/*/*.arrow")):
        frame = polars.read_ipc_stream(batch).select(
            polars.col("sensor").cast(polars.String), "value", polars.col("cause").cast(polars.String)
        )
        found |= {name: (value, cause) for name, value, cause in frame.iter_rows()}
    return found


def expected(point: Point) -> tuple[float | None, str | None]:
    if isinstance(point.held, float):
        return (point.held, None) if math.isfinite(point.held) else (None, "not_a_number")
    return (float(point.held), None) if abs(point.held) <= EXACT_MAX else (None, "precision")


def by_gateway(program: Path, folder: Path, wires: dict[str, str]) -> int:
    configuration = folder / "gateway.toml"
    configuration.write_text(gateway_toml(folder, wires), encoding="utf-8")
    wanted = {sensor(wire, point): expected(point) for wire in wires for point in POINTS}
    wanted |= {part_sensor(wire, part): (part.value, None) for wire in wires for part in PARTS}
    wanted |= {f"{wire}/bit-{at}/state": (float(bit), None) for wire in wires for at, bit in enumerate(BITS)}
    log_path = folder / "gateway.log"
    for seconds in (4, 8, 16):
        with log_path.open("w", encoding="utf-8") as log:
            with running([program, "run", "--config", configuration], stderr=log) as gateway:
                time.sleep(seconds)
                gateway.send_signal(signal.SIGTERM)
                status = gateway.wait(PATIENCE_S)
        got = {name: value for name, value in stored(folder).items() if name in wanted}
        # A busy machine may need a longer life for each sensor's first slot.
        if status == 0 and len(got) == len(wanted):
            break
    else:
        raise Failure(f"{len(got)} of {len(wanted)} sensors came:\n{log_path.read_text(encoding='utf-8')[-2_000:]}")
    wrong = [f"{name}: {got[name]}, not {wanted[name]}" for name in wanted if got[name] != wanted[name]]
    if wrong:
        raise Failure("the gateway reads\n" + "\n".join(wrong))
    return len(wanted)


def compare(program: Path, folder: Path) -> None:
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(served(None))
        wires, oracles = {"tcp": tcp}, {"tcp": ["-m", "tcp", "-p", tcp, "127.0.0.1"]}
        clients = {"tcp": ModbusTcpClient("127.0.0.1", port=int(tcp))}
        if shutil.which("socat"):
            ours, theirs = stack.enter_context(terminals(folder))
            stack.enter_context(served(ours))
            wires["rtu"] = theirs
            oracles["rtu"] = ["-m", "rtu", "-b", str(BAUD), "-P", "none", theirs]
            clients["rtu"] = ModbusSerialClient(theirs, baudrate=BAUD)
        else:
            skip("decoders", "RTU, all of it: there is no socat")
        for wire, client in clients.items():
            say(f"{wire}: pymodbus agrees on {by_pymodbus(client)} numbers")
        for wire, oracle in oracles.items():
            if shutil.which("mbpoll"):
                say(f"{wire}: mbpoll agrees on {by_mbpoll(oracle)} words, bits and numbers")
            else:
                skip("decoders", f"{wire} by mbpoll: it is not installed")
        say(f"tjern-gateway agrees on {by_gateway(program, folder, wires)} sensors over {' and '.join(wires)}")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve")
    parser.add_argument("--bin", type=Path)
    parser.add_argument("--work", type=Path)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(None if arguments.serve == "tcp" else arguments.serve))
        return 0
    began = time.monotonic()
    folder = arguments.work / "decoders"
    folder.mkdir()
    try:
        compare(arguments.bin / "tjern-gateway", folder)
    except Failure as failure:
        say(f"FAILED: {failure}")
        return 1
    say(f"all agree, after {time.monotonic() - began:.0f} s; {summary()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
