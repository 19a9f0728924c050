"""Names that are asked for again and again and have no listener: when one counts, and when it no longer does."""

from __future__ import annotations

import pytest

from compass.model.selection.unanswered import (
    LOOKUPS_MIN,
    NAMES_MAX,
    SPACING_SECONDS,
    WINDOW_SECONDS,
    UnansweredLookups,
)

NAME = "cart.shop"


def names(lookups: UnansweredLookups, now: float, rendered: tuple[str, ...] = (), missing: bool = True) -> list[str]:
    """The unanswered names, if all of them have no listener."""
    return [one.name for one in lookups.names(now, lambda name: missing, rendered)]


@pytest.mark.parametrize(("count", "counts"), [(LOOKUPS_MIN - 1, False), (LOOKUPS_MIN, True)])
def test_a_name_counts_from_the_fourth_lookup_on(count: int, counts: bool) -> None:
    """Three typed lookups are a person's, four are a program's."""
    lookups = UnansweredLookups()
    for number in range(count):
        lookups.asked(NAME, number * SPACING_SECONDS)
    assert names(lookups, count * SPACING_SECONDS) == [NAME] * counts


def test_what_one_lookup_makes_counts_once() -> None:
    """A and AAAA, search domains and retries of one lookup are within a second; a thousand of them are no outage."""
    lookups = UnansweredLookups()
    for number in range(1000):
        lookups.asked(NAME, number * (SPACING_SECONDS - 0.1) / 1000)
    assert names(lookups, SPACING_SECONDS) == []


def test_the_count_ends_with_the_outage_or_with_the_lookups() -> None:
    """A name with a listener is none, and neither is one for which no program asks any more."""
    lookups = UnansweredLookups()
    for number in range(20):
        lookups.asked(NAME, number * SPACING_SECONDS)
    last = 19 * SPACING_SECONDS
    assert names(lookups, last, missing=False) == []
    until = last - (LOOKUPS_MIN - 1) * SPACING_SECONDS + WINDOW_SECONDS
    assert names(lookups, until - 1.0) == [NAME] and names(lookups, until) == []


def test_slow_lookups_are_none() -> None:
    """Four lookups in more than the window are not again and again."""
    lookups = UnansweredLookups()
    for number in range(30):
        lookups.asked(NAME, number * (WINDOW_SECONDS / (LOOKUPS_MIN - 1)))
        assert names(lookups, number * (WINDOW_SECONDS / (LOOKUPS_MIN - 1))) == []


def test_what_a_template_renders_is_asked_for_without_a_lookup() -> None:
    """A balancer whose backend is empty asks for nothing."""
    assert names(UnansweredLookups(), 0.0, ("b.c", "a.c")) == ["a.c", "b.c"]
    assert names(UnansweredLookups(), 0.0, ("b.c",), missing=False) == []


@pytest.mark.parametrize(("others", "kept"), [(NAMES_MAX - 1, True), (NAMES_MAX, False)])
def test_no_more_names_are_remembered_than_the_limit(others: int, kept: bool) -> None:
    """P10: the name that was asked for the longest ago gives way."""
    lookups = UnansweredLookups()
    for number in range(LOOKUPS_MIN):
        lookups.asked(NAME, number * SPACING_SECONDS)
    for number in range(others):
        lookups.asked(f"s{number}.shop", 40.0)
    assert (NAME in names(lookups, 41.0)) == kept
