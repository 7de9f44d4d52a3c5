"""A Modbus TCP device made with pymodbus that replays measurements, a row an answer.

Every answer that leaves is written down as it stands on the wire: when, which unit, which registers.
The port is printed on stdout once the device listens. SIGTERM ends it.
"""

import argparse
import asyncio
import functools
import json
import signal
import struct
import time
from pathlib import Path

from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from stations import STATIONS, Station, rows


class Played:
    """A station while it is played."""

    def __init__(self, station: Station, measurements: list[dict[str, str]], first: int):
        self.station, self.measurements, self.row, self.answers = station, measurements, first, 0

    def next(self) -> list[int]:
        self.row = (self.row + 1) % len(self.measurements)
        self.answers += 1
        return self.station.words(self.measurements[self.row], self.answers)


class Log:
    """What was served, a line of JSON an answer."""

    def __init__(self, path: Path):
        self.file = path.open("w", encoding="utf-8", buffering=1)
        self.asked: tuple[Played, int, int] | None = None

    def trace(self, sending: bool, packet: bytes) -> bytes:
        """Sees each packet. Between a request and its answer nothing else is served."""
        if sending:
            unit, function = packet[6], packet[7]
            if self.asked is None or function & 0x80:
                raise SystemExit(f"an answer that nobody counted on: {packet.hex()}")
            (played, address, count), self.asked = self.asked, None
            words = struct.unpack(f">{count}H", packet[9:])
            if unit != played.station.unit:
                raise SystemExit(f"unit {unit} answered for {played.station.unit}")
            entry = {"us": time.time_ns() // 1000, "unit": unit, "function": function, "address": address}
            self.file.write(json.dumps(entry | {"words": words, "row": played.row, "answers": played.answers}) + "\n")
        return packet


async def serve(played: Played, log: Log, function, start, address, count, registers, written):
    """Called by pymodbus before it reads the registers: the next row is put there."""
    if written is not None:
        raise SystemExit("somebody writes to the device")
    if function != played.station.function:
        raise SystemExit(f"function {function} on unit {played.station.unit}")
    registers[-start : played.station.size - start] = played.next()
    log.asked = (played, address, count)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--first-row", type=int, default=0)
    arguments = parser.parse_args()
    log = Log(arguments.log)
    devices = []
    for station in STATIONS:
        measurements = rows(arguments.data, station)
        played = Played(station, measurements, arguments.first_row % len(measurements))
        registers = [SimData(0, values=[0] * station.size, datatype=DataType.REGISTERS)]
        devices.append(SimDevice(station.unit, registers, action=functools.partial(serve, played, log)))
    server = ModbusTcpServer(devices, address=("127.0.0.1", 0), trace_packet=log.trace)
    await server.serve_forever(background=True)
    print(server.transport.sockets[0].getsockname()[1], flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
