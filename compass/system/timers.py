"""Named timers: each owner of several timers has one `Timers` and cancels all of them when it stops."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from compass.model.interfaces import Clock, Timer


class Timers:
    """Pending calls by name, at most one for each name. A call that has begun is no longer pending."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._timers: dict[Hashable, Timer] = {}

    def __contains__(self, name: Hashable) -> bool:
        """Return whether a call of this name is pending."""
        return name in self._timers

    def start(self, name: Hashable, seconds: float, call: Callable[..., object], *args: Any) -> None:
        """Call `call(*args)` after `seconds`; a pending call of the same name is cancelled."""
        pending = self._timers.pop(name, None)
        if pending is not None:
            _cancel(pending)
        self._timers[name] = self._clock.callLater(seconds, self._fire, name, call, args)

    def start_if_idle(self, name: Hashable, seconds: float, call: Callable[..., object], *args: Any) -> None:
        """Start a timer unless a call of this name is pending."""
        if name not in self._timers:
            self._timers[name] = self._clock.callLater(seconds, self._fire, name, call, args)

    def cancel(self, name: Hashable) -> None:
        """Cancel the pending call of this name, if there is one."""
        timer = self._timers.pop(name, None)
        if timer is not None:
            _cancel(timer)

    def cancel_all(self) -> None:
        """Cancel every pending call. New ones may be started afterwards."""
        timers, self._timers = self._timers, {}
        for timer in timers.values():
            _cancel(timer)

    def seconds_left(self, name: Hashable) -> float | None:
        """Return the seconds until the pending call of this name, or None if there is none."""
        timer = self._timers.get(name)
        return None if timer is None else max(timer.getTime() - self._clock.seconds(), 0.0)

    def _fire(self, name: Hashable, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        # Before the call, which may start a timer of the same name.
        del self._timers[name]
        call(*args)


def _cancel(timer: Timer) -> None:
    # A clock that has been shut down may have cancelled the call already.
    if timer.active():
        timer.cancel()
