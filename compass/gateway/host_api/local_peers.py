"""Local peers: each connection of a program on this machine, with the user whose program it is.

The factory here stands in front of another one. A user who has too many connections gets no further one, and what
arrives faster than a user's share waits unread for its turn, so that the others' requests are answered meanwhile.
"""

from __future__ import annotations

import re
from typing import Any, Protocol, cast

from twisted.internet.interfaces import IAddress, ITransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.server import Request

from compass.model.interfaces import Clock, Timer
from compass.system.peer_credentials import UNKNOWN_USER, user_of_peer

REQUEST_MARK = re.compile(rb" HTTP/1\.")
"""Octets that each request has once: pipelined ones arrive together, and each needs a turn."""
REQUESTS_AT_ONCE = 4
"""Pipelined requests of one connection that are answered before others have a turn: some milliseconds."""


class UserLimits(Protocol):
    """Limits of each user of this machine; `agent.local_users.LocalUsers`."""

    def connect(self, user: int) -> int | None:
        """Count a connection. Returns the user that it is counted for; None: there may not be one more."""

    def disconnect(self, user: int) -> None:
        """Uncount a connection."""

    def turn(self, user: int, requests: int) -> float | None:
        """Count requests. Returns the seconds that they have to wait; None: they get no turn."""


class LocalPeer(ProtocolWrapper):
    """Connection of a program of a known user, or of UNKNOWN_USER."""

    user = UNKNOWN_USER
    is_counted = False
    """The connection is counted for its user."""
    _is_paused = False
    _timer: Timer | None = None

    def makeConnection(self, transport: ITransport) -> None:
        """Begin, if the user may have one more connection."""
        if not self.is_counted:
            user = self._factory.admit(cast(Any, transport).getHandle())
            if user is None:
                cast(Any, transport).abortConnection()
                return
            self.user, self.is_counted = user, True
        self._late = bytearray()
        cast(Any, super()).makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        """Hand on what the peer has sent, at once or when it is this user's turn."""
        if self._factory.clock is None:
            cast(Any, super()).dataReceived(data)
            return
        self._late += data
        if self._timer is None:
            self._next_turn()

    def pauseProducing(self) -> None:
        """Stop reading, for the protocol."""
        self._is_paused = True
        cast(Any, self.transport).pauseProducing()

    def resumeProducing(self) -> None:
        """Read again, for the protocol."""
        self._is_paused = False
        if self._timer is None:
            cast(Any, self.transport).resumeProducing()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Uncount the connection; one that was never begun has no protocol behind it."""
        if not self.is_counted:
            return
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._factory.limits.disconnect(self.user)
        cast(Any, super()).connectionLost(reason)

    @property
    def _factory(self) -> LocalPeers:
        return cast(LocalPeers, self.factory)

    def _next_turn(self) -> None:
        """Count the next requests; hand them on at once, or at the turn of the user, and do not read until then."""
        size, requests = _first_requests(self._late)
        wait = self._factory.limits.turn(self.user, requests)
        if wait is None:
            self._late.clear()
            cast(Any, self.transport).abortConnection()
        elif wait > 0.0:
            self._wait(wait, size)
        else:
            self._hand_on(size)

    def _wait(self, seconds: float, size: int) -> None:
        cast(Any, self.transport).pauseProducing()
        self._timer = cast(Clock, self._factory.clock).callLater(seconds, self._in_turn, size)

    def _in_turn(self, size: int) -> None:
        self._timer = None
        if size:
            self._hand_on(size)
        else:
            self._next_turn()
        if self._timer is None and not self._is_paused:
            cast(Any, self.transport).resumeProducing()

    def _hand_on(self, size: int) -> None:
        """Hand on octets; others have a turn before the rest."""
        data = bytes(self._late[:size])
        del self._late[:size]
        if self._late:
            self._wait(0.0, 0)
        cast(Any, super()).dataReceived(data)


class LocalPeers(WrappingFactory):
    """Factory in front of another factory, for ports of this machine's programs."""

    protocol = LocalPeer
    noisy = False

    def __init__(self, factory: Any, limits: UserLimits, clock: Clock | None = None) -> None:
        """`clock`: what arrives faster than a user's share waits; None: only connections are limited."""
        cast(Any, super()).__init__(factory)
        self.limits = limits
        self.clock = clock

    def admit(self, handle: Any) -> int | None:
        """Count a connection of the user at the other end of a socket.

        Returns the user that it is counted for; None: there may not be one more.
        """
        user = self.limits.connect(user_of_peer(handle))
        if user is not None and self.clock is not None and self.limits.turn(user, 1) is None:
            self.limits.disconnect(user)
            return None
        return user

    def build(self, addr: IAddress | None, user: int) -> Any:
        """Return the protocol of an admitted connection, or None if the wrapped factory refuses it."""
        made = self.buildProtocol(addr)
        if made is None:
            self.limits.disconnect(user)
        else:
            made.user, made.is_counted = user, True
        return made

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return a connection, or None if the wrapped factory refuses it."""
        inner = self.wrappedFactory.buildProtocol(addr)
        return None if inner is None else self.protocol(cast(Any, self), inner)


def _first_requests(data: bytearray) -> tuple[int, int]:
    """Return how many octets have the first requests, and how many requests they are, at least one.

    The octets end within a request if there are more: the one that follows cannot be answered without the rest.
    """
    requests = 0
    for found in REQUEST_MARK.finditer(data):
        if requests == REQUESTS_AT_ONCE:
            return found.start(), requests
        requests += 1
    return len(data), max(1, requests)


def user_of(request: Request) -> int:
    """Return the user whose program sent a request."""
    return int(getattr(getattr(request.channel, "transport", None), "user", UNKNOWN_USER))
