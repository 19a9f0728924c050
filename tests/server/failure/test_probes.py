"""Probes over real sockets: what serves, what does not, and that asking costs a bounded time and no connection."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest

from compass.model.rows import Policy
from compass.model.rules.networks import NoProbe, ProbeDenied, ProbeNetworks
from compass.server.failure.probes import STATUS_LINE_OCTETS_MAX, Prober
from tests.support.reactor_thread import ReactorThread

TIMEOUT_SECONDS = 0.4
Answer = Callable[[socket.socket], None]


@pytest.fixture(scope="module")
def thread() -> Iterator[ReactorThread]:
    """The thread of the reactor that probes."""
    thread = ReactorThread()
    yield thread
    thread.stop()


class Listener:
    """A listener on a real port with a given answer; `asked` is what it received, `left` that the probe has left."""

    def __init__(self, answer: Answer | None, family: socket.AddressFamily = socket.AF_INET) -> None:
        self._answer = answer
        self._socket = socket.create_server(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0), family=family)
        self.address, self.port = self._socket.getsockname()[:2]
        self.asked = b""
        self.left = Event()
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            connection.settimeout(10)
            try:
                if self._answer is not None:
                    while b"\r\n\r\n" not in self.asked:
                        self.asked += connection.recv(4096)
                    self._answer(connection)
                while connection.recv(65536):
                    pass
            except ConnectionError:
                pass
            self.left.set()

    def close(self) -> None:
        self._socket.close()
        self._thread.join(10)


@contextmanager
def listener(answer: Answer | None, family: socket.AddressFamily = socket.AF_INET) -> Iterator[Listener]:
    made = Listener(answer, family)
    try:
        yield made
    finally:
        made.close()


def probe(thread: ReactorThread, kind: str, address: str, port: int) -> str:
    policy = Policy(probe=kind, probe_timeout_seconds=TIMEOUT_SECONDS)
    began = time.monotonic()
    prober = Prober(thread.reactor, "compass/test", ProbeNetworks(is_local=True))
    answer: str = thread.call(prober.probe, policy, address, port)
    assert time.monotonic() - began < TIMEOUT_SECONDS + 2.0
    return answer


def says(text: bytes) -> Answer:
    return lambda connection: connection.sendall(text)


def for_ever(text: bytes, pause_seconds: float = 0.0) -> Answer:
    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" if text == b"body" else b"")
        while True:
            connection.sendall(text * (1 if pause_seconds else 10_000))
            time.sleep(pause_seconds)

    return answer


def test_a_category_without_a_probe_gets_no_packet(thread: ReactorThread) -> None:
    """The policy `none`: no evidence, whatever listens there."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        prober = Prober(thread.reactor, "tests", ProbeNetworks(is_local=True))
        found = thread.call(prober.probe, Policy("none"), *listening.getsockname())
        assert isinstance(found, NoProbe)
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_an_address_that_is_denied_gets_no_packet(thread: ReactorThread) -> None:
    """W8: a listener on the loopback of a daemon that serves others is not probed, and that is no evidence."""
    prober = Prober(thread.reactor, "compass/test", ProbeNetworks())
    with socket.create_server(("127.0.0.1", 0)) as one:
        one.setblocking(False)
        answer = thread.call(prober.probe, Policy(), *one.getsockname())
        assert isinstance(answer, ProbeDenied) and "which is probed only if probe_networks names it" in answer
        with pytest.raises(BlockingIOError):
            one.accept()
        assert probe(thread, "tcp", *one.getsockname()) == ""


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("kind", ["tcp", "http:/alive?deep=1"])
def test_a_listener_that_serves(thread: ReactorThread, kind: str, family: socket.AddressFamily) -> None:
    """The prober asks the listener once, by name, and disconnects at once."""
    with listener(says(b"HTTP/1.1 200 OK\r\n\r\n") if kind != "tcp" else None, family) as one:
        assert probe(thread, kind, one.address, one.port) == ""
        assert one.left.wait(5)
        if kind != "tcp":
            where = f"[::1]:{one.port}" if family == socket.AF_INET6 else f"127.0.0.1:{one.port}"
            lines = one.asked.decode().split("\r\n")
            assert lines[:3] == ["GET /alive?deep=1 HTTP/1.1", f"Host: {where}", "User-Agent: compass/test"]


