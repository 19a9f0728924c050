"""Metrics as Prometheus reads them: what a daemon counts, spelled as text 0.0.4 or as OpenMetrics.

A table says of each metric what it is called, what it means and where in a tally it is read; the same table is what
`docs/reference/metrics.md` lists. There is one registry for each daemon and nothing global. What was spelled is kept
for `KEPT_SECONDS`, so that a flood of scrapes costs the reactor no more than one.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from twisted.web.server import Request

from compass.gateway.dns.rcodes import RCODES
from compass.model.interfaces import Clock
from compass.model.metrics import Histogram

KEPT_SECONDS = 1.0
"""For so long the same text is given: less than any scraper's interval, and what a console shows is still now."""
ACCEPT_OCTETS_MAX = 1_000
"""Of an Accept header; Prometheus sends 200. Of a longer one nothing is read, and it gets text 0.0.4."""
ACCEPTED_VERSIONS = frozenset(("0.0.4", "1.0.0"))
"""Of either text. What asks for another is passed over: the encoder compares any word with numbers, which raises, and
repeats in its media type what it has only made 1.0.0 of."""

Labels = str | tuple[str, ...]
Value = float | Histogram | Mapping[Any, float] | None
"""Of one metric: a number, a histogram, numbers by label (or labels), or None: nothing can be said now."""


class MetricSpec(msgspec.Struct, frozen=True):
    """One metric. `name` is without the `_total` that the text gives a counter."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    about: str
    read: Callable[[Any], Value]
    """From a tally."""
    labels: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    """Values of the one label that are always there, with 0 until there is more: a rate needs a beginning."""

    @property
    def shown(self) -> str:
        """The name in queries."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


class GatewayMetrics(msgspec.Struct):
    """What a daemon's gateways count: they are told by one table for both daemons."""

    http: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)
    """Answers by operation and status."""
    dns: Counter[int] = msgspec.field(default_factory=Counter)
    """Answers by response code."""
    connections: Callable[[], int] | None = None
    """HTTP connections now; None: they are not counted."""


EDGES = (
    MetricSpec(
        "opengns_http_requests",
        "counter",
        "Answers over HTTP, by the operation's path and the status. A stream counts when it ends by itself.",
        lambda edges: edges.http,
        ("operation", "status"),
    ),
    MetricSpec(
        "opengns_http_connections",
        "gauge",
        "HTTPS connections to a server that are open. Hosts do not tell.",
        lambda edges: edges.connections() if edges.connections is not None else None,
    ),
    MetricSpec(
        "opengns_dns_answers",
        "counter",
        "Answers to DNS queries, by response code; all 0 when the daemon serves no DNS.",
        lambda edges: {RCODES.get(rcode, "other"): count for rcode, count in edges.dns.items()},
        ("rcode",),
        tuple(RCODES.values()),
    ),
)
"""What both daemons tell of their gateways."""


class Metrics:
    """Everything that one daemon tells."""

    def __init__(
        self,
        clock: Clock,
        measures: Sequence[MetricSpec],
        tally: Callable[[], Any],
        build: Mapping[str, str],
        edges: GatewayMetrics | None = None,
    ) -> None:
        """`tally` is asked once for each text; `build` says in words which program this is."""
        self.edges = edges or GatewayMetrics()
        self._clock = clock
        self._kept: dict[str, tuple[float, bytes]] = {}
        self._registry = CollectorRegistry()
        about = {**build, "python": platform.python_version()}
        for collector in (
            _Build(about),
            _Table(measures, tally),
            _Table(EDGES, lambda: self.edges),
        ):
            self._registry.register(collector)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def families(self) -> Iterable[Metric]:
        """Everything, as prometheus_client holds it."""
        return self._registry.collect()

    def text(self, accept: str) -> tuple[bytes, str]:
        """The text that an Accept header asks for, and its media type."""
        encode, media = choose_encoder(_readable(accept))
        now = self._clock.seconds()
        kept = self._kept.get(media)
        if kept is not None and now - kept[0] < KEPT_SECONDS:
            return kept[1], media
        # Two versions and four ways to escape names make a handful of media types, however many headers there are.
        body = encode(self._registry)
        self._kept[media] = now, body
        return body, media

    def answer(self, request: Request) -> bytes:
        """The response to a scrape."""
        body, media = self.text(request.getHeader("accept") or "")
        request.setHeader("Content-Type", media)
        request.setHeader("Cache-Control", "no-store")
        request.setHeader("Content-Length", str(len(body)))
        return body


def _readable(accept: str) -> str:
    """What of an Accept header may be put before the encoder."""
    if len(accept) > ACCEPT_OCTETS_MAX:
        return ""
    return ",".join(offer for offer in accept.split(",") if _versions(offer) <= ACCEPTED_VERSIONS)


def _versions(offer: str) -> set[str]:
    """The versions that it names, found as the encoder finds them."""
    named = (part.strip().partition("=") for part in offer.split(";"))
    return {version for name, _, version in named if name == "version"}


class _Build(Collector):
    def __init__(self, about: Mapping[str, str]) -> None:
        self._about = dict(about)

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("opengns_build", "Which program this is.", self._about)


class _Table(Collector):
    def __init__(self, measures: Sequence[MetricSpec], tally: Callable[[], Any]) -> None:
        self._measures = measures
        self._tally = tally

    def describe(self) -> Iterator[Metric]:
        """No tally is made to learn the names."""
        return iter([Metric(measure.name, measure.about, measure.kind) for measure in self._measures])

    def collect(self) -> Iterator[Metric]:
        tally = self._tally()
        for measure in self._measures:
            yield _family(measure, measure.read(tally))


def _family(measure: MetricSpec, value: Value) -> Metric:
    if measure.kind == "histogram":
        assert isinstance(value, Histogram)
        return _histogram(measure, value)
    kind = CounterMetricFamily if measure.kind == "counter" else GaugeMetricFamily
    family = kind(measure.name, measure.about, labels=measure.labels)
    if isinstance(value, Mapping):
        for labels, number in {**dict.fromkeys(measure.known, 0.0), **value}.items():
            family.add_metric([labels] if isinstance(labels, str) else list(labels), number)
    elif value is not None:
        assert not isinstance(value, Histogram)
        family.add_metric([], float(value))
    return family


def _histogram(measure: MetricSpec, spread: Histogram) -> Metric:
    ends = [*map(str, spread.bounds), "+Inf"]
    family = HistogramMetricFamily(measure.name, measure.about)
    family.add_metric([], list(zip(ends, map(float, spread.cumulative()), strict=True)), spread.total)
    return family
