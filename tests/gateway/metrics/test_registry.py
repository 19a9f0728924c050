"""Registry of metrics that components declare where they count."""

from __future__ import annotations

import msgspec
import pytest
from twisted.internet.task import Clock

from compass.gateway.metrics.exposition import Metrics, Snapshot
from compass.model.metrics import MetricSpec, Registry


class NoFigures(msgspec.Struct):
    """Daemon without figures of its own."""


def lines(metrics: Metrics) -> set[str]:
    """Return the samples of the metrics that the test declared."""
    return {line for line in metrics.text("")[0].decode().splitlines() if line.startswith("t_")}


def test_what_is_declared_is_rendered() -> None:
    """A counter begins with its known labels; a gauge without a value, and a histogram, appear as they are."""
    metrics = Metrics(Clock(), {}, Snapshot(NoFigures, "", lambda: None))
    events = metrics.registry.counter("t_events", "Events.", ("result",), ("done", "failed"))
    plain = metrics.registry.counter("t_plain", "Events without labels.")
    waiting = metrics.registry.gauge("t_waiting", "Waiting requests.")
    unset = metrics.registry.gauge("t_unset", "Never set.")
    seconds = metrics.registry.histogram("t_seconds", "Seconds.", (1.0, 2.0))
    metrics.registry.declare(MetricSpec("t_size", "gauge", "Size."), lambda: 7)
    events.add("done")
    events.add("odd", 2)
    plain.add()
    waiting.value = 3
    seconds.add(1.5)
    assert unset.value is None
    assert lines(metrics) == {
        't_events_total{result="done"} 1.0',
        't_events_total{result="failed"} 0.0',
        't_events_total{result="odd"} 2.0',
        "t_plain_total 1.0",
        "t_waiting 3.0",
        "t_size 7.0",
        't_seconds_bucket{le="1.0"} 0.0',
        't_seconds_bucket{le="2.0"} 1.0',
        't_seconds_bucket{le="+Inf"} 1.0',
        "t_seconds_count 1.0",
        "t_seconds_sum 1.5",
    }


def test_a_name_is_declared_once() -> None:
    """A second declaration of a name is a mistake of the program."""
    registry = Registry()
    registry.counter("t_events", "Events.")
    with pytest.raises(ValueError, match="t_events is declared twice"):
        registry.gauge("t_events", "Events.")
