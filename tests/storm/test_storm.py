"""The measurements of `make storm` in a small form, on real processes: what they rest on must hold every day."""

from __future__ import annotations

from tests.e2e.conftest import Deploy, authority, deploy
from tests.storm.storm import slow_reader, storms

__all__ = ["authority", "deploy"]


def test_hosts_that_come_at_once_are_all_in_step_soon(deploy: Deploy) -> None:
    """First start and kill -9 of the server: every host follows it and holds the last change, by itself."""
    for course in storms(deploy(), 60):
        assert course.all_seconds < 20
        assert course.connections >= 60


def test_one_host_that_does_not_read_costs_nobody_anything(deploy: Deploy) -> None:
    """P10: the reader is sent on its own session, at once, all that it missed, and ends equal to a pull."""
    reading, stuck = slow_reader(deploy(), 2_000, per_second=1_000, warm=100, rounds=2, others=2)
    assert not reading["stuck"] and stuck["stuck"]
    assert (reading["told"], stuck["told"]) == (4_000, 4_000)
    assert stuck["missing"] == 2_000
    assert stuck["equal"]
