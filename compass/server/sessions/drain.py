"""Sending hosts elsewhere: before a machine is serviced, its hosts go to other servers, a few at a time.

A server that is drained says `goodbye` to the hosts that it has, spread evenly over the time that an administrator
gives, and to those that come later in place of a welcome. It goes on serving administrators and the hosts that it
dials itself. That lasts until it is undrained or started anew.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from twisted.logger import Logger

from compass.model.interfaces import Clock, Timer
from compass.model.limits import STEER_SECONDS_MAX
from compass.model.names import InvalidName, parse_server
from compass.model.replies import Refusal, Steered
from compass.model.requests import Steer
from compass.server.sessions.session import Session
from compass.wire.limits import INSTEAD_MAX

STEP_SECONDS = 0.1
"""Shortest time between two groups of hosts that are sent away: hosts wait up to 0.6 s by themselves."""
AWAY_SECONDS = 60.0
"""When a host that was sent away may look here again: an undrained server is found by those that prefer it within
this time and the pause with which hosts go back, and meanwhile few ask in vain."""


class Redirect(NamedTuple):
    """What is said to a host that is not wanted here."""

    reason: str
    retry_after_seconds: float
    instead: tuple[str, ...]


class HostDrain:
    """Whether this server wants hosts, and where they go if not. `sessions` gives those that there are."""

    log = Logger()

    def __init__(self, clock: Clock, sessions: Callable[[], Iterable[Session]]) -> None:
        self._clock = clock
        self._sessions = sessions
        self._leaving: deque[Session] = deque()
        self._step_seconds = STEP_SECONDS
        self._at_once = 1
        self._timer: Timer | None = None
        self.elsewhere: Redirect | None = None
        """What hosts are told; None: they are welcome."""

    def steer(self, request: Steer) -> Steered | Refusal:
        """Send the hosts away, or welcome them again; how many there are to be sent."""
        refused = _refused(request)
        if refused is not None:
            return refused
        self.stop()
        if not request.away:
            self.elsewhere = None
            self.log.info("hosts are welcome again")
            return Steered(0)
        self.elsewhere = Redirect("this server is being drained", AWAY_SECONDS, request.instead)
        self._leaving.extend(session for session in self._sessions() if _of_a_host(session))
        count = len(self._leaving)
        # One host after another; so many together where that would be too many moments.
        self._step_seconds = max(request.seconds / max(count, 1), STEP_SECONDS)
        self._at_once = (
            math.ceil(count * self._step_seconds / request.seconds) if request.seconds >= STEP_SECONDS else count
        )
        self.log.info(
            "{n} hosts are sent away within {seconds:g} s, to {where}",
            n=count,
            seconds=request.seconds,
            where=", ".join(request.instead) or "the servers they know",
        )
        self._send_some()
        return Steered(count)

    def turned_away(self, session: Session) -> Redirect | None:
        """What a peer is told that has just come; None: it is welcome."""
        return self.elsewhere if _of_a_host(session) else None

    def stop(self) -> None:
        """Nobody more is sent away now."""
        self._leaving.clear()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _send_some(self) -> None:
        for _ in range(min(self._at_once, len(self._leaving))):
            session = self._leaving.popleft()
            if self.elsewhere is not None:
                session.goodbye(*self.elsewhere)
        if self._leaving:
            self._timer = self._clock.callLater(self._step_seconds, self._send_some)


def _of_a_host(session: Session) -> bool:
    """One that a host has made: what this server dials is to tell the host something, and ends by itself."""
    return session.asker.role == "host" and not session.dialled


def _refused(request: Steer) -> Refusal | None:
    if not 0 <= request.seconds <= STEER_SECONDS_MAX:
        return Refusal("bad-value", f"{request.seconds:g} s is not between 0 and {STEER_SECONDS_MAX:g}")
    if len(request.instead) > INSTEAD_MAX:
        return Refusal("too-large", f"{len(request.instead)} servers to go to; at most {INSTEAD_MAX} are told")
    for text in request.instead:
        try:
            parse_server(text)
        except InvalidName as problem:
            return Refusal(problem.code, str(problem))
    return None
