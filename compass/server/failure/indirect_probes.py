"""Indirect probes: hosts are asked to probe, because a server that is itself cut off must not condemn the rest
(opengnsp.md, "Failure detection").

The server asks hosts that depend on the listener, have a session now and answer inquiries: none that reported the
listener, and not the one that it runs on. The result of a host comes as a request of its own; a host that does not
answer counts for nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import msgspec
from twisted.internet.defer import Deferred, succeed

from compass.model.interfaces import Clock
from compass.model.requests import Findings
from compass.model.rows import Listener
from compass.system.timers import Timers
from compass.wire.messages import Inquiry

ID_MAX = 2**31 - 1
"""Inquiries are numbered up to here, then from 1 again."""


class Asked(Protocol):
    """A session whose host answers inquiries."""

    host: str

    def inquire(self, inquiry: Inquiry) -> None:
        """Send an inquiry."""


class ProbingHosts(Protocol):
    """The hosts' sessions."""

    def probing(self, row: Listener) -> Sequence[Asked]:
        """Return the sessions of hosts that depend on a listener and answer inquiries."""


class ProbeResult(msgspec.Struct, frozen=True):
    """Result of one host's probe."""

    host: str
    alive: bool
    detail: str = ""


class _ProbeRound(msgspec.Struct):
    """An inquiry: the hosts that have not answered yet, and the results of the others."""

    waiting: dict[str, None]
    results: list[ProbeResult]
    done: Deferred[list[ProbeResult]]


class IndirectProbes:
    """The inquiries under way."""

    def __init__(self, clock: Clock, hosts: ProbingHosts) -> None:
        self._timers = Timers(clock)
        self._hosts = hosts
        self._last = 0
        self._rounds: dict[int, _ProbeRound] = {}

    def ask(self, row: Listener, count: int, without: Collection[str], seconds: float) -> Deferred[list[ProbeResult]]:
        """Ask up to `count` hosts. Returns their results, once all have answered or `seconds` are over."""
        able = [session for session in self._hosts.probing(row) if session.host not in without]
        if not able or not count:
            return succeed([])
        self._last = self._last % ID_MAX + 1
        number = self._last
        first = number % len(able)
        chosen = (able[first:] + able[:first])[:count]
        done: Deferred[list[ProbeResult]] = Deferred()
        self._timers.start(number, seconds, self._end, number)
        self._rounds[number] = _ProbeRound({session.host: None for session in chosen}, [], done)
        for session in chosen:
            session.inquire(Inquiry(number, row.service, row.address, row.port))
        return done

    def add_result(self, host: str, findings: Findings) -> bool:
        """Add a host's result. Returns False if the host was not asked, or the inquiry is over."""
        probe_round = self._rounds.get(findings.id)
        if probe_round is None or host not in probe_round.waiting:
            return False
        del probe_round.waiting[host]
        probe_round.results.append(ProbeResult(host, findings.alive, findings.detail))
        if not probe_round.waiting:
            self._end(findings.id)
        return True

    def stop(self) -> None:
        """Drop every inquiry."""
        self._timers.cancel_all()
        self._rounds.clear()

    def _end(self, number: int) -> None:
        self._timers.cancel(number)
        probe_round = self._rounds.pop(number)
        probe_round.done.callback(probe_round.results)
