"""Asking hosts to probe: a server that is itself cut off must not condemn the world (opengnsp.md, "Failure reports").

Asked are hosts that depend on the listener, have a session now and say that they answer: not those that reported it,
and not the one that it runs on. What a host finds comes as a request of its own; who is silent says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Protocol

import msgspec
from twisted.internet.defer import Deferred, succeed

from compass.model.interfaces import Clock, Timer
from compass.model.requests import Findings
from compass.model.rows import Listener
from compass.wire.messages import Inquiry

ID_MAX = 2**31 - 1
"""Inquiries are numbered up to here, then from 1 again."""


class Asked(Protocol):
    """A session whose host answers inquiries."""

    host: str

    def inquire(self, inquiry: Inquiry) -> None:
        """Send it."""


class ProbeResult(msgspec.Struct, frozen=True):
    """What one host found."""

    host: str
    alive: bool
    detail: str = ""


class _ProbeRound(msgspec.Struct):
    """One inquiry: who has not answered yet, and what the others said."""

    waiting: dict[str, None]
    heard: list[ProbeResult]
    done: Deferred[list[ProbeResult]]
    timer: Timer


class IndirectProbes:
    """The inquiries under way; `candidates` gives the sessions that may be asked about a listener."""

    def __init__(self, clock: Clock, candidates: Callable[[Listener], Iterable[Asked]]) -> None:
        self._clock = clock
        self._candidates = candidates
        self._last = 0
        self._hearings: dict[int, _ProbeRound] = {}

    def ask(self, row: Listener, count: int, without: Collection[str], seconds: float) -> Deferred[list[ProbeResult]]:
        """What up to `count` hosts found, once all have answered or `seconds` are over; [] when none can be asked."""
        able = [session for session in self._candidates(row) if session.host not in without]
        if not able or not count:
            return succeed([])
        self._last = self._last % ID_MAX + 1
        number = self._last
        first = number % len(able)
        chosen = (able[first:] + able[:first])[:count]
        done: Deferred[list[ProbeResult]] = Deferred()
        timer = self._clock.callLater(seconds, self._over, number)
        self._hearings[number] = _ProbeRound({session.host: None for session in chosen}, [], done, timer)
        for session in chosen:
            session.inquire(Inquiry(number, row.service, row.address, row.port))
        return done

    def heard(self, host: str, findings: Findings) -> bool:
        """A host answers. False: it was not asked, or it is too late."""
        hearing = self._hearings.get(findings.id)
        if hearing is None or host not in hearing.waiting:
            return False
        del hearing.waiting[host]
        hearing.heard.append(ProbeResult(host, findings.alive, findings.detail))
        if not hearing.waiting:
            self._over(findings.id)
        return True

    def stop(self) -> None:
        """Nobody is waited for any more."""
        for hearing in self._hearings.values():
            hearing.timer.cancel()
        self._hearings.clear()

    def _over(self, number: int) -> None:
        hearing = self._hearings.pop(number)
        if hearing.timer.active():
            hearing.timer.cancel()
        hearing.done.callback(hearing.heard)
