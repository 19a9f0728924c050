"""Turns of hooks and templates: after a quiet time, one at a time, and again after a failure."""

from __future__ import annotations

from compass.agent.hooks.debounce import RETRY_SECONDS_MAX, RETRY_SECONDS_MIN, Debouncer
from compass.agent.hooks.template import step


def test_a_change_waits_until_nothing_has_changed_for_a_moment() -> None:
    """Ten changes in a row are one turn, a quiet moment after the last of them."""
    schedule = Debouncer(0.5, 60.0)
    assert schedule.due() is None
    for tenth in range(10):
        schedule.changed(tenth / 10)
    assert schedule.due() == 0.9 + 0.5


def test_changes_that_never_end_are_told_as_well() -> None:
    """A change never waits longer than the bound, however much follows it."""
    schedule = Debouncer(1.0, 3.0)
    for tenth in range(100):
        schedule.changed(tenth / 10)
    assert schedule.due() == 3.0


def test_at_most_one_turn_runs_and_one_waits() -> None:
    """All changes during a turn cause one more turn after it."""
    schedule = Debouncer(0.0, 0.0)
    schedule.changed(1.0)
    schedule.started()
    assert schedule.due() is None
    schedule.changed(2.0)
    schedule.changed(3.0)
    assert schedule.due() is None
    assert schedule.waiting
    schedule.ended(4.0, done=True)
    assert schedule.due() == 2.0
    schedule.started()
    schedule.ended(5.0, done=True)
    assert not schedule.waiting


def test_what_failed_is_tried_again_with_longer_pauses_or_at_the_next_change() -> None:
    """The pauses double up to a bound; a change does not wait for them; what goes well ends them."""
    schedule, now, pauses = Debouncer(0.0, 0.0), 0.0, []
    schedule.changed(now)
    for _ in range(9):
        schedule.started()
        schedule.ended(now, done=False)
        due = schedule.due()
        assert due is not None
        pauses.append(due - now)
        now = due
    assert pauses == [RETRY_SECONDS_MIN * 2**n for n in range(6)] + [RETRY_SECONDS_MAX] * 3
    schedule.changed(now - 1)
    assert schedule.due() == now - 1
    schedule.started()
    schedule.ended(now, done=True)
    assert (schedule.due(), schedule.failures) == (None, 0)


def test_a_file_is_written_only_when_it_differs_and_a_reload_that_is_owed_is_made() -> None:
    """A program reloads a file that it has not read yet, also after a restart of the daemon; otherwise it does not."""
    assert step(None, b"new", owed=False) == "replace"
    assert step(b"old", b"new", owed=True) == "replace"
    assert step(b"new", b"new", owed=True) == "reload"
    assert step(b"new", b"new", owed=False) == "nothing"
