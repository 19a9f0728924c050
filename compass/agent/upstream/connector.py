"""Connector: attempts to make a session, one address after another and, if one is slow, several in parallel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, cast

import msgspec
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from compass.agent.upstream.server_selector import ServerAddress, ServerSelector
from compass.agent.upstream.session import Session
from compass.model.interfaces import Clock, Stream
from compass.system.timers import Timers

CONNECT_SECONDS = 5.0
"""Seconds from the first packet to the connection, TLS included in the greeting; then the attempt has failed."""
BESIDE_SECONDS = 1.5
"""Seconds after which an attempt without a session may be in a dead network: the next address is dialled in parallel.
"""
DIALS_MAX = 3
"""Addresses tried at once: one that is dead, one that is slow, and one that works."""

Dial = Callable[[ServerAddress], IStreamClientEndpoint]
"""Function from an address to its endpoint; the peer there has to prove the address's name."""
PeerOf = Callable[[Stream], tuple[str, str, str]]
"""Role and name in the peer's verified certificate, or in third place why they cannot be known."""
Mode = Literal["keep", "short"]
"""keep: a session is always open, notices come at once. short: connect, ask, leave; the server dials to push."""


class UpstreamDependencies(msgspec.Struct, frozen=True, kw_only=True):
    """Dependencies of what makes sessions with servers."""

    clock: Clock
    selector: ServerSelector
    dial: Dial
    peer_of: PeerOf
    software: str
    mode: Mode = "keep"


class ConnectorOwner(Protocol):
    """Owner of the sessions that a connector makes; `upstream.Upstream`."""

    def new_session(self, server: ServerAddress | None) -> Session:
        """Make the protocol for a connection to this address."""

    def not_reached(self, server: ServerAddress, reason: str) -> None:
        """Handle an attempt to connect that failed."""


class Connector:
    """Connection attempts that are under way, and greetings on those that succeeded."""

    def __init__(self, parts: UpstreamDependencies, owner: ConnectorOwner) -> None:
        self._clock = parts.clock
        self._selector = parts.selector
        self._dial = parts.dial
        self._owner = owner
        self._timers = Timers(parts.clock)
        self._connecting: dict[ServerAddress, Deferred[IProtocol]] = {}
        self._since: dict[ServerAddress, float] = {}
        """Time of the last attempt by address."""
        self.greeting: set[Session] = set()
        """Connections without a welcome yet, also those that a server dialled."""

    def tried(self) -> set[ServerAddress]:
        """Return the addresses at which a session is being made."""
        return {*self._connecting, *(session.server for session in self.greeting if session.server is not None)}

    def trying(self) -> bool:
        """Return whether a session is possible in a moment: one is being made, or an address is untried."""
        active = bool(self._connecting or self.greeting) or "next" in self._timers
        return self._selector.has_untried and (active or not self._selector.servers)

    def candidates_changed(self) -> None:
        """Try the new candidates, at once if nothing is being tried."""
        if not (self.tried() and "next" in self._timers):
            self.connect_next()

    def connect_next(self) -> None:
        """Dial the address that is to be tried next as soon as its time has come, and then the one after it."""
        self._timers.cancel("next")
        following = self._selector.next(self._clock.seconds(), self.tried())
        if following is None or len(self.tried()) >= DIALS_MAX:
            return  # A failed attempt or a new candidate continues from here.
        if following.seconds > 0:
            self._timers.start("next", following.seconds, self.connect_next)
        else:
            self._timers.start("next", BESIDE_SECONDS, self.connect_next)
            self.connect(following.server)

    def connect(self, server: ServerAddress) -> None:
        """Dial this address now."""
        factory = Factory.forProtocol(lambda: self._owner.new_session(server))
        factory.noisy = False
        connecting: Deferred[IProtocol] = cast(Any, self._dial(server)).connect(factory)
        self._connecting[server] = connecting
        self._since[server] = self._clock.seconds()
        connecting.addTimeout(CONNECT_SECONDS, cast(Any, self._clock))

        def done(result: object) -> None:
            wanted = self._connecting.pop(server, None) is not None
            if wanted and isinstance(result, Failure):
                late = f"no connection within {CONNECT_SECONDS:g} s" if result.check(TimeoutError) else ""
                self._owner.not_reached(server, late or result.getErrorMessage() or "no connection")

        connecting.addBoth(done)

    def give_up(self) -> None:
        """End all attempts: there is a session, or none is wanted. Slow addresses count as failed."""
        self._timers.cancel("next")
        now = self._clock.seconds()
        for server in self.tried():
            waited = now - self._since.get(server, now)
            if waited >= BESIDE_SECONDS:
                self._selector.failed(server, now, f"no answer within {waited:.1f} s; another address was faster")
        self._since.clear()
        connecting, self._connecting = self._connecting, {}
        for each in connecting.values():
            each.cancel()
        for session in list(self.greeting):
            session.close()
