"""Pace of TLS handshakes from origins whose handshakes fail: others share the processor with them, and go first.

No origin is refused: behind the address of a balancer there may be a stranger and a whole fleet. What is bounded is
what failures cost. Within the pace every handshake begins at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from compass.model.interfaces import Clock
from compass.server.sessions.rate_limit import CONNECTIONS_FAILED_PER_MINUTE_MAX, RateLimiter

HANDSHAKES_PER_SECOND_MAX = 400
"""Handshakes a second of all origins that are slowed down: a third of a core."""
STEP_SECONDS = 0.05
"""Interval between two groups of handshakes that waited."""
WAITING_MAX = 1_000
"""Handshakes that wait; one more drops the oldest, whose connection then ends for it has not begun in time."""


class HandshakePace:
    """Handshakes of one port that are about to begin."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = RateLimiter(clock, CONNECTIONS_FAILED_PER_MINUTE_MAX)
        self._waiting: deque[Callable[[], None]] = deque(maxlen=WAITING_MAX)
        self._left = self._most
        self._is_stepping = False

    def failed(self, origin: str) -> None:
        """Count a connection that ended before its handshake was complete."""
        self._failures.count(origin)

    def start(self, origin: str, begin: Callable[[], None]) -> None:
        """Begin a handshake: at once, or in its turn if many of this origin have failed and too many begin now."""
        if not self._failures.wait(origin):
            begin()
            return
        if not self._is_stepping:
            self._is_stepping = True
            self._clock.callLater(STEP_SECONDS, self._step)
        if self._left > 0:
            self._left -= 1
            begin()
        else:
            self._waiting.append(begin)

    @property
    def _most(self) -> int:
        return int(HANDSHAKES_PER_SECOND_MAX * STEP_SECONDS)

    def _step(self) -> None:
        """Begin the newest handshakes that wait: a peer behind the oldest has perhaps given up."""
        self._left = self._most
        self._is_stepping = bool(self._waiting)
        if self._is_stepping:
            self._clock.callLater(STEP_SECONDS, self._step)
        while self._waiting and self._left > 0:
            self._left -= 1
            self._waiting.pop()()
