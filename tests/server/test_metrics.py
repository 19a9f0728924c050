"""Counts of a server: histograms, and rows by kind and state."""

from __future__ import annotations

from collections import Counter

from compass.model.catalogue.catalogue import Catalogue, catalogue_of
from compass.model.catalogue.digest import steps_of
from compass.model.metrics import LAG_BOUNDS, Histogram
from compass.model.rows import Alert, Category, Change, Listener, Row, Service, State
from compass.server.commit.row_counts import RowCounts


def test_figures_fall_into_ranges() -> None:
    """A figure at a bound lies below it, one above the last in a range of its own."""
    spread = Histogram((1.0, 2.0))
    for figure in (0.5, 1.0, 1.5, 2.0, 2.5, 7.0):
        spread.add(figure)
    assert (spread.counts, spread.cumulative(), spread.total) == ([2, 2, 2], [2, 4, 6], 14.5)


def test_the_bounds_include_the_promised_second() -> None:
    """P9: a bound lies at one second, so that the promise can be read without interpolation."""
    assert 1.0 in LAG_BOUNDS and list(LAG_BOUNDS) == sorted(LAG_BOUNDS)


def listener(port: int, state: State = "up") -> Listener:
    return Listener("a.web", "192.0.2.1", port, state, 1.0, 1)


def test_the_census_is_what_a_count_of_all_would_give() -> None:
    """The counts follow rows that are added, changed, moved to another state and removed."""
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
        census.move(step, catalogue)
        catalogue = catalogue.apply(change)
        whole = RowCounts()
        whole.restart(catalogue)
        assert (census.rows, +census.listeners, +census.incidents) == (whole.rows, whole.listeners, whole.incidents)
    assert +census.listeners == Counter(up=2) and not +census.incidents
