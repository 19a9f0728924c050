"""Pauses between attempts at what could not be done: longer each time, and never the same at all hosts."""

from __future__ import annotations

from collections.abc import Callable

RETRY_SECONDS_MIN = 1.0
"""First pause before a server that could not do something is asked again, unless it names a longer one."""
RETRY_SECONDS_MAX = 10.0
"""Longest pause: 10,000 hosts that all owe something are 1,000 requests a second, and a store that is back has
everything ten seconds later."""
PATIENCE_SECONDS_MAX = 30.0
"""A server that asks for more patience than this is not believed."""
LOCAL_RETRY_SECONDS = 0.5
"""Before the first new attempt to register when the daemon does not answer; doubles from one to the next."""
LOCAL_RETRY_SECONDS_MAX = 15.0
"""Longest pause: a daemon that is available again gets the registration within this time."""


def retry_seconds(attempts: int) -> float:
    """Return the pause after this number of failures in a row."""
    return doubled_seconds(attempts, LOCAL_RETRY_SECONDS, LOCAL_RETRY_SECONDS_MAX)


def doubled_seconds(attempts: int, first_seconds: float, longest_seconds: float) -> float:
    """Return the pause that doubles with each failure, after `attempts` earlier ones."""
    # The exponent is bounded, because what fails for weeks would overflow; 2**16 is beyond every limit in use.
    return min(first_seconds * 2.0 ** min(attempts, 16), longest_seconds)


class Backoff:
    """Pauses between attempts, each twice as long as the one before, from `first` to `longest` seconds."""

    def __init__(
        self,
        random: Callable[[], float] | None = None,
        *,
        first: float = RETRY_SECONDS_MIN,
        longest: float = RETRY_SECONDS_MAX,
    ) -> None:
        """`random` returns floats in [0, 1) and lengthens each pause by up to a half; None: pauses are exact."""
        self._random = random
        self._first = first
        self._longest = longest
        self._seconds = first

    def next(self, asked_for: float = 0.0) -> float:
        """Return the seconds to wait now; no less than a server has asked for."""
        least, self._seconds = self._seconds, min(self._seconds * 2, self._longest)
        pause = max(least, min(asked_for, PATIENCE_SECONDS_MAX))
        if self._random is None:
            return pause
        # Hosts that waited for the same thing must not all return in one moment.
        return pause * (1 + self._random() / 2)

    def reset(self) -> None:
        """Begin with the first pause again, after a success."""
        self._seconds = self._first
