"""A session with a counting service that survives its listener: the count travels in the session's cookie.

python examples/stateful_session.py serve 127.0.0.1 2028 &      # and register it, for instance by opengnsc run
python examples/stateful_session.py count openuss
"""

from __future__ import annotations

import socket
import socketserver
import sys
import time

from compass import client


class Counting(socketserver.StreamRequestHandler):
    """Connection: `next` returns a number that grows by one, `resume N` continues after N."""

    def handle(self) -> None:
        """Answer the lines of a connection."""
        number = 0
        for line in self.rfile:
            command, _, argument = line.decode().strip().partition(" ")
            number = int(argument) if command == "resume" else number + 1
            if command == "next":
                self.wfile.write(f"{number}\n".encode())


class Server(socketserver.ThreadingTCPServer):
    """Serves connections in threads."""

    allow_reuse_address = True
    daemon_threads = True


def count(stream: socket.socket) -> int:
    """The next number."""
    stream.sendall(b"next\n")
    answer = stream.recv(100)
    if not answer:
        raise EOFError("the listener has closed the connection")
    return int(answer)


def resume(stream: socket.socket, cookie: bytes) -> None:
    """Send a new listener the number that the previous one had reached."""
    stream.sendall(b"resume " + cookie + b"\n")


def main() -> None:
    """Serve, or count for ever."""
    if sys.argv[1] == "serve":
        with Server((sys.argv[2], int(sys.argv[3])), Counting) as server:
            server.serve_forever()
    with client.connect(sys.argv[2], resume=resume) as session:
        while True:
            number = session.use(count)
            session.cookie = str(number).encode()
            print(f"{number} from {session.peer.service} at {session.peer.address}:{session.peer.port}", flush=True)
            time.sleep(0.1)


if __name__ == "__main__":
    main()
