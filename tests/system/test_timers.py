"""Named timers: one pending call for each name, and all of them cancelled at once."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from compass.system.timers import Timers


def setup() -> tuple[Any, Timers, list[Any]]:
    """A clock, timers on that clock, and a list for the calls to append to."""
    clock: Any = Clock()
    return clock, Timers(clock), []


def test_a_timer_calls_once_with_its_arguments() -> None:
    """The call happens when its time has passed, and not again."""
    clock, timers, called = setup()
    timers.start("a", 2.0, called.append, 1)
    clock.advance(1.9)
    assert called == [] and "a" in timers
    clock.advance(0.1)
    assert called == [1] and "a" not in timers
    clock.advance(10.0)
    assert called == [1]


def test_a_timer_of_the_same_name_replaces_the_pending_one() -> None:
    """Names keep timers apart: only the last call of a name happens, and those of other names do."""
    clock, timers, called = setup()
    timers.start("a", 1.0, called.append, "first")
    timers.start("b", 1.0, called.append, "other")
    timers.start("a", 2.0, called.append, "second")
    clock.advance(3.0)
    assert called == ["other", "second"]


def test_start_if_idle_keeps_a_pending_timer() -> None:
    """The first of several starts decides; after its call the name is free."""
    clock, timers, called = setup()
    timers.start_if_idle("a", 1.0, called.append, 1)
    timers.start_if_idle("a", 0.5, called.append, 2)
    clock.advance(1.0)
    assert called == [1]
    timers.start_if_idle("a", 0.5, called.append, 3)
    clock.advance(0.5)
    assert called == [1, 3]


def test_a_cancelled_timer_does_not_call() -> None:
    """Cancelling a name that has no pending call does nothing."""
    clock, timers, called = setup()
    timers.cancel("a")
    timers.start("a", 1.0, called.append, 1)
    timers.start("b", 1.0, called.append, 2)
    timers.cancel("a")
    assert "a" not in timers and "b" in timers
    clock.advance(2.0)
    timers.cancel("b")
    assert called == [2]


def test_cancel_all_leaves_nothing_pending() -> None:
    """After it no call happens and the clock holds none; new timers may be started."""
    clock, timers, called = setup()
    for name in range(3):
        timers.start(name, 1.0, called.append, name)
    timers.cancel_all()
    assert not clock.getDelayedCalls()
    timers.start(0, 1.0, called.append, "new")
    clock.advance(1.0)
    assert called == ["new"]


def test_a_call_may_start_its_own_timer_again() -> None:
    """A periodic call starts the timer of its own name from inside the call."""
    clock, timers, called = setup()

    def again() -> None:
        assert "a" not in timers
        called.append(clock.seconds())
        timers.start("a", 1.0, again)

    timers.start("a", 1.0, again)
    clock.pump([1.0] * 3)
    assert called == [1.0, 2.0, 3.0]
    timers.cancel_all()
    assert not clock.getDelayedCalls()


def test_seconds_left_is_the_time_until_the_call() -> None:
    """The time left is None for a name without a pending call."""
    clock, timers, called = setup()
    assert timers.seconds_left("a") is None
    timers.start("a", 3.0, called.append, 1)
    clock.advance(1.0)
    assert timers.seconds_left("a") == 2.0


def test_a_call_that_the_clock_has_cancelled_is_cancelled_without_an_error() -> None:
    """A simulated process that is killed cancels its calls; its timers can be cancelled afterwards."""
    clock, timers, called = setup()
    timers.start("a", 1.0, called.append, 1)
    clock.getDelayedCalls()[0].cancel()
    timers.cancel_all()
    clock.advance(2.0)
    assert called == []
