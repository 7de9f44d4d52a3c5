"""What a few lines of Python cost: pymodbus reads all points once a second and keeps the newest value of each.

    plain.py PORT POINTS

It stores nothing and sends nothing.
"""

import sys
import time

from pymodbus.client import ModbusTcpClient

PER_REQUEST = 62


def main(port: int, points: int) -> None:
    client = ModbusTcpClient("127.0.0.1", port=port)
    if not client.connect():
        raise SystemExit("no connection")
    newest = [0.0] * points
    due = time.monotonic()
    while True:
        for first in range(0, points, PER_REQUEST):
            count = min(PER_REQUEST, points - first)
            answer = client.read_input_registers(first * 2, count=count * 2, device_id=1)
            newest[first : first + count] = client.convert_from_registers(answer.registers, client.DATATYPE.FLOAT32)
        due += 1
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
