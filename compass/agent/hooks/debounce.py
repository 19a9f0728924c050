"""Debouncing of hooks and templates: a run after a quiet time, one at a time, and again after a failure. Pure.

A change waits until there has been no other for a moment, so that ten changes in a row make one run, but never longer
than a bound, so that changes which never end cause a run as well. Changes during a run make one more run wait.
"""

from __future__ import annotations

RETRY_SECONDS_MIN = 1.0
"""First pause after a turn that failed, unless something changes before."""
RETRY_SECONDS_MAX = 60.0
"""Longest pause: what fails for an hour is tried once a minute, and works a minute after it was mended."""


class Debouncer:
    """Times are seconds of any clock that never jumps."""

    def __init__(self, quiet_seconds: float, quiet_seconds_max: float) -> None:
        """Set the quiet time before a run, and the longest time that a change waits."""
        self._quiet = quiet_seconds
        self._quiet_max = quiet_seconds_max
        self._first: float | None = None
        self._last = 0.0
        self._retry: float | None = None
        self.running = False
        self.failures = 0
        """Failures in a row."""

    @property
    def waiting(self) -> bool:
        """Return whether a run is due or waits."""
        return self._first is not None or self._retry is not None

    def changed(self, now: float) -> None:
        """There is something new."""
        self._first = now if self._first is None else self._first
        self._last = now

    def due(self) -> float | None:
        """Return the time of the next run, or None if there is nothing to do or a run is in progress."""
        if self.running:
            return None
        times = [] if self._retry is None else [self._retry]
        if self._first is not None:
            times.append(min(self._last + self._quiet, self._first + self._quiet_max))
        return min(times, default=None)

    def started(self) -> None:
        """The turn has begun: it sees all that has changed so far."""
        self.running, self._first, self._retry = True, None, None

    def ended(self, now: float, done: bool) -> None:
        """End the run; after a failure the next one follows by itself or with the next change."""
        self.running = False
        self.failures = 0 if done else self.failures + 1
        if not done:
            self._retry = now + min(RETRY_SECONDS_MIN * 2.0 ** min(self.failures - 1, 30), RETRY_SECONDS_MAX)