@pytest.mark.parametrize("kind", ["tcp", "http:/"])
def test_a_port_without_a_listener(thread: ReactorThread, kind: str) -> None:
    """Refused is an answer."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    assert probe(thread, kind, "127.0.0.1", port) == "connection refused"


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (says(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), ""),
        (says(b"HTTP/1.0 499\n\n"), ""),
        (says(b"HTTP/1.1 500 Internal Server Error\r\n\r\nsorry"), "HTTP status 500"),
        (says(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100\r\n\r\n"), "HTTP status 503"),
        (says(b"SSH-2.0-OpenSSH_9.2\r\n"), "the answer is not HTTP"),
        (says(b"\0" * STATUS_LINE_OCTETS_MAX), "the answer is not HTTP"),
        (for_ever(b"HTTP/1.1 200 OK "), "the answer is not HTTP"),
        (for_ever(b"body"), ""),
        (for_ever(b"H", 0.05), "no answer within 0.4 s"),
        (lambda connection: None, "no answer within 0.4 s"),
        (lambda connection: connection.shutdown(socket.SHUT_WR), "the connection was closed without an answer"),
    ],
    ids=["404", "499", "500", "503", "other", "long", "endless", "body", "slow", "mute", "closed"],
)
def test_what_an_http_answer_means(thread: ReactorThread, answer: Answer, problem: str) -> None:
    """P10: whatever the listener sends, the verdict comes in time and the connection is gone."""
    with listener(answer) as one:
        assert probe(thread, "http:/", one.address, one.port) == problem
        assert one.left.wait(5)


@pytest.mark.parametrize(("octets", "problem"), [(0, ""), (1, "the answer is not HTTP")])
def test_a_status_line_may_be_long(thread: ReactorThread, octets: int, problem: str) -> None:
    """n octets are a status line, n + 1 are none."""
    line = b"HTTP/1.1 200 ".ljust(STATUS_LINE_OCTETS_MAX - 1 + octets, b"x") + b"\n"
    with listener(says(line)) as one:
        assert probe(thread, "http:/", one.address, one.port) == problem


def test_a_hung_process_accepts_connections_and_serves_no_client(thread: ReactorThread) -> None:
    """A process that is stopped is alive to tcp, whose queue the kernel answers, and dead to http."""
    program = (
        "import http.server as h\n"
        "s = h.ThreadingHTTPServer(('127.0.0.1', 0), h.SimpleHTTPRequestHandler)\n"
        "print(s.server_port, flush=True)\n"
        "s.serve_forever()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as hung:
        try:
            assert hung.stdout is not None
            port = int(hung.stdout.readline())
            assert probe(thread, "http:/", "127.0.0.1", port) == ""
            os.kill(hung.pid, signal.SIGSTOP)
            assert probe(thread, "tcp", "127.0.0.1", port) == ""
            assert probe(thread, "http:/", "127.0.0.1", port) == "no answer within 0.4 s"
        finally:
            hung.kill()


def test_a_machine_that_does_not_answer(thread: ReactorThread) -> None:
    """A full queue drops what knocks, as a lost machine does; the time is up all the same."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(4)]
        try:
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(full.getsockname())
            assert probe(thread, "tcp", "127.0.0.1", full.getsockname()[1]) == "no answer within 0.4 s"
        finally:
            for one in waiting:
                one.close()


def test_an_address_that_cannot_be_reached(thread: ReactorThread) -> None:
    """The error of the kernel is the reason."""
    assert "unreachable" in probe(thread, "tcp", "224.0.0.1", 1)


def test_nothing_stays_behind(thread: ReactorThread) -> None:
    """After all of the above the reactor has no connection and no timer left."""
    readers = thread.call(thread.reactor.getReaders)
    assert not [reader for reader in readers if "Client" in type(reader).__name__]
    assert not thread.call(thread.reactor.getWriters)
    assert not thread.call(thread.reactor.getDelayedCalls)
