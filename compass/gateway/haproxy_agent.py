"""HAProxy's agent check (its manual, `agent-check`): what the name service knows of a listener, in one line.

    server s1 192.0.2.7:2028 check agent-check agent-addr 127.0.0.1 agent-port 4867 \\
        agent-send "chinaserver.openuss 192.0.2.7:2028\\n" agent-inter 1s

One port for all listeners: the line that HAProxy sends says which one is meant. A view that is not loaded and a service
that nothing is known of get no word at all, which changes nothing in HAProxy (P5); its own health checks go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from compass.model.interfaces import Clock, Timer
from compass.model.names import InvalidName, format_endpoint, parse_endpoint, parse_service_id
from compass.model.replies import Refusal, ServiceView
from compass.model.rows import USABLE, Listener
from compass.model.text import escape_line

LINE_OCTETS_MAX = 256
"""Of a question: a service id and an endpoint have at most 127 and 47."""
QUESTION_SECONDS = 2.0
"""For the question to arrive, from the same machine."""
CONNECTIONS_MAX = 1_000
"""At the same time: HAProxy asks for each server of each backend, and leaves when it has the answer."""
REASON_MAX = 80
"""Characters of the reason: it stands on HAProxy's page of statistics."""
COMPLAINTS_MAX = 100
"""Questions that are told once each in the log: a configuration has no more mistakes of its own."""

Look = Callable[[str], ServiceView | Refusal]
"""A service with its registered listeners."""


def words_for(view: ServiceView, address: str, port: int) -> str:
    """The answer about one listener: whether it serves, whether it takes new users, and its share of them.

    The share is that of the service's heaviest listener, which has 100 %, so every server's own `weight` is 100.
    """
    peer = next((peer for peer in view.listeners if (peer.address, peer.port) == (address, port)), None)
    if peer is None:
        return f"stopped #{_reason('not registered')}"
    drain = "drain" if peer.draining or peer.state == "draining" else "ready"
    if peer.state in USABLE or peer.state == "draining":
        return f"up {drain} {_share(peer, view.listeners)}%"
    return f"down {drain} #{_reason(f'{peer.state}: {peer.cause}')}"


def _share(peer: Listener, peers: tuple[Listener, ...]) -> int:
    """Of 100; what is not 0 does not become 0, which would drain it."""
    heaviest = max(other.weight for other in peers)
    return max(1, round(100 * peer.weight / heaviest)) if peer.weight else 0


def _reason(text: str) -> str:
    """For people; HAProxy's line ends at the first line break."""
    return escape_line(text, REASON_MAX)


class AgentCheck(Factory):
    """The port that HAProxy asks."""

    log = Logger()
    noisy = False

    def __init__(self, look: Look, clock: Clock) -> None:
        self._look = look
        self.clock = clock
        self.open = 0
        self._told: set[str] = set()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A question's connection; None when there are too many."""
        return _Question(self) if self.open < CONNECTIONS_MAX else None

    def answer(self, line: bytes) -> str:
        """The words for a question; none when nothing can be said."""
        text = line.decode("ascii", "replace").strip()
        try:
            name, _, endpoint = text.partition(" ")
            service, (address, port) = parse_service_id(name), parse_endpoint(endpoint.strip())
        except InvalidName as problem:
            self._complain(text, f"{problem}; send 'SERVICE ADDRESS:PORT'")
            return ""
        view = self._look(service)
        if isinstance(view, Refusal):
            if view.code != "not-ready":
                self._complain(text, view.message)
            return ""
        words = words_for(view, address, port)
        if words.startswith("stopped"):
            self._complain(text, f"{service} has no listener {format_endpoint(address, port)} now: HAProxy is told so")
        return words

    def _complain(self, question: str, why: str) -> None:
        """Once for each question: HAProxy asks every second."""
        if question not in self._told and len(self._told) < COMPLAINTS_MAX:
            self._told.add(question)
            self.log.warn("agent check {question!r}: {why}", question=question[:LINE_OCTETS_MAX], why=why)


class _Question(LineOnlyReceiver):
    """One connection: a line, its answer, and the end."""

    delimiter = b"\n"
    MAX_LENGTH = LINE_OCTETS_MAX

    def __init__(self, check: AgentCheck) -> None:
        self._check = check
        self._timer: Timer | None = None

    def connectionMade(self) -> None:
        self._check.open += 1
        self._timer = self._check.clock.callLater(QUESTION_SECONDS, self._leave)

    def lineReceived(self, line: bytes) -> None:
        words = self._check.answer(line)
        if words:
            cast(Any, self.transport).write(f"{words}\n".encode("ascii", "replace"))
        self._leave()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._check.open -= 1
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _leave(self) -> None:
        cast(Any, self.transport).loseConnection()
