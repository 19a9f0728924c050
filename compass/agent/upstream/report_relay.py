"""Reports that this host's server could not commit, sent to the other servers ("Store outages").

Each of them has hosts in session that no other server informs of a suspicion. One short session to each delivers all
that is due: connect, report, close.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from compass.agent.upstream.connector import CONNECT_SECONDS, UpstreamDependencies
from compass.agent.upstream.server_selector import ServerAddress
from compass.agent.upstream.session import Session
from compass.model.replies import Reply
from compass.model.requests import Report
from compass.wire.events import SessionEnded
from compass.wire.messages import Pushed, Welcome

REPORTS_MAX = 256
"""Reports that wait for the connection to one server: more than a host finds dead before it is there."""


class OtherServers(Protocol):
    """The servers that this host knows and has no session with; `upstream.Upstream`."""

    def others(self) -> Sequence[ServerAddress]:
        """Return one address of each."""

    def problem_with(self, session: Session) -> str:
        """Return why the peer of a session is not trusted as a server; empty: it is."""


class ReplyReceiver(Protocol):
    """Receiver of the replies of the other servers."""

    def relayed(self, report: Report, reply: Reply) -> None:
        """Handle one server's reply to a report."""


class ReportRelay:
    """Sends reports to each of the other servers."""

    def __init__(self, parts: UpstreamDependencies, servers: OtherServers) -> None:
        self.parts = parts
        self.servers = servers
        self.sessions: dict[ServerAddress, _RelaySession] = {}
        """Sessions that are being made or used."""

    def send(self, report: Report, receiver: ReplyReceiver) -> None:
        """Send a report to each of them, once."""
        for address in self.servers.others():
            if address not in self.sessions:
                self.sessions[address] = session = _RelaySession(self, address)
                session.connect()
            self.sessions[address].send(report, receiver)

    def stop(self) -> None:
        """End all sessions."""
        for session in list(self.sessions.values()):
            session.stop()


class _RelaySession:
    """Short session with one server; the owner of its `Session`."""

    _log = Logger()

    def __init__(self, relay: ReportRelay, address: ServerAddress) -> None:
        self._relay = relay
        self._address = address
        self._due: list[tuple[Report, ReplyReceiver]] = []
        self._unanswered = 0
        self._session: Session | None = None
        self._connecting: Deferred[Any] = Deferred()

    def connect(self) -> None:
        """Connect; a server that is not there is left out."""
        parts = self._relay.parts
        factory = Factory.forProtocol(lambda: Session(parts.clock, self, parts.software, self._address))
        self._connecting = cast(Any, parts.dial(self._address)).connect(factory)
        self._connecting.addTimeout(CONNECT_SECONDS, cast(Any, parts.clock))
        self._connecting.addErrback(lambda failure: self._over())

    def send(self, report: Report, receiver: ReplyReceiver) -> None:
        """Send one report more, now or when the session is open."""
        if self._session is not None:
            self._ask(self._session, report, receiver)
        elif len(self._due) < REPORTS_MAX:
            self._due.append((report, receiver))

    def stop(self) -> None:
        """End the session."""
        self._connecting.cancel()
        if self._session is not None:
            self._session.close()

    def _ask(self, session: Session, report: Report, receiver: ReplyReceiver) -> None:
        self._unanswered += 1
        session.ask(report).addCallback(self._answered, report, receiver)

    def _answered(self, reply: Reply, report: Report, receiver: ReplyReceiver) -> None:
        self._unanswered -= 1
        receiver.relayed(report, reply)
        if not self._unanswered and self._session is not None:
            self._session.close()

    def _over(self) -> None:
        self._relay.sessions.pop(self._address, None)

    # Owner of the session (session.Owner).

    def connected(self, session: Session) -> bool:
        """Accept the connection while there is something to send."""
        return bool(self._due)

    def opened(self, session: Session, welcome: Welcome) -> None:
        """Send what is due, if the peer is a server."""
        problem = self._relay.servers.problem_with(session)
        if problem:
            self._log.warn("peer is not a compass server: {problem}", problem=problem)
            session.close(reason=problem)
            return
        self._session = session
        due, self._due = self._due, []
        for report, receiver in due:
            self._ask(session, report, receiver)

    def pushed(self, session: Session, messages: Sequence[Pushed]) -> None:
        """Ignore: a session that does not watch is pushed nothing."""

    def ended(self, session: Session, end: SessionEnded) -> None:
        """Forget the session; reports without an answer are repeated to the server that this host watches."""
        self._over()
