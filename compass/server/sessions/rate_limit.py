"""Quotas: how often in a minute one peer may do what costs the others something, and what happens beyond it (P10).

Counted by name where a certificate has proven one, else by address. A count ends with its minute. What is beyond a
quota is refused without being looked at, and told in one line for all of it: neither log is a way to fill the disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from compass.model.interfaces import Clock

MINUTE_SECONDS = 60.0
"""What all quotas are counted over."""
FAILURES_PER_MINUTE_MAX = 60
"""Handshakes, certificates, credentials and rights of one peer that are refused and told one by one in a minute: more
than people mistype and a daemon with a wrong token tries; each is a row on disk or a line in the log."""
CONNECTIONS_FAILED_PER_MINUTE_MAX = 600
"""Connections from one address that come to nothing in a minute until no more are taken: far more, because whoever
shares an address with a stranger, behind one router or on one machine, is then not heard either."""
REPORTS_PER_MINUTE_MAX = 1_000
"""Reports of one host in a minute: a rack of a hundred listeners lost, found by ten services; each may cost a commit
and a probe."""
PEERS_COUNTED_MAX = 10_000
"""Peers counted one by one; from there on they share one count, so that many addresses cost no more memory."""


class RateLimiter:
    """A number in a minute for each peer."""

    def __init__(self, clock: Clock, limit: int, beyond: Callable[[str, int], None] | None = None) -> None:
        """`beyond` is told at the end of the minute who was beyond the limit, and by how much."""
        self._clock = clock
        self._limit = limit
        self._beyond = beyond
        self._telling = False
        self._ends = 0.0
        self._counts: Counter[str] = Counter()

    def count(self, peer: str) -> bool:
        """One more of it; whether that is still within the quota."""
        peer = self._counted(peer)
        self._counts[peer] += 1
        within = self._counts[peer] <= self._limit
        if not within and self._beyond is not None and not self._telling:
            self._telling = True
            self._clock.callLater(self._ends - self._clock.seconds(), self._tell, self._beyond)
        return within

    def wait(self, peer: str) -> float:
        """0.0 while the peer has some of its quota left; else the seconds until it has it again.

        Who has done nothing yet has all of it left, also when there are so many others that they share one count:
        whoever has many addresses must not get everybody else refused.
        """
        self._counted(peer)
        if self._counts.get(peer, 0) < self._limit:
            return 0.0
        return self._ends - self._clock.seconds()

    def _tell(self, beyond: Callable[[str, int], None]) -> None:
        over = [(peer, n - self._limit) for peer, n in self._counts.items() if n > self._limit]
        self._telling = False
        self._counts.clear()
        for peer, n in over:
            beyond(peer, n)

    def _counted(self, peer: str) -> str:
        now = self._clock.seconds()
        if now >= self._ends and not self._telling:
            self._ends = now + MINUTE_SECONDS
            self._counts.clear()
        return peer if peer in self._counts or len(self._counts) < PEERS_COUNTED_MAX else ""
