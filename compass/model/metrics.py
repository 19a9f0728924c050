"""Metrics of a daemon: counters, gauges and histograms that a component declares where it counts, and their registry.

The module belongs to the model because the daemons count and the gateways render, and neither may import the other. A
component asks its registry for each metric with name and meaning, and counts by an addition; a gauge is read when the
metrics are rendered. Figures that a daemon gathers in a struct on request are declared at the fields of the struct.
"""

from __future__ import annotations

import collections
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias, get_type_hints

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


Value: TypeAlias = float | str | Histogram | Mapping[Labels, float] | Mapping[str, float] | None
"""Value of a metric: a number, a histogram, numbers by labels, or the only label that has 1. None: there is no value
now."""


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


def gauge(about: str, *labels: str, known: tuple[str, ...] = ()) -> MetricSpec:
    """Return the annotation of a struct's field that is a gauge; the metric has the name of the field."""
    return MetricSpec("", "gauge", about, labels, known)


def counter(about: str, *labels: str, known: tuple[str, ...] = ()) -> MetricSpec:
    """Return the annotation of a struct's field that is a counter."""
    return MetricSpec("", "counter", about, labels, known)


def histogram(about: str) -> MetricSpec:
    """Return the annotation of a struct's field that is a histogram."""
    return MetricSpec("", "histogram", about)


CERTIFICATE_SECONDS = gauge(
    "Time until the first certificate of this role ends, of those that the daemon needs: its own (leaf), those "
    "that are sent with it (intermediate), and those that it trusts (authority). Negative: the time since its end.",
    "role",
)
CERTIFICATES_INVALID = gauge(
    "Certificates of these that are not valid now: expired, or not valid yet by the clock of this machine."
)


def specs_of(figures: type[msgspec.Struct], prefix: str) -> dict[str, MetricSpec]:
    """Return the metrics that a struct of figures declares, by field; each is named `prefix` and its field."""
    hints = get_type_hints(figures, include_extras=True)
    return {
        field: msgspec.structs.replace(hints[field].__metadata__[0], name=prefix + field)
        for field in figures.__struct_fields__
    }


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
