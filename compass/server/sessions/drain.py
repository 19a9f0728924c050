"""Drain: before a machine is serviced, its hosts go to other servers, a few at a time.

A drained server sends `goodbye` to the hosts that it has, spread evenly over the time that an administrator sets, and
to hosts that come later in place of a welcome. It continues to serve administrators and the hosts that it dials. A
server is drained until it is undrained or restarted.
"""

from __future__ import annotations

import math
from collections import deque

from twisted.logger import Logger

from compass.model.interfaces import Clock, Timer
from compass.model.limits import STEER_SECONDS_MAX
from compass.model.names import InvalidName, parse_server
from compass.model.replies import Refusal, Steered
from compass.model.requests import Steer
from compass.server.sessions.connection_limits import ConnectionLimits
from compass.server.sessions.session import Redirect, Session
from compass.wire.limits import INSTEAD_MAX

STEP_SECONDS = 0.1
"""Shortest time between two groups of hosts that are sent away: hosts wait up to 0.6 s of their own."""
AWAY_SECONDS = 60.0
"""Seconds after which a host that was sent away may try this server again: an undrained server is found by hosts that
prefer it within this time and the pause with which hosts return, and meanwhile few try it without success."""


class HostDrain:
    """State of a drain: whether this server accepts hosts, and where they go if not."""

    log = Logger()

    def __init__(self, clock: Clock, connections: ConnectionLimits) -> None:
        self._clock = clock
        self._connections = connections
        self._leaving: deque[Session] = deque()
        self._step_seconds = STEP_SECONDS
        self._at_once = 1
        self._timer: Timer | None = None
        self.redirect: Redirect | None = None
        """Redirect that hosts get; None: they are accepted."""

    def steer(self, request: Steer, others: tuple[str, ...]) -> Steered | Refusal:
        """Send the hosts away, or accept them again. Returns how many are to be sent away, and where they go.

        `others`: the other servers over the store that run. Without one the hosts have nowhere to go, and the drain of
        the only server is refused unless it is forced or names servers.
        """
        refusal = _refusal_of(request) or _refusal_of_last(request, others)
        if refusal is not None:
            return refusal
        self.stop()
        if not request.away:
            self.redirect = None
            self.log.info("hosts are accepted again")
            return Steered(0)
        self.redirect = Redirect("this server is being drained", AWAY_SECONDS, request.instead)
        self._leaving.extend(session for session in self._connections.sessions if _of_a_host(session))
        count, to = len(self._leaving), request.instead or others
        # One host after another; several together where that would be too many steps.
        self._step_seconds = max(request.seconds / max(count, 1), STEP_SECONDS)
        self._at_once = (
            math.ceil(count * self._step_seconds / request.seconds) if request.seconds >= STEP_SECONDS else count
        )
        self.log.info(
            "sending {n} hosts away within {seconds:g} s, to {where}",
            n=count,
            seconds=request.seconds,
            where=", ".join(to) or "the servers they know, of which none runs over this store",
        )
        self._send_some()
        return Steered(count, to)

    def redirect_of(self, session: Session) -> Redirect | None:
        """Return where a peer that has just come is sent, or None if it is accepted."""
        return self.redirect if _of_a_host(session) else None

    def stop(self) -> None:
        """Stop sending hosts away."""
        self._leaving.clear()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _send_some(self) -> None:
        for _ in range(min(self._at_once, len(self._leaving))):
            session = self._leaving.popleft()
            if self.redirect is not None:
                session.goodbye(*self.redirect)
        if self._leaving:
            self._timer = self._clock.callLater(self._step_seconds, self._send_some)


def _of_a_host(session: Session) -> bool:
    """Return whether a host connected: a session that this server dialled only delivers notices, then ends."""
    return session.asker.role == "host" and not session.dialled


def _refusal_of_last(request: Steer, others: tuple[str, ...]) -> Refusal | None:
    """Return the refusal to drain the only server."""
    if not request.away or request.force or request.instead or others:
        return None
    text = (
        "no other server over this store runs, so the hosts would have no server to go to: they would answer from "
        "memory, and nothing could be registered. Start another server first, name servers of these hosts (--to), or "
        "force the drain (--force)"
    )
    return Refusal("in-use", text)


def _refusal_of(request: Steer) -> Refusal | None:
    if not 0 <= request.seconds <= STEER_SECONDS_MAX:
        return Refusal("bad-value", f"{request.seconds:g} s is not between 0 and {STEER_SECONDS_MAX:g}")
    if len(request.instead) > INSTEAD_MAX:
        return Refusal("too-large", f"{len(request.instead)} servers to go to; at most {INSTEAD_MAX} are sent")
    for text in request.instead:
        try:
            parse_server(text)
        except InvalidName as problem:
            return Refusal(problem.code, str(problem))
    return None
