"""Metrics of a daemon: counters, gauges and histograms that a component declares where it counts, and their registry.

The module belongs to the model because the daemons count and the gateways render, and neither may import the other. A
component asks its registry for each metric with name and meaning, and counts by an addition; a gauge is read when the
metrics are rendered. `ServerMetrics` and `AgentMetrics` are snapshots of components that do not declare theirs yet.
"""

from __future__ import annotations

import collections
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec

Counts = Mapping[str, int]
"""Numbers by a word out of a set that the program knows; never by a service, a listener or a host."""
Labels: TypeAlias = str | tuple[str, ...]
"""Value of the only label, or the values of all labels."""

LAG_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds from a commit to a dependant's acknowledgement: from a millisecond on one machine, past the second of
P9, to the time after which a host that acknowledges nothing is let go."""
COMMIT_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0)
"""Seconds of one transaction: from a fast disk to the time after which requests are refused."""
BATCH_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
"""Requests in one transaction; the last is the most there can be (`BATCH_MAX`)."""


class Histogram:
    """Counts of figures by range: the data of a histogram."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds`: the upper ends of the ranges, rising; what is above the last has a range of its own."""
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        """Counts of each range alone."""
        self.total = 0.0
        """The sum of all figures."""

    def add(self, figure: float) -> None:
        """Count one; a figure that equals a bound lies below it."""
        self.counts[bisect_left(self.bounds, figure)] += 1
        self.total += figure

    def cumulative(self) -> list[int]:
        """Return the number of figures up to each bound; last, the number of all."""
        sums, so_far = [], 0
        for count in self.counts:
            so_far += count
            sums.append(so_far)
        return sums


Value: TypeAlias = float | Histogram | Mapping[Labels, float] | Mapping[str, float] | None
"""Value of a metric: a number, a histogram, or numbers by labels. None: there is no value now."""


class MetricSpec(msgspec.Struct, frozen=True):
    """Name and meaning of one metric."""

    name: str
    """Name without the `_total` that the text formats append to a counter."""
    kind: Literal["gauge", "counter", "histogram"]
    about: str
    labels: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    """Values of the only label that are rendered from the start, with 0: a rate needs a beginning."""

    @property
    def shown(self) -> str:
        """Name in queries."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


class Counter:
    """Number of events since the start, in all or by labels."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: collections.Counter[Labels] = collections.Counter()
        """Numbers by labels; a counter without labels has the key ()."""

    def add(self, labels: Labels = (), count: int = 1) -> None:
        """Count `count` events."""
        self.values[labels] += count


