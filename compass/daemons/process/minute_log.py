"""Log lines for what a peer can cause as often as it likes: the first at once, then one a minute with a number."""

from __future__ import annotations

from twisted.logger import Logger

from compass.model.interfaces import Clock

LOG_EVERY_SECONDS = 60.0
"""Interval between two lines: no peer fills a disk, and an operator still sees that it goes on."""


class MinuteLog:
    """Counter of one kind of event, which writes at most one line a minute."""

    def __init__(self, log: Logger, text: str) -> None:
        """`text` names the number of events as {n}."""
        self._log = log
        self._text = text
        self._count = 0
        self._logged_at = float("-inf")

    def add(self, clock: Clock, **fields: object) -> None:
        """Count an event, and log all since the last line unless a line was written within a minute."""
        self._count += 1
        now = clock.seconds()
        if now - self._logged_at < LOG_EVERY_SECONDS:
            return
        self._log.warn(self._text, n=self._count, **fields)
        self._count, self._logged_at = 0, now
