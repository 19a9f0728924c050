"""Connection limits: how many sessions there are and whose, and what their refusals cost (P10).

Counted are failed connections by origin, sessions by the name that a certificate has proven, and entries of the
security log by peer, each against a rate limit of its own.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from twisted.logger import Logger

from compass.model.catalogue.catalogue import Catalogue
from compass.model.interfaces import Environment
from compass.model.limits import SUBJECT_MAX
from compass.model.rows import Change, Host, SecurityEntry
from compass.model.text import escape_line
from compass.server.sessions.rate_limit import FAILURES_PER_MINUTE_MAX, RateLimiter
from compass.server.sessions.session import Session

SESSIONS_MAX = 20_000
"""Sessions of peers that have proven themselves: 10,000 hosts, each with one that ends and one that is new."""
SESSIONS_PER_PEER_MAX = 32
"""Sessions of one host or administrator: a daemon has one, and one that is ending; the rest are for programs that
ask and leave."""


class SecurityLog(Protocol):
    """The security log of the store."""

    def log_security(self, entry: SecurityEntry) -> None:
        """Write an entry."""


class ConnectionLimits:
    """The open sessions, and what each peer has left of its limits."""

    log = Logger()

    def __init__(self, environment: Environment) -> None:
        clock = environment.clock
        self._now = environment.now
        self.security_log: SecurityLog | None = None
        """None until there is a store to write to; entries are dropped until then."""
        self.sessions: dict[Session, None] = {}
        self.by_role = Counter[str]()
        """Sessions whose peer has proven its role."""
        self.refused = 0
        """Connections that were refused."""
        self.refused_handshakes = 0
        """TLS handshakes that failed because this server or the peer refused the other's certificate."""
        self._per_peer: Counter[tuple[str, str]] = Counter()
        self._failures_logged = RateLimiter(clock, FAILURES_PER_MINUTE_MAX, self._log_failures)
        self._refusals = RateLimiter(clock, FAILURES_PER_MINUTE_MAX, self._log_refusals)

    def is_allowed(self, origin: str) -> bool:
        """Return whether a new connection is accepted: not if there are too many sessions."""
        if self.by_role.total() >= SESSIONS_MAX:
            self.refused += 1
            if self.count_failure(origin):
                self.log.warn("connection from {origin} refused: {n} sessions", origin=origin, n=SESSIONS_MAX)
            return False
        return True

    def count_refused(self, origin: str) -> None:
        """Count a connection that was refused, or gave way to another, before its peer had proven itself."""
        self.refused += 1

    def opened(self, session: Session) -> None:
        """Count a new connection."""
        self.sessions[session] = None

    def closed(self, session: Session) -> None:
        """Uncount a session."""
        self.sessions.pop(session, None)
        if session.asker.name:
            peer = session.asker.role, session.asker.name
            self._per_peer[peer] -= 1
            self.by_role[peer[0]] -= 1
            if not self._per_peer[peer]:
                del self._per_peer[peer]

    def has_session(self, role: str, name: str) -> bool:
        """Return whether a peer that has proven its role and name has an open session."""
        return (role, name) in self._per_peer

    def authenticated(self, session: Session) -> str:
        """Count a session by the name that its peer has proven.

        Returns why it is refused, beyond `SESSIONS_PER_PEER_MAX` sessions of one peer, or an empty string.
        """
        peer = session.asker.role, session.asker.name
        self._per_peer[peer] += 1
        self.by_role[peer[0]] += 1
        if self._per_peer[peer] <= SESSIONS_PER_PEER_MAX:
            return ""
        return f"{peer[0]} {peer[1]!r} has {SESSIONS_PER_PEER_MAX} sessions, the most there can be; close some first"

    def count_failure(self, origin: str) -> bool:
        """Count a connection from `origin` that failed by its peer's fault. Returns whether to log it.

        Beyond a limit all further failures share one line at the end of the minute. No origin is refused: a peer that
        can prove itself may have the same address.
        """
        return self._failures_logged.count(origin)

    def handshake_refused(self, origin: str, subject: str, why: str) -> None:
        """Count a TLS handshake that failed by a refusal, and write it to the security log.

        `subject` is what the peer's certificate claims, and is empty if it has shown none. What one address may write
        is bounded (`should_log`).
        """
        self.refused_handshakes += 1
        claimed = escape_line(f"unproven {subject}", SUBJECT_MAX) if subject else ""
        self._log_security(SecurityEntry(0, self._now(), "handshake", claimed, "{}", origin, "", why))

    def log_refusal(self, name: str, origin: str, why: str) -> None:
        """Write to the security log that a peer was refused for its certificate."""
        self._log_security(SecurityEntry(0, self._now(), "connect", "", "{}", origin, name, why))

    def should_log(self, entry: SecurityEntry) -> bool:
        """Return whether a refusal gets an entry of its own in the security log."""
        return self._refusals.count(entry.principal or entry.origin)

    def _log_security(self, entry: SecurityEntry) -> None:
        if self.security_log is not None:
            self.security_log.log_security(entry)

    def _log_failures(self, origin: str, beyond: int) -> None:
        text = "{n} more connections from {origin} failed within a minute"
        self.log.warn(text, n=beyond, origin=origin)

    def _log_refusals(self, peer: str, beyond: int) -> None:
        text = f"{beyond} more were refused within a minute; they have no entries of their own"
        self._log_security(SecurityEntry(0, self._now(), "refused", "", "{}", "", peer, text))


class SessionChanges:
    """Ends the sessions that a change concerns."""

    def __init__(self, connections: ConnectionLimits) -> None:
        self._connections = connections

    def committed(self, change: Change, catalogue: Catalogue, *, own: bool) -> None:
        """End the sessions of a host that an administrator has barred."""
        if isinstance(change.row, Host) and change.row.barred:
            for session in list(self._connections.sessions):
                if (session.asker.role, session.asker.name) == ("host", change.row.name):
                    session.goodbye("an administrator has barred this host", retry_after_seconds=60.0)

    def reloaded(self, catalogue: Catalogue) -> None:
        """End the sessions of all hosts: they reconnect for a snapshot."""
        for session in list(self._connections.sessions):
            if session.host:
                session.goodbye("this server reloaded its catalogue from the store", retry_after_seconds=0.5)
