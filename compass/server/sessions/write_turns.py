"""Turns of writing: messages in parts are written a slice at a time, session after session (P10).

A peer on a fast network reads as fast as the server writes. Without turns one snapshot of 256 MiB would occupy the
reactor until a buffer is full, and the replies to all other peers would wait for it. Between two slices the reactor
handles whatever has arrived.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from compass.model.interfaces import Clock

SLICE_SECONDS_MAX = 0.0004
"""Time of one slice: less than a commit takes, so a peer whose request arrives meanwhile hardly waits. Encoding and
encrypting one part takes about this long, and a part that has begun is finished."""
SLICE_OCTETS_MAX = 256 * 1024
"""Octets of one slice, also on a machine that writes them in no time."""
PAUSE_SHARE = 1.0
"""Pause after a slice, as a share of the time that the slice took: messages in parts occupy at most half of the
reactor's time, however many peers read them."""
PAUSE_SECONDS_MIN = 0.0002
"""Shortest pause: the reactor handles what has arrived. Its timers are no finer than this."""
PAUSE_SECONDS_MAX = 0.005
"""Longest pause: a slice that took longer was interrupted by another process."""


class Writer(Protocol):
    """Session with a message in parts to write."""

    def take_turn(self) -> int:
        """Write one part, and request the next turn if more follows. Returns the octets."""


class WriteTurns:
    """Queue of the sessions that have a message in parts to write; each writes one part at its turn."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: deque[Writer] = deque()
        self._is_scheduled = False

    def request(self, writer: Writer) -> None:
        """Let a session write at its next turn; it waits for one turn at a time."""
        self._waiting.append(writer)
        self._schedule(0.0)

    def _schedule(self, delay: float) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._clock.callLater(delay, self._write_slice)

    def _write_slice(self) -> None:
        began, octets, seconds = self._clock.seconds(), 0, 0.0
        while self._waiting and seconds < SLICE_SECONDS_MAX and octets < SLICE_OCTETS_MAX:
            octets += self._waiting.popleft().take_turn()
            seconds = self._clock.seconds() - began
        self._is_scheduled = False
        if self._waiting:
            self._schedule(min(max(seconds * PAUSE_SHARE, PAUSE_SECONDS_MIN), PAUSE_SECONDS_MAX))
