"""A stateful service with a line protocol, as a process: what sessions of the client library talk to.

`next` answers a number that grows by one on each connection, `resume N` goes on after N and answers nothing,
`who` answers the port.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading


def converse(connection: socket.socket, port: int) -> None:
    """Answer the lines of one connection."""
    number = 0
    # A user that resets its connection is no trouble of this service.
    with contextlib.suppress(ConnectionError), connection, connection.makefile("rwb") as lines:
        for line in lines:
            command, _, argument = line.decode().strip().partition(" ")
            if command == "resume":
                number = int(argument)
                continue
            number += 1
            lines.write(f"{number if command == 'next' else port}\n".encode())
            lines.flush()


def main() -> None:
    """Serve at ADDRESS PORT until a signal ends it."""
    address, port = sys.argv[1], int(sys.argv[2])
    with socket.create_server((address, port)) as listening:
        print("listens", flush=True)
        while True:
            connection = listening.accept()[0]
            threading.Thread(target=converse, args=(connection, port), daemon=True).start()


if __name__ == "__main__":
    main()
