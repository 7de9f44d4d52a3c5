"""Two stations as Modbus devices: which measurement lies in which registers, and how.

Device, gateway configuration and check are all made of this one table. Numbers are encoded and
decoded here with `struct` and `decimal`, by nothing of ours.
"""

import csv
import gzip
import struct
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

FORMATS = {"i16": ">h", "u16": ">H", "i32": ">i", "u32": ">I", "f32": ">f", "f64": ">d"}

#: Not a column of the data: how many answers the device has given. It makes every answer another.
ANSWERS = "answers"


@dataclass(frozen=True)
class Point:
    """One measurement in a device's registers."""

    column: str
    address: int
    type: str
    order: str
    every_ms: int
    scale: str = "1"

    @property
    def width(self) -> int:
        return struct.calcsize(FORMATS[self.type]) // 2

    def words(self, text: str) -> list[int]:
        """The registers that hold a number, given as the text that stands in the data."""
        raw = Decimal(text) / Decimal(self.scale)
        number = float(raw) if self.type.startswith("f") else int(raw)
        if number != raw and not self.type.startswith("f"):
            raise ValueError(f"{text} is no whole multiple of {self.scale}")
        data = struct.pack(FORMATS[self.type], number)
        return self._arranged(list(struct.unpack(f">{self.width}H", data)))

    def raw(self, words: list[int]) -> int | float:
        """The number that registers hold."""
        data = struct.pack(f">{self.width}H", *self._arranged(list(words)))
        return struct.unpack(FORMATS[self.type], data)[0]

    def value(self, words: list[int]) -> float:
        """The value that the gateway has to make of registers: the double nearest to raw × scale."""
        return float(Decimal(self.raw(words)) * Decimal(self.scale))

    def _arranged(self, words: list[int]) -> list[int]:
        """Each order is its own inverse."""
        if self.order in ("cdab", "dcba"):
            words.reverse()
        if self.order in ("badc", "dcba"):
            words = [(word & 0xFF) << 8 | word >> 8 for word in words]
        return words


@dataclass(frozen=True)
class Station:
    """A device: a file of measurements, played a row an answer."""

    name: str
    file: str
    unit: int
    table: str
    function: int
    points: tuple[Point, ...]

    def sensor(self, point: Point) -> str:
        return f"{self.name}/{point.column}"

    @property
    def size(self) -> int:
        return max(point.address + point.width for point in self.points)

    def words(self, row: dict[str, str], answers: int) -> list[int]:
        """All registers while a row is played."""
        words = [0] * self.size
        for point in self.points:
            text = str(answers) if point.column == ANSWERS else row[point.column]
            words[point.address : point.address + point.width] = point.words(text)
        return words


STATIONS = (
    Station(
        "tiefenbrunnen", "zurich_tiefenbrunnen_2020_10min.csv.gz", 1, "input", 4,
        (
            Point(ANSWERS, 0, "u32", "abcd", 100),
            Point("water_temperature", 2, "f32", "cdab", 100),
            Point("air_temperature", 4, "i16", "abcd", 100, "0.1"),
            Point("barometric_pressure_qfe", 5, "i32", "abcd", 100, "0.01"),
            Point("humidity", 7, "u16", "abcd", 100, "0.1"),
            Point("wind_direction", 8, "u16", "abcd", 100),
            # Seldomer than the others, and behind them: a shared request now and then, also one alone.
            Point("dew_point", 9, "i16", "abcd", 500, "0.1"),
            Point("windchill", 10, "f32", "cdab", 500),
        ),
    ),
    Station(
        "mythenquai", "zurich_mythenquai_2020_10min.csv.gz", 2, "holding", 3,
        (
            Point(ANSWERS, 0, "u32", "cdab", 250),
            Point("air_temperature", 2, "f32", "cdab", 250),
            Point("dew_point", 4, "i16", "abcd", 250, "0.1"),
            Point("wind_gust_max_10min", 5, "i32", "cdab", 250, "0.001"),
            Point("wind_speed_avg_10min", 7, "f64", "dcba", 250),
            Point("humidity", 11, "i32", "badc", 250, "0.1"),
        ),
    ),
)  # fmt: skip


def rows(folder: Path, station: Station) -> list[dict[str, str]]:
    """A station's measurements, as text."""
    with gzip.open(folder / station.file, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
