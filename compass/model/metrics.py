"""What the two daemons count of themselves, as plain numbers: the vocabulary of their metrics.

It stands in the model because the daemons count and the gateways tell, and neither may import the other. Counting
costs an addition; everything else is done when somebody asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

import msgspec

Counts = Mapping[str, int]
"""By a word out of a set that the program knows; never by a service, a listener or a host."""

LAG_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds from a commit to a dependant's acknowledgement: from a millisecond on one machine, past the second of
P9, to the time after which a host that acknowledges nothing is let go."""
COMMIT_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0)
"""Seconds of one transaction: from a fast disk to the time after which requests are refused."""
BATCH_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
"""Requests in one transaction; the last is the most there can be (`BATCH_MAX`)."""


class Histogram:
    """How many figures lay in which range: what a histogram is made of."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds`: the upper ends of the ranges, rising; what is above the last has a range of its own."""
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        """In each range alone."""
        self.total = 0.0
        """The sum of all figures."""

    def add(self, figure: float) -> None:
        """Count one; a figure that equals a bound lies below it."""
        self.counts[bisect_left(self.bounds, figure)] += 1
        self.total += figure

    def cumulative(self) -> list[int]:
        """How many figures are at most each bound; at last, how many there are at all."""
        sums, so_far = [], 0
        for count in self.counts:
            so_far += count
            sums.append(so_far)
        return sums


class PeerMetrics(msgspec.Struct, frozen=True):
    """A server over the same store, this one included, as it said of itself with its last beat."""

    server: str
    sessions: int
    watching: int
    lag: int
    """Revisions behind the newest of them."""


class ServerMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """One `opengnssd` process in numbers. Counts are since its start."""

    server: str
    engine: str
    ready: bool
    """The catalogue is loaded."""
    store_reachable: bool
    revision: int = 0
    rows: Counts = {}
    """By kind."""
    listeners: Counts = {}
    """By state."""
    incidents: Counts = {}
    """That are open, by kind."""
    alerts_pending: Counts = {}
    """Incidents with something still to be told, by each way that this server tells by."""
    sessions: Counts = {}
    """By role; `unknown`: who has not said yet."""
    watching: int = 0
    sessions_behind: int = 0
    """That read too slowly and were taken off the stream."""
    push_queue_octets: int = 0
    hosts_lagging: int = 0
    """With the last beat, and counted to `BEHIND_MAX` + 1."""
    hosts_awaited: int = 0
    """Hosts that have a timed notice to acknowledge."""
    lag_open_seconds: float = 0.0
    """How long the oldest timed notice waits for an acknowledgement; 0: none does."""
    push_lag: Histogram = Histogram(LAG_BOUNDS)
    notices: int = 0
    deliveries: int = 0
    changes: Counts = {}
    """By operation."""
    requests: Counts = {}
    """By message."""
    refusals: Counts = {}
    """By code."""
    connections_refused: int = 0
    security_entries: int = 0
    commits: int = 0
    commits_again: int = 0
    commits_put_off: int = 0
    batch_sizes: Histogram = Histogram(BATCH_BOUNDS)
    commit_seconds: Histogram = Histogram(COMMIT_BOUNDS)
    queue_length: int = 0
    notes_waiting: int = 0
    suspicions_told: int = 0
    """That stand: what the store has not judged yet."""
    admission: Counts = {}
    """Turns of hosts that need a snapshot: `at-once`, `waited`, `sent-away`."""
    admission_wait_seconds: float = 0.0
    """What the next such host would wait."""
    snapshots_made: int = 0
    probes: Counts = {}
    """`answered` or `failed`."""
    findings: Counts = {}
    """Of hosts that were asked to probe: `alive` or `dead`."""
    inquiries: int = 0
    checks: int = 0
    doubting: bool = False
    followers: int = 0
    """Of the event stream."""
    draining: bool = False
    servers: Counts = {}
    """By role."""
    roster: tuple[PeerMetrics, ...] = ()


class AgentMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """One `opengnscd` in numbers. Counts are since its start."""

    host: str
    loaded: bool
    """There is a view to answer from."""
    revision: int
    view_age_seconds: float | None
    """How long no server has vouched for the view; 0: one does now, or did when this host left it for a while. None:
    there is no view."""
    session: str
    sessions_opened: int
    servers: Counts
    """Ways to servers, by state."""
    sources: Counts
    """The same, by where they are known from."""
    services: int
    """On whose behalf it is told."""
    listeners: int
    registrations: Counts
    """By state."""
    lookups: Counts
    """By source; `refused`: there was no answer."""
    notices: Counts
    """By what came of them."""
    snapshots: int
    cache_writes: Counts
    """`done` or `failed`."""
    reports: Counts
    """By what became of them: `delivered`, `pending`, `refused`."""
    suspicions: Counts
    """That hold: `here`, found by a program of this host, or `server`, told by one."""
    reactions: Mapping[tuple[str, str], int]
    """Turns of hooks and templates, by kind and result."""
    reactions_failing: int
    watchers: int
    """Programs that watch."""
