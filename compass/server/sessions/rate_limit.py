"""Rate limits: how often in a minute one peer may do what costs the others something (P10).

Peers are counted by name where a certificate has proven one, else by address. A count ends with its minute. Whatever
exceeds a limit is refused without being checked, and logged in one line for all of it: neither log is a way to fill the
disk.

Changes have token buckets as well: each change is a row in the update log, which every server reads, so a party that
may change one listener could fill the disks of all. A change needs a token, tokens return at a constant rate, and a
full bucket is a burst, which an honest start needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from itertools import islice

import msgspec

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
CREDENTIAL_CHANGES_PER_SECOND_MAX = 200.0
"""Changes of one credential in a second, unless configured: 10,000 listeners of a service that report their load once a
minute are 167. A store commits some thousands in a second, so one credential leaves most of them to the others."""
CREDENTIAL_CHANGES_BURST_MAX = 10_000
"""Changes of one credential at once: all listeners that a service can have (LISTENERS_PER_SERVICE_MAX)."""
HOST_CHANGES_PER_SECOND_MAX = 1_000.0
"""Changes of one host in a second: several times those of a credential, so that no service uses up what the others on
its host may do."""
HOST_CHANGES_BURST_MAX = 20_000
"""Changes of one host at once: an agent registers at most 4,096 listeners (REGISTRATIONS_MAX), after each restart."""
WATCH_CHANGES_PER_SECOND_MAX = 1.0
"""Changes in a second of what one host watches: its row, which may have 32 kB, is committed for each."""
WATCH_CHANGES_BURST_MAX = 512
"""Such changes at once: an older agent watches again for each service that registers at its start; twice all services
that it can have (HOST_SERVICES_MAX)."""
BUCKETS_MAX = 100_000
"""Buckets that are not full, some 20 MB: more hosts and credentials than change something within a minute. Beyond that
the one that was used the longest time ago is dropped."""


class Rate(msgspec.Struct, frozen=True):
    """Rate of a token bucket."""

    per_second: float
    burst: int


class ChangeRates(msgspec.Struct, frozen=True):
    """Rates of changes for each credential and for each host."""

    credential: Rate = Rate(CREDENTIAL_CHANGES_PER_SECOND_MAX, CREDENTIAL_CHANGES_BURST_MAX)
    host: Rate = Rate(HOST_CHANGES_PER_SECOND_MAX, HOST_CHANGES_BURST_MAX)


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


class TokenBuckets:
    """Token buckets by name. A full bucket is not stored."""

    def __init__(self, clock: Clock, rate: Rate) -> None:
        self.rate = rate
        self._clock = clock
        self._missing: dict[Hashable, tuple[float, float]] = {}
        """Tokens that a bucket lacks, and when it lacked them."""

    def __len__(self) -> int:
        """Return the number of buckets that were not full when they were last used."""
        return len(self._missing)

    def take(self, name: Hashable, *, overdraw: bool = False) -> float:
        """Take a token out of a bucket; with `overdraw` also one that is not there.

        Returns 0.0, or the seconds until the bucket has a token.
        """
        now, rate = self._clock.seconds(), self.rate
        missing, at = self._missing.get(name, (0.0, now))
        lacks = max(missing - (now - at) * rate.per_second, 0.0) + 1.0
        if lacks > rate.burst and not overdraw:
            return (lacks - rate.burst) / rate.per_second
        if self._missing.pop(name, None) is None and self._missing:
            self._make_room(now)
        self._missing[name] = lacks, now
        return 0.0

    def put_back(self, name: Hashable) -> None:
        """Put a token back that was not needed."""
        now = self._clock.seconds()
        missing, at = self._missing.get(name, (0.0, now))
        lacks = missing - (now - at) * self.rate.per_second - 1.0
        if lacks <= 0.0:
            self._missing.pop(name, None)
        else:
            self._missing[name] = lacks, now

    def _make_room(self, now: float) -> None:
        """Forget those of the two oldest buckets that are full; with BUCKETS_MAX buckets, the oldest in any case."""
        for name in list(islice(self._missing, 2)):
            missing, at = self._missing[name]
            if missing <= (now - at) * self.rate.per_second or len(self._missing) >= BUCKETS_MAX:
                del self._missing[name]
