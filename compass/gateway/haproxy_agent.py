"""HAProxy's agent check (its manual, `agent-check`): the state of a listener in one line.

    server s1 192.0.2.7:2028 check agent-check agent-addr 127.0.0.1 agent-port 4867 \\
        agent-send "chinaserver.openuss 192.0.2.7:2028\\n" agent-inter 1s

A line without its end is read when nothing follows for PAUSE_SECONDS, or when HAProxy ends its side: an `agent-send`
without `\\n` is answered, too.

One port for all listeners: the line that HAProxy sends names the listener. If no view is loaded or the service is
unknown, the answer is empty, which changes nothing in HAProxy (P5); its own health checks continue.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from compass.model.interfaces import Clock, Timer
from compass.model.names import InvalidName, format_endpoint, parse_endpoint, parse_service_id
from compass.model.replies import Refusal, ServiceView
from compass.model.rows import USABLE, Listener
from compass.model.text import escape_line

LINE_OCTETS_MAX = 256
"""Longest query: a service id and an endpoint have at most 127 and 47 octets."""
QUERY_SECONDS = 2.0
"""Time limit for a query from the same machine to arrive."""
PAUSE_SECONDS = 0.1
"""Time after the last octets of a line without an end until it is read: HAProxy sends a line in one piece."""
CONNECTIONS_MAX = 1_000
"""Most connections at once: HAProxy asks for each server of each backend, and disconnects after the answer."""
REASON_MAX = 80
"""Longest reason in characters: HAProxy's page of statistics shows it."""
WARNINGS_MAX = 100
"""Invalid queries that are logged, each once: a configuration has fewer mistakes."""


class ServiceLookup(Protocol):
    """Source of services: the host's daemon."""

    def service(self, id: str) -> ServiceView | Refusal:
        """Return a service with its registered listeners."""


def answer_for(view: ServiceView, address: str, port: int) -> str:
    """Return the answer about one listener: whether it serves, whether it accepts new users, and its share of them.

    The share is relative to the service's heaviest listener, which has 100 %, so every server's own `weight` is 100.
    """
    peer = next((peer for peer in view.listeners if (peer.address, peer.port) == (address, port)), None)
    if peer is None:
        return f"stopped #{_reason('not registered')}"
    drain = "drain" if peer.draining or peer.state == "draining" else "ready"
    if peer.state in USABLE or peer.state == "draining":
        return f"up {drain} {_share(peer, view.listeners)}%"
    return f"down {drain} #{_reason(f'{peer.state}: {peer.cause}')}"


def _share(peer: Listener, peers: tuple[Listener, ...]) -> int:
    """Return the share in percent. A weight above 0 is at least 1 %: HAProxy would drain a server with 0 %."""
    heaviest = max(other.weight for other in peers)
    return max(1, round(100 * peer.weight / heaviest)) if peer.weight else 0


def _reason(text: str) -> str:
    """Return a reason for people on one line: HAProxy's line ends at the first line break."""
    return escape_line(text, REASON_MAX)


class AgentCheck(Factory):
    """Factory of the port that HAProxy queries."""

    log = Logger()
    noisy = False

    def __init__(self, services: ServiceLookup, clock: Clock) -> None:
        self._services = services
        self.clock = clock
        self.open = 0
        self._warned: set[str] = set()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return the connection of a query; None if there are too many."""
        return _Query(self) if self.open < CONNECTIONS_MAX else None

    def answer(self, line: bytes) -> str:
        """Return the answer to a query; empty if the state is unknown."""
        text = line.decode("ascii", "replace").strip()
        try:
            name, _, endpoint = text.partition(" ")
            service, (address, port) = parse_service_id(name), parse_endpoint(endpoint.strip())
        except InvalidName as problem:
            self._warn(text, f"{problem}; send 'SERVICE ADDRESS:PORT'")
            return ""
        view = self._services.service(service)
        if isinstance(view, Refusal):
            if view.code != "not-ready":
                self._warn(text, view.message)
            return ""
        found = answer_for(view, address, port)
        if found.startswith("stopped"):
            self._warn(text, f"{service} has no listener {format_endpoint(address, port)}; HAProxy stops using it")
        return found

    def _warn(self, query: str, why: str) -> None:
        """Log a problem once for each query: HAProxy asks every second."""
        if query not in self._warned and len(self._warned) < WARNINGS_MAX:
            self._warned.add(query)
            self.log.warn("agent check {query!r}: {why}", query=query[:LINE_OCTETS_MAX], why=why)


@implementer(IHalfCloseableProtocol)
class _Query(LineOnlyReceiver):
    """Connection of one query: a line, its answer, and the end."""

    delimiter = b"\n"
    MAX_LENGTH = LINE_OCTETS_MAX

    def __init__(self, check: AgentCheck) -> None:
        self._check = check
        self._timer: Timer | None = None
        self._pause: Timer | None = None
        self._answered = False

    def connectionMade(self) -> None:
        self._check.open += 1
        self._timer = self._check.clock.callLater(QUERY_SECONDS, self._close)

    def dataReceived(self, data: bytes) -> None:
        cast(Any, super()).dataReceived(data)
        self._end_pause()
        if not self._answered:
            self._pause = self._check.clock.callLater(PAUSE_SECONDS, self._read_rest)

    def readConnectionLost(self) -> None:
        """Read a line whose end is that of the peer's side."""
        self._read_rest()

    def writeConnectionLost(self) -> None:
        """Do nothing: only this side ends its writing."""

    def _read_rest(self) -> None:
        self._end_pause()
        if self._answered:
            return
        if 0 < len(self._buffer) <= self.MAX_LENGTH:
            self.lineReceived(self._buffer)
        else:
            self._close()

    def _end_pause(self) -> None:
        if self._pause is not None and self._pause.active():
            self._pause.cancel()
        self._pause = None

    def lineReceived(self, line: bytes) -> None:
        if self._answered:
            return
        self._answered = True
        answer = self._check.answer(line)
        if answer:
            cast(Any, self.transport).write(f"{answer}\n".encode("ascii", "replace"))
        self._close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._check.open -= 1
        self._answered = True
        self._end_pause()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _close(self) -> None:
        cast(Any, self.transport).loseConnection()
