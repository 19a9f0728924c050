"""Metrics for Prometheus: a daemon's registry, rendered as text 0.0.4 or as OpenMetrics.

There is one registry for each daemon and nothing global. A rendered text is kept for `KEPT_SECONDS`, so that a flood of
scrapes costs the reactor as little as one.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import starmap
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, metrics_core
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from twisted.web.server import Request

from compass.gateway.dns.rcodes import RCODES
from compass.model.interfaces import Clock
from compass.model.metrics import Histogram, MetricSpec, Registry, Value, specs_of

KEPT_SECONDS = 1.0
"""Time for which a rendered text is reused: less than any scraper's interval, and still current in a console."""
ACCEPT_OCTETS_MAX = 1_000
"""Longest Accept header that is read; Prometheus sends 200 octets. A longer one gets text 0.0.4."""
ACCEPTED_VERSIONS = frozenset(("0.0.4", "1.0.0"))
"""Versions of either text. Offers of other versions are skipped: the encoder compares any word with numbers, which
raises, and its media type would name a version that it does not render."""


class Snapshot(msgspec.Struct, frozen=True):
    """Figures that a daemon gathers in a struct on request: once for each rendered text."""

    figures: type[msgspec.Struct]
    prefix: str
    """Beginning of the names of their metrics."""
    take: Callable[[], Any]


class GatewayMetrics:
    """Metrics of a daemon's gateways: the same for both daemons, whichever gateways the configuration opens."""

    def __init__(self, registry: Registry) -> None:
        self.http_requests = registry.counter(
            "opengns_http_requests",
            "Answers over HTTP, by the operation's path and the status. A stream counts when it ends by itself.",
            ("operation", "status"),
        )
        self.http_connections = registry.gauge(
            "opengns_http_connections", "HTTPS connections to a server that are open. Hosts do not have this metric."
        )
        self.dns_answers = registry.counter(
            "opengns_dns_answers",
            "Answers to DNS queries, by response code; all 0 when the daemon serves no DNS.",
            ("rcode",),
            tuple(RCODES.values()),
        )


class Metrics:
    """Everything that one daemon exposes."""

    def __init__(self, clock: Clock, build: Mapping[str, str], snapshot: Snapshot) -> None:
        """`build` identifies the program, as labels of `opengns_build_info`."""
        self.registry = Registry()
        self.gateways = GatewayMetrics(self.registry)
        self._clock = clock
        self._kept: dict[str, tuple[float, bytes]] = {}
        self._registry = CollectorRegistry()
        for collector in (
            _Build({**build, "python": platform.python_version()}),
            _Snapshots(snapshot),
            _Declared(self.registry),
        ):
            self._registry.register(collector)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def families(self) -> Iterable[metrics_core.Metric]:
        """Return all metrics as prometheus_client holds them."""
        return self._registry.collect()

    def text(self, accept: str) -> tuple[bytes, str]:
        """Return the text that an Accept header asks for, and its media type."""
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
        """Return the response to a scrape, and set its headers."""
        body, media = self.text(request.getHeader("accept") or "")
        request.setHeader("Content-Type", media)
        request.setHeader("Content-Length", str(len(body)))
        return body


def _readable(accept: str) -> str:
    """Return the offers of an Accept header that the encoder may read."""
    if len(accept) > ACCEPT_OCTETS_MAX:
        return ""
    return ",".join(offer for offer in accept.split(",") if _versions(offer) <= ACCEPTED_VERSIONS)


def _versions(offer: str) -> set[str]:
    """Return the versions that an offer names, split as the encoder splits them."""
    named = (part.strip().partition("=") for part in offer.split(";"))
    return {version for name, _, version in named if name == "version"}


class _Build(Collector):
    def __init__(self, about: Mapping[str, str]) -> None:
        self._about = dict(about)

    def collect(self) -> Iterator[metrics_core.Metric]:
        yield metrics_core.InfoMetricFamily("opengns_build", "Which program this is.", self._about)


class _Declared(Collector):
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def describe(self) -> Iterator[metrics_core.Metric]:
        """Return the names without reading any value."""
        return map(_described, self._registry.specs)

    def collect(self) -> Iterator[metrics_core.Metric]:
        return starmap(_family, self._registry.collect())


class _Snapshots(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._take = snapshot.take
        self._specs = specs_of(snapshot.figures, snapshot.prefix)

    def describe(self) -> Iterator[metrics_core.Metric]:
        """Return the names without taking a snapshot."""
        return map(_described, self._specs.values())

    def collect(self) -> Iterator[metrics_core.Metric]:
        now = self._take()
        return (_family(spec, getattr(now, field)) for field, spec in self._specs.items())


def _described(spec: MetricSpec) -> metrics_core.Metric:
    return metrics_core.Metric(spec.name, spec.about, spec.kind)


def _family(spec: MetricSpec, value: Value) -> metrics_core.Metric:
    if isinstance(value, Histogram):
        return _histogram(spec, value)
    if isinstance(value, str):
        value = {value: 1}
    kind = metrics_core.CounterMetricFamily if spec.kind == "counter" else metrics_core.GaugeMetricFamily
    family = kind(spec.name, spec.about, labels=spec.labels)
    if isinstance(value, Mapping):
        numbers: dict[Any, float] = {**dict.fromkeys(spec.known, 0.0), **value}
        for labels, number in numbers.items():
            family.add_metric([labels] if isinstance(labels, str) else list(labels), number)
    elif value is not None:
        family.add_metric([], float(value))
    return family


def _histogram(spec: MetricSpec, histogram: Histogram) -> metrics_core.Metric:
    ends = [*map(str, histogram.bounds), "+Inf"]
    family = metrics_core.HistogramMetricFamily(spec.name, spec.about)
    family.add_metric([], list(zip(ends, map(float, histogram.cumulative()), strict=True)), histogram.total)
    return family
