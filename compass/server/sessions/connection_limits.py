"""The gate: how many sessions there are and whose, and who is not heard for a while (P10).

It counts connections that came to nothing, sessions by the name that a certificate has proven, guesses at
credentials and refusals, each against a quota of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from twisted.logger import Logger

from compass.model.interfaces import Clock
from compass.model.limits import SUBJECT_MAX
from compass.model.replies import Refusal, SecurityEntry
from compass.model.rules.draft import Principal
from compass.server.sessions.rate_limit import (
    CONNECTIONS_FAILED_PER_MINUTE_MAX,
    FAILURES_PER_MINUTE_MAX,
    REPORTS_PER_MINUTE_MAX,
    RateLimiter,
)
from compass.server.sessions.session import Session

SESSIONS_MAX = 20_000
"""Connections at once: 10,000 hosts, each with one that is ending and one that is new."""
SESSIONS_PER_PEER_MAX = 32
"""Sessions of one host or administrator: a daemon has one, and one that is ending; the rest are for programs that
ask and leave."""


class ConnectionLimits:
    """The sessions that are in, and what each peer has left of its quotas."""

    log = Logger()

    def __init__(self, clock: Clock, now: Callable[[], float], note: Callable[[SecurityEntry], None]) -> None:
        """`note` writes the sum of refusals that got no entry of their own into the security log."""
        self._now = now
        self._note = note
        self.sessions: dict[Session, None] = {}
        self.by_role = Counter[str]()
        """Sessions whose peer has proven its role."""
        self.refused = 0
        """Connections that were not taken."""
        self._per_peer: Counter[tuple[str, str]] = Counter()
        self._failures = RateLimiter(clock, CONNECTIONS_FAILED_PER_MINUTE_MAX)
        self._failures_told = RateLimiter(clock, FAILURES_PER_MINUTE_MAX, self._tell_failures)
        self._reports = RateLimiter(clock, REPORTS_PER_MINUTE_MAX)
        self._guesses = RateLimiter(clock, FAILURES_PER_MINUTE_MAX)
        self._refusals = RateLimiter(clock, FAILURES_PER_MINUTE_MAX, self._sum_up)

    def is_allowed(self, origin: str) -> bool:
        """Whether a new connection from there is taken: not too many are here, nor came to nothing from there."""
        if self._failures.wait(origin):
            self.refused += 1
            return False
        if len(self.sessions) >= SESSIONS_MAX:
            self.refused += 1
            if self.count_failure(origin):
                self.log.warn("connection from {origin} refused: {n} sessions", origin=origin, n=SESSIONS_MAX)
            return False
        return True

    def opened(self, session: Session) -> None:
        """Count it."""
        self.sessions[session] = None

    def closed(self, session: Session) -> None:
        """Count it no more."""
        self.sessions.pop(session, None)
        if session.asker.name:
            peer = session.asker.role, session.asker.name
            self._per_peer[peer] -= 1
            self.by_role[peer[0]] -= 1
            if not self._per_peer[peer]:
                del self._per_peer[peer]

    def authenticated(self, session: Session) -> str:
        """Count it by the name that it has proven; why it is refused beyond `SESSIONS_PER_PEER_MAX`, or nothing."""
        peer = session.asker.role, session.asker.name
        self._per_peer[peer] += 1
        self.by_role[peer[0]] += 1
        if self._per_peer[peer] <= SESSIONS_PER_PEER_MAX:
            return ""
        return f"{peer[0]} {peer[1]!r} has {SESSIONS_PER_PEER_MAX} sessions, the most there can be; close some first"

    def count_failure(self, origin: str) -> bool:
        """A connection came to nothing; whether that is still worth a line in the log.

        Beyond one quota it is told once for all; beyond a second no connection is taken from there for a while.
        """
        if self._failures.count(origin) and self._failures.wait(origin):
            text = "{n} connections from {origin} came to nothing within a minute: none is taken until it is over"
            self.log.warn(text, n=CONNECTIONS_FAILED_PER_MINUTE_MAX, origin=origin)
        return self._failures_told.count(origin)

    def report(self, asker: Principal) -> Refusal | None:
        """Count a report of a host; the refusal when it is one too many."""
        if asker.role != "host" or self._reports.count(asker.name):
            return None
        text = f"{REPORTS_PER_MINUTE_MAX} reports of host {asker.name!r} within a minute are too many"
        return Refusal("busy", text, self._reports.wait(asker.name))

    def guess(self, asker: Principal, service: str) -> Refusal | None:
        """The refusal of a request with a credential, when too many wrong ones came before it."""
        wait = self._guesses.wait(_guess(asker, service))
        if not wait:
            return None
        text = (
            f"{FAILURES_PER_MINUTE_MAX} wrong credentials for {service} within a minute came from "
            f"{asker.role} {asker.name!r}: no more are looked at until it is over"
        )
        return Refusal("busy", text, retry_after_seconds=wait)

    def guessed_wrong(self, asker: Principal, service: str) -> None:
        """A credential was wrong."""
        self._guesses.count(_guess(asker, service))

    def token(self, origin: str) -> Refusal | None:
        """The refusal of a bearer token, when too many that were nobody's came from there."""
        wait = self._guesses.wait(f"token {origin}")
        if not wait:
            return None
        text = (
            f"{FAILURES_PER_MINUTE_MAX} tokens that are nobody's came from {origin} within a minute: "
            "no more are looked at until it is over"
        )
        return Refusal("busy", text, retry_after_seconds=wait)

    def token_was_wrong(self, origin: str) -> None:
        """A bearer token was nobody's."""
        self._guesses.count(f"token {origin}")

    def should_log(self, entry: SecurityEntry) -> bool:
        """Whether a refusal gets an entry of its own in the security log."""
        return self._refusals.count(entry.principal or entry.origin)

    def _tell_failures(self, origin: str, beyond: int) -> None:
        text = "{n} more connections from {origin} came to nothing within a minute"
        self.log.warn(text, n=beyond, origin=origin)

    def _sum_up(self, peer: str, beyond: int) -> None:
        text = f"{beyond} more were refused within a minute; they have no entries of their own"
        self._note(SecurityEntry(0, self._now(), "refused", "", "{}", "", peer, text))


def _guess(asker: Principal, service: str) -> str:
    return f"{asker.role} {asker.name} {service[:SUBJECT_MAX].lower()}"
