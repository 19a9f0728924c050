"""Rate limits: how often in a minute one peer may do what costs the others something (P10).

Peers are counted by name where a certificate has proven one, else by address. A count ends with its minute. Whatever
exceeds a limit is refused without being checked, and logged in one line for all of it: neither log is a way to fill the
disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from compass.model.interfaces import Clock

MINUTE_SECONDS = 60.0
"""Period of all rate limits."""
FAILURES_PER_MINUTE_MAX = 60
"""Handshakes, certificates, credentials and rights of one peer that are refused and logged one by one in a minute: more
than people mistype and a daemon with a wrong token tries; each is a row on disk or a line in the log."""
CONNECTIONS_FAILED_PER_MINUTE_MAX = 600
"""Handshakes from one address that may fail in a minute before its handshakes have to share a pace: far more, because a
client that shares an address with a hostile one, behind one router or on one machine, is then slowed down as well."""
REPORTS_PER_MINUTE_MAX = 1_000
"""Reports of one host in a minute: a rack of a hundred listeners lost, found by ten services; each may cost a commit
and a probe."""
PEERS_COUNTED_MAX = 10_000
"""Peers counted one by one; all others share one count, so that many addresses cost no further memory."""


class RateLimiter:
    """Counts of one action in the present minute, by peer."""

    def __init__(self, clock: Clock, limit: int, exceeded: Callable[[str, int], None] | None = None) -> None:
        """`exceeded` is called at the end of the minute with each peer that was above the limit, and by how much."""
        self._clock = clock
        self._limit = limit
        self._exceeded = exceeded
        self._reporting = False
        """A call of `exceeded` is due at the end of the minute."""
        self._ends = 0.0
        self._counts: Counter[str] = Counter()

    def count(self, peer: str) -> bool:
        """Count one action of a peer. Returns whether it is within the limit."""
        peer = self._counted(peer)
        self._counts[peer] += 1
        within = self._counts[peer] <= self._limit
        if not within and self._exceeded is not None and not self._reporting:
            self._reporting = True
            self._clock.callLater(self._ends - self._clock.seconds(), self._report, self._exceeded)
        return within

    def wait(self, peer: str) -> float:
        """Return the seconds until a peer may act again; 0.0: it may now.

        A peer that has done nothing yet may act, also when all new peers share one count: a client with many addresses
        must not have all others refused.
        """
        self._counted(peer)
        if self._counts.get(peer, 0) < self._limit:
            return 0.0
        return self._ends - self._clock.seconds()

    def _report(self, exceeded: Callable[[str, int], None]) -> None:
        over = [(peer, n - self._limit) for peer, n in self._counts.items() if n > self._limit]
        self._reporting = False
        self._counts.clear()
        for peer, n in over:
            exceeded(peer, n)

    def _counted(self, peer: str) -> str:
        """Begin a minute if the last one has ended. Returns the name that the peer is counted by."""
        now = self._clock.seconds()
        if now >= self._ends and not self._reporting:
            self._ends = now + MINUTE_SECONDS
            self._counts.clear()
        return peer if peer in self._counts or len(self._counts) < PEERS_COUNTED_MAX else ""
