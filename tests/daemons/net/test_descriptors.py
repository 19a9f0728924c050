"""Descriptors: a real daemon whose ports hold all they can get still answers at its Unix socket, and logs little."""

from __future__ import annotations

import contextlib
import http.client
import resource
import socket
import time

from compass.daemons.net.descriptors import FILES_RESERVED, SHARE_RESERVED, UNIX_RESERVED, room_for
from tests.support.installation import Installation, free_port

LIMIT = 200
FLOOD = 400


def health(installation: Installation) -> int:
    """Return the status of /healthz at the Unix socket."""
    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(10)
    with contextlib.closing(connection):
        connection.sock.connect(str(installation.directory / "gns.sock"))
        connection.request("GET", "/healthz")
        return connection.getresponse().status


def flood(port: int) -> tuple[list[socket.socket], int]:
    """Open connections and leave them open. Returns them, and how many of them the daemon has closed."""
    opened = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(FLOOD)]
    time.sleep(0.5)
    closed = 0
    for one in opened:
        one.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            try:
                closed += not one.recv(1)
            except ConnectionError:
                closed += 1
    return opened, closed


def test_the_unix_socket_answers_when_the_ports_have_taken_all_descriptors(installation: Installation) -> None:
    """Connections beyond the limit are closed at once; the log has one line for all of them."""
    port = free_port()
    daemon = installation.host(installation.host_config(api=f"127.0.0.1:{port}"))
    daemon.wait_for("opengnscd listens on .*gns.sock")
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
    before = len(daemon.log)
    opened, closed = flood(port)
    try:
        assert FLOOD - LIMIT < closed < FLOOD
        for _ in range(5):
            assert health(installation) == 200
        assert daemon.log.count("no file descriptors left") == 1 and "EMFILE" not in daemon.log
        assert len(daemon.log) - before < 2_000
    finally:
        for one in opened:
            one.close()
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")


def test_what_is_reserved_of_a_limit() -> None:
    """Ports leave more than the Unix socket does, and a small limit is not reserved whole."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
        assert room_for(FILES_RESERVED + UNIX_RESERVED) == 1024 - FILES_RESERVED - UNIX_RESERVED
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        assert room_for(FILES_RESERVED + UNIX_RESERVED) == 256 - 256 * SHARE_RESERVED
        assert room_for(FILES_RESERVED) == 256 - FILES_RESERVED
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
