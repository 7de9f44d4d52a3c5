"""A time server whose clock is ahead by so many seconds: server.py PORT SECONDS. RFC 5905, section 7.3; loopback only."""

import socket
import struct
import sys
import time

#: From 1900 to 1970, in seconds.
ERA = 2_208_988_800


def moment(seconds: float) -> bytes:
    seconds += ERA
    return struct.pack(">II", int(seconds), int(seconds % 1 * 2**32))


def main() -> None:
    port, ahead = int(sys.argv[1]), float(sys.argv[2])
    door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    door.bind(("127.0.0.1", port))
    while True:
        question, asker = door.recvfrom(1024)
        now = time.time() + ahead
        # Version 4, a server, of stratum 1, precise to a microsecond.
        head = struct.pack(">BBbbII4s", 4 << 3 | 4, 1, 6, -20, 0, 0, b"GPS\0")
        door.sendto(head + moment(now - 1) + question[40:48] + moment(now) + moment(time.time() + ahead), asker)


main()
