"""Baseline of Python itself: a bare loop of `send`, and a bare Twisted echo, with which compass is compared.

`python -m bench.systems.baseline_socket send|echo PORT OCTETS` serves in the framing of OpenGNSP, of which it uses
nothing else.
"""

from __future__ import annotations

import select
import socket
import sys
from pathlib import Path
from typing import Any

from bench.generator import ROOT, Plan, Step, Template
from bench.systems.running import Running, free_port
from bench.systems.system import RECORD_OCTETS, System
from compass.wire.frames import frame

WRITER = b"W"


class BareSend(System):
    """An epoll loop: a frame of the writer is answered, and sent to all others."""

    name = "bare send loop"
    version = "Python " + sys.version.split()[0]

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._port = free_port()

    def start(self) -> None:
        _start(self, "send", self._port, RECORD_OCTETS)

    def registrations(self, clients: int) -> Plan | None:
        return None

    def fan_out(self, watchers: int) -> Plan:
        hello = Step(Template(frame(b"x", 1)))
        plan = Plan("opengnsp", ("127.0.0.1", self._port), watchers + 1, "fanout", None, [hello])
        plan.writer_setups = [hello]
        plan.writer_request = Step(Template(frame(WRITER, 2)))
        return plan

    def lists(self, clients: int) -> Plan | None:
        return None


class BareEcho(System):
    """Twisted's epoll reactor: a request is answered with as many octets as compass's list has."""

    name = "bare Twisted echo"

    def __init__(self, directory: Path, octets: int) -> None:
        super().__init__(directory)
        self._port = free_port()
        self._octets = octets

    def start(self) -> None:
        import twisted

        self.version = f"Twisted {twisted.__version__}"
        _start(self, "echo", self._port, self._octets)

    def registrations(self, clients: int) -> Plan | None:
        return None

    def fan_out(self, watchers: int) -> Plan | None:
        return None

    def lists(self, clients: int) -> Plan:
        request = Step(Template(frame(b"x" * 27, 1)))
        return Plan("opengnsp", ("127.0.0.1", self._port), clients, "closed", None, [], request)


def _start(system: System, what: str, port: int, octets: int) -> None:
    command = [sys.executable, "-m", "bench.systems.baseline_socket", what, str(port), str(octets)]
    system.running = Running(command, system.directory / "log", {"PYTHONPATH": str(ROOT)})
    system.running.listens("127.0.0.1", port)


def _serve_send(port: int, octets: int) -> None:
    listening = socket.create_server(("127.0.0.1", port), backlog=4096)
    listening.setblocking(False)
    poller = select.epoll()
    poller.register(listening, select.EPOLLIN)
    peers: dict[int, socket.socket] = {}
    told = frame(b"x" * (octets - 8))
    while True:
        for number, _ in poller.poll():
            if number == listening.fileno():
                peer, _ = listening.accept()
                peer.setblocking(False)
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peers[peer.fileno()] = peer
                poller.register(peer, select.EPOLLIN)
                continue
            data = peers[number].recv(4096)
            if not data:
                poller.unregister(number)
                peers.pop(number).close()
                continue
            if data.endswith(WRITER):
                for other, peer in peers.items():
                    if other != number:
                        peer.send(told)
            peers[number].send(frame(b"done", 1))


def _serve_echo(port: int, octets: int) -> None:
    from twisted.internet import reactor as global_reactor
    from twisted.internet.protocol import Factory, Protocol

    reactor: Any = global_reactor
    answer = frame(b"x" * (octets - 8), 1)

    class Echo(Protocol):
        def dataReceived(self, data: bytes) -> None:
            transport: Any = self.transport
            transport.write(answer)

    reactor.listenTCP(port, Factory.forProtocol(Echo), 4096, "127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    {"send": _serve_send, "echo": _serve_echo}[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))
