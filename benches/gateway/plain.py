"""What a few lines of Python cost: pymodbus reads all points once a second and keeps the newest value of each.

    plain.py PORT POINTS DEVICES

The points are spread evenly over devices with unit ids from 1 on. It stores nothing and sends nothing.
"""

import sys
import time

from pymodbus.client import ModbusTcpClient

PER_REQUEST = 62


def main(port: int, points: int, devices: int) -> None:
    client = ModbusTcpClient("127.0.0.1", port=port)
    if not client.connect():
        raise SystemExit("no connection")
    each = points // devices
    newest = [[0.0] * each for _ in range(devices)]
    due = time.monotonic()
    while True:
        for device in range(devices):
            for first in range(0, each, PER_REQUEST):
                count = min(PER_REQUEST, each - first)
                answer = client.read_input_registers(first * 2, count=count * 2, device_id=device + 1)
                values = client.convert_from_registers(answer.registers, client.DATATYPE.FLOAT32)
                newest[device][first : first + count] = values
        due += 1
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:4]))
