"""What a server counts of itself: the lag of push, the census, and the rest of its tally."""

from __future__ import annotations

from collections import Counter

import pytest

from compass.model.catalogue.catalogue import Catalogue, catalogue_of
from compass.model.catalogue.digest import steps_of
from compass.model.metrics import LAG_BOUNDS, Histogram
from compass.model.rows import Alert, Category, Change, Listener, Row, Service, State
from compass.server.commit.row_counts import RowCounts
from compass.server.push import ack_latency
from compass.server.push.ack_latency import FOLLOW_EVERY_SECONDS, FOLLOW_SECONDS_PER_HOST, AckLatency


class Now:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = 100.0

    def seconds(self) -> float:
        return self.at


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def way(now: Now) -> AckLatency:
    return AckLatency(now.seconds)


def tell(way: AckLatency, revision: int, hosts: list[str]) -> None:
    """Write a notice to hosts, and follow it if that is its turn."""
    began = way.begins()
    if began is not None:
        way.notices_sent(revision, began, hosts)


def found(way: AckLatency) -> tuple[int, float]:
    """How many notices are known to be everywhere, and how long that took in all."""
    return sum(way.spread.counts), round(way.spread.total, 6)


def test_figures_fall_into_ranges() -> None:
    """A figure at a bound lies below it, one above the last in a range of its own."""
    spread = Histogram((1.0, 2.0))
    for figure in (0.5, 1.0, 1.5, 2.0, 2.5, 7.0):
        spread.add(figure)
    assert (spread.counts, spread.cumulative(), spread.total) == ([2, 2, 2], [2, 4, 6], 14.5)


def test_the_lag_is_that_of_the_last_dependant(now: Now, way: AckLatency) -> None:
    """From the commit to the acknowledgement of whoever is last; until then the notice is open."""
    tell(way, 7, ["a", "b"])
    now.at += 0.2
    way.acknowledged("a", 7)
    assert (found(way), way.hosts, round(way.open_seconds, 6)) == ((0, 0.0), 1, 0.2)
    now.at += 0.3
    way.acknowledged("b", 9)
    assert (found(way), way.hosts, way.open_seconds) == ((1, 0.5), 0, 0.0)


def test_an_older_acknowledgement_says_nothing(now: Now, way: AckLatency) -> None:
    """Hosts acknowledge by revision: what they held before is not this notice."""
    tell(way, 7, ["a"])
    way.acknowledged("a", 6)
    way.acknowledged("stranger", 7)
    assert found(way) == (0, 0.0) and way.hosts == 1


def test_one_acknowledgement_may_be_of_many_notices(now: Now, way: AckLatency) -> None:
    """A host that was slow says once how far it is."""
    for revision in (7, 8, 9):
        tell(way, revision, ["a"])
        now.at += FOLLOW_EVERY_SECONDS
    way.acknowledged("a", 8)
    assert found(way) == (2, round(5 * FOLLOW_EVERY_SECONDS, 6)) and way.hosts == 1


def test_a_host_that_is_gone_is_not_awaited(now: Now, way: AckLatency) -> None:
    """Its loss closes the notice at the time of the last who did say something; when nobody did, it was no lag."""
    tell(way, 7, ["a", "b"])
    now.at += 0.1
    way.acknowledged("a", 7)
    now.at += 5.0
    way.gone("b")
    assert found(way) == (1, 0.1)
    tell(way, 8, ["a"])
    way.gone("a")
    assert found(way) == (1, 0.1) and (way.hosts, way.open_seconds) == (0, 0.0)


def test_only_some_notices_are_followed(now: Now, way: AckLatency, monkeypatch: pytest.MonkeyPatch) -> None:
    """None sooner than FOLLOW_EVERY_SECONDS after another, and none while AWAITED_MAX acknowledgements are open."""
    tell(way, 1, ["a"])
    now.at += FOLLOW_EVERY_SECONDS * 0.99
    tell(way, 2, ["b"])
    assert way.hosts == 1
    now.at += FOLLOW_EVERY_SECONDS
    monkeypatch.setattr(ack_latency, "AWAITED_MAX", 1)
    tell(way, 3, ["b"])
    assert way.hosts == 1
    monkeypatch.setattr(ack_latency, "AWAITED_MAX", 2)
    tell(way, 4, ["b"])
    assert way.hosts == 2
    # What nobody depends on is no notice to follow, and does not keep the next from being one.
    monkeypatch.setattr(ack_latency, "AWAITED_MAX", 10)
    now.at += FOLLOW_EVERY_SECONDS
    tell(way, 5, [])
    tell(way, 6, ["c"])
    assert way.hosts == 3


def test_many_hosts_make_the_next_wait_longer(now: Now, way: AckLatency) -> None:
    """What is followed costs for each host that is awaited, and is followed the more rarely."""
    tell(way, 1, [f"h{number}" for number in range(10_000)])
    now.at += FOLLOW_SECONDS_PER_HOST * 10_000 * 0.99
    tell(way, 2, ["a"])
    assert way.hosts == 10_000
    now.at += FOLLOW_SECONDS_PER_HOST * 10_000 * 0.02
    tell(way, 2, ["a"])
    assert way.hosts == 10_001


def test_the_bounds_hold_the_promise_of_a_second() -> None:
    """P9: whether everybody knew within a second can be read without guessing between two bounds."""
    assert 1.0 in LAG_BOUNDS and list(LAG_BOUNDS) == sorted(LAG_BOUNDS)


def listener(port: int, state: State = "up") -> Listener:
    return Listener("a.web", "192.0.2.1", port, state, 1.0, 1)


def test_the_census_is_what_a_count_of_all_would_give() -> None:
    """After whatever changes: added, changed, moved to another state, removed, removed again."""
    rows: list[Row] = [Category("web"), Service("a.web"), listener(1), listener(2, "down")]
    catalogue: Catalogue = catalogue_of(rows, {}, 4)
    census = RowCounts()
    census.restart(catalogue)
    changes = [
        Change(5, 0, 1.0, "register", listener(3)),
        Change(6, 5, 1.0, "confirm", listener(1, "down")),
        Change(7, 6, 1.0, "alert", Alert("failure a.web 192.0.2.1:1", "failure", 1.0, "it is dead")),
        Change(8, 7, 1.0, "purge", listener(2), removed=True),
        Change(9, 8, 1.0, "recover", listener(1)),
        Change(10, 9, 1.0, "alert-over", Alert("failure a.web 192.0.2.1:1", "failure", 1.0, ""), removed=True),
        Change(11, 10, 1.0, "register", listener(1)),
    ]
    for change, step in zip(changes, steps_of(catalogue, changes), strict=True):
        census.move(step)
        catalogue = catalogue.apply(change)
        whole = RowCounts()
        whole.restart(catalogue)
        assert (census.rows, +census.listeners, +census.incidents) == (whole.rows, whole.listeners, whole.incidents)
    assert +census.listeners == Counter(up=2) and not +census.incidents