class Gauge:
    """Value that rises and falls."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float | Mapping[Labels, float] | None = None
        """Current value. None: there is none, and nothing is rendered."""


class Registry:
    """Metrics of one daemon in the order of their declaration."""

    def __init__(self) -> None:
        self._metrics: dict[str, tuple[MetricSpec, Callable[[], Value]]] = {}

    def counter(self, name: str, about: str, labels: tuple[str, ...] = (), known: tuple[str, ...] = ()) -> Counter:
        """Declare a counter and return it. `name` has no `_total`. Raises ValueError if the name is in use."""
        made = Counter()
        read = (lambda: made.values) if labels else (lambda: made.values[()])
        self.declare(MetricSpec(name, "counter", about, labels, known), read)
        return made

    def gauge(self, name: str, about: str, labels: tuple[str, ...] = (), known: tuple[str, ...] = ()) -> Gauge:
        """Declare a gauge whose component sets its value, and return it. Raises ValueError if the name is in use."""
        made = Gauge()
        self.declare(MetricSpec(name, "gauge", about, labels, known), lambda: made.value)
        return made

    def histogram(self, name: str, about: str, bounds: Sequence[float]) -> Histogram:
        """Declare a histogram and return it. Raises ValueError if the name is in use."""
        made = Histogram(bounds)
        self.declare(MetricSpec(name, "histogram", about), lambda: made)
        return made

    def declare(self, spec: MetricSpec, read: Callable[[], Value]) -> None:
        """Declare a metric whose value is read when metrics are rendered. Raises ValueError if the name is in use."""
        if spec.name in self._metrics:
            raise ValueError(f"the metric {spec.name} is declared twice")
        self._metrics[spec.name] = spec, read

    @property
    def specs(self) -> tuple[MetricSpec, ...]:
        """Names and meanings of all metrics."""
        return tuple(spec for spec, _ in self._metrics.values())

    def collect(self) -> Iterator[tuple[MetricSpec, Value]]:
        """Yield each metric with its value now."""
        for spec, read in self._metrics.values():
            yield spec, read()


class PeerMetrics(msgspec.Struct, frozen=True):
    """A server over the same store, this one included, as it said of itself with its last beat."""

    server: str
    sessions: int
    watching: int
    lag: int
    """Revisions behind the newest of them."""


class ServerMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one `opengnssd` process. Counts are since its start."""

    server: str
    engine: str
    ready: bool
    """The catalogue is loaded."""
    store_reachable: bool
    revision: int = 0
    rows: Counts = {}
    """Rows by kind."""
    listeners: Counts = {}
    """Listeners by state."""
    incidents: Counts = {}
    """That are open, by kind."""
    alerts_pending: Counts = {}
    """Incidents that are still to be sent, by each channel that this server sends by."""
    sessions: Counts = {}
    """Sessions by role; `unknown`: before the hello."""
    watching: int = 0
    sessions_behind: int = 0
    """That read too slowly and were taken off the stream."""
    push_queue_octets: int = 0
    hosts_lagging: int = 0
    """Hosts that lagged at the last heartbeat, counted to `BEHIND_MAX` + 1."""
    hosts_awaited: int = 0
    """Hosts that have a timed notice to acknowledge."""
    lag_open_seconds: float = 0.0
    """Seconds that the oldest timed notice has waited for an acknowledgement; 0: none waits."""
    push_lag: Histogram = Histogram(LAG_BOUNDS)
    notices: int = 0
    deliveries: int = 0
    changes: Counts = {}
    """Changes by operation."""
    requests: Counts = {}
    """Requests by message."""
    refusals: Counts = {}
    """Refusals by code."""
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
    """Seconds that the next such host would wait."""
    snapshots_made: int = 0
    probes: Counts = {}
    """`answered` or `failed`."""
    findings: Counts = {}
    """Results of hosts that were asked to probe: `alive` or `dead`."""
    inquiries: int = 0
    checks: int = 0
    doubting: bool = False
    followers: int = 0
    """Readers of the event stream."""
    draining: bool = False
    servers: Counts = {}
    """Servers by role."""
    roster: tuple[PeerMetrics, ...] = ()


class AgentMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one `opengnscd`. Counts are since its start."""

    host: str
    loaded: bool
    """There is a view to answer from."""
    revision: int
    view_age_seconds: float | None
    """Seconds since a server last confirmed the view; 0: one does now, or did when this host disconnected on purpose.
    None: there is no view."""
    session: str
    sessions_opened: int
    servers: Counts
    """Ways to servers, by state."""
    sources: Counts
    """The same, by where they are known from."""
    services: int
    """Services on whose behalf this host receives changes."""
    listeners: int
    registrations: Counts
    """Registrations by state."""
    lookups: Counts
    """Lookups by source; `refused`: there was no answer."""
    notices: Counts
    """Notices by result."""
    snapshots: int
    cache_writes: Counts
    """`done` or `failed`."""
    reports: Counts
    """Reports by result: `delivered`, `pending`, `refused`."""
    suspicions: Counts
    """Current suspicions: `here`, found by a program of this host, or `server`, sent by one."""
    reactions: Mapping[tuple[str, str], int]
    """Turns of hooks and templates, by kind and result."""
    reactions_failing: int
    watchers: int
    """Programs that watch."""
