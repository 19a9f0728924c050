"""Relay of reports that this host's server could not write to its other servers ("Store outages").

Each of them has hosts in session that only it can notify of a suspicion. One short session to each delivers all that is
due: connect, report, disconnect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from compass.agent.upstream.connector import CONNECT_SECONDS, Dial
from compass.agent.upstream.server_selector import ServerAddress
from compass.agent.upstream.session import Session
from compass.model.interfaces import Clock
from compass.model.replies import Reply
from compass.model.requests import Report
from compass.wire.events import SessionEnded
from compass.wire.messages import Pushed, Welcome

REPORTS_MAX = 256
"""Reports that wait for one of the others: more than a host finds dead before the connection is there."""


class ReportRelay:
    """Relay of reports. `others` returns an address of each server that this host has no session with, `problem_with`
    the reason why a peer must not be trusted; `told` gets the reply of each server to a report."""

    def __init__(
        self,
        clock: Clock,
        others: Callable[[], Sequence[ServerAddress]],
        dial: Dial,
        problem_with: Callable[[Session], str],
        software: str,
        told: Callable[[Report, Reply], None],
    ) -> None:
        self._clock = clock
        self._others = others
        self._dial = dial
        self._problem_with = problem_with
        self._software = software
        self._told = told
        self._errands: dict[ServerAddress, _RelaySession] = {}

    def send(self, report: Report) -> None:
        """Send to each of them, once."""
        for way in self._others():
            if way not in self._errands:
                self._errands[way] = errand = _RelaySession(way, self._told, self._problem_with, self._over)
                errand.go(self._clock, self._dial, self._software)
            self._errands[way].take(report)

    def stop(self) -> None:
        """Stop the sessions."""
        for errand in list(self._errands.values()):
            errand.stop()

    def _over(self, way: ServerAddress) -> None:
        self._errands.pop(way, None)


class _RelaySession:
    """Short session: the owner of its `Session`."""

    _log = Logger()

    def __init__(
        self,
        way: ServerAddress,
        told: Callable[[Report, Reply], None],
        problem_with: Callable[[Session], str],
        over: Callable[[ServerAddress], None],
    ) -> None:
        self._way = way
        self._told = told
        self._problem_with = problem_with
        self._over = over
        self._due: list[Report] = []
        self._asked = 0
        self._session: Session | None = None
        self._connecting: Deferred[Any] = Deferred()

    def go(self, clock: Clock, dial: Dial, software: str) -> None:
        """Connect; who is not there is no trouble."""
        factory = Factory.forProtocol(lambda: Session(clock, self, software, self._way))
        self._connecting = cast(Any, dial(self._way)).connect(factory)
        self._connecting.addTimeout(CONNECT_SECONDS, cast(Any, clock))
        self._connecting.addErrback(lambda failure: self._over(self._way))

    def take(self, report: Report) -> None:
        """Report this as well."""
        if self._session is not None:
            self._ask(report)
        elif len(self._due) < REPORTS_MAX:
            self._due.append(report)

    def stop(self) -> None:
        """Leave it."""
        self._connecting.cancel()
        if self._session is not None:
            self._session.close()

    def _ask(self, report: Report) -> None:
        assert self._session is not None
        self._asked += 1
        self._session.ask(report).addCallback(self._answered, report)

    def _answered(self, reply: Reply, report: Report) -> None:
        self._asked -= 1
        self._told(report, reply)
        if not self._asked and self._session is not None:
            self._session.close()

    # From the session (session.Owner).

    def connected(self, session: Session) -> bool:
        """Return whether there is a report to send."""
        return bool(self._due)

    def opened(self, session: Session, welcome: Welcome) -> None:
        """Say it, if it is a server."""
        problem = self._problem_with(session)
        if problem:
            self._log.warn("who was reached is no server: {problem}", problem=problem)
            session.close(reason=problem)
            return
        self._session = session
        due, self._due = self._due, []
        for report in due:
            self._ask(report)

    def pushed(self, session: Session, messages: Sequence[Pushed]) -> None:
        """A session that does not watch is pushed nothing."""

    def ended(self, session: Session, end: SessionEnded) -> None:
        """End: unanswered reports are repeated to the server that this host is in session with."""
        self._over(self._way)
