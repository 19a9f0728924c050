"""Reports that this host's server could not write down, told to its other servers ("While the store is away").

Each of them has hosts in session that nobody else tells of a suspicion. One short session to each takes all that is
due: connect, report, leave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory

from compass.host.session import Session
from compass.model.ports import Clock
from compass.model.replies import Reply
from compass.model.requests import Report
from compass.wire.messages import Pushed, Welcome

CONNECT_SECONDS = 5.0
"""As long as for a session that is to stay; a report is of no use much later."""
REPORTS_MAX = 256
"""Reports that wait for one of the others: more than a host finds dead before the connection is there."""


class Elsewhere:
    """`others` gives the servers that this host has no session with; `told` hears what each answers to a report."""

    def __init__(
        self,
        clock: Clock,
        others: Callable[[], Sequence[IStreamClientEndpoint]],
        software: str,
        told: Callable[[Report, Reply], None],
    ) -> None:
        self._clock = clock
        self._others = others
        self._software = software
        self._told = told
        self._errands: dict[IStreamClientEndpoint, _Errand] = {}

    def tell(self, report: Report) -> None:
        """To each of them, once."""
        for endpoint in self._others():
            if endpoint not in self._errands:
                self._errands[endpoint] = _Errand(self._clock, endpoint, self._software, self._told, self._over)
            self._errands[endpoint].take(report)

    def stop(self) -> None:
        """No more."""
        for errand in list(self._errands.values()):
            errand.stop()

    def _over(self, endpoint: IStreamClientEndpoint) -> None:
        self._errands.pop(endpoint, None)


class _Errand:
    """One short session: the owner of its `Session`."""

    def __init__(
        self,
        clock: Clock,
        endpoint: IStreamClientEndpoint,
        software: str,
        told: Callable[[Report, Reply], None],
        over: Callable[[IStreamClientEndpoint], None],
    ) -> None:
        self._endpoint = endpoint
        self._told = told
        self._over = over
        self._due: list[Report] = []
        self._asked = 0
        self._session: Session | None = None
        factory = Factory.forProtocol(lambda: Session(clock, self, software, None))
        self._connecting: Deferred[Any] = cast(Any, endpoint).connect(factory)
        self._connecting.addTimeout(CONNECT_SECONDS, cast(Any, clock))
        self._connecting.addErrback(lambda failure: over(endpoint))

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
        """It is wanted as long as there is something to say."""
        return bool(self._due)

    def opened(self, session: Session, welcome: Welcome) -> None:
        """Say it."""
        self._session = session
        due, self._due = self._due, []
        for report in due:
            self._ask(report)

    def pushed(self, session: Session, messages: Sequence[Pushed]) -> None:
        """A session that does not watch is pushed nothing."""

    def ended(self, session: Session, reason: str, retry_after_seconds: float) -> None:
        """It is over; what was not answered is repeated to the server that this host is in session with."""
        self._over(self._endpoint)
