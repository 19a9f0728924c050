"""Limit of repeated log lines: no program on the host fills the disk with the host daemon's log.

What one registration or one lookup logs is worth reading. A program can cause it as often as it likes, so the first
lines of a kind in a minute are written and the others are counted.
"""

from __future__ import annotations

import threading
from typing import Any

import msgspec
from twisted.logger import FileLogObserver, LogEvent, LogLevel

REPEATED_SECONDS = 60.0
"""Period of the limit, from the first line of a kind on."""
REPEATED_LINES_MAX = 20
"""Lines of one kind in a period: an incident on a host with that many services is logged in full, and a program that
causes a line with each request writes 4 MB a day."""
REPEATED_KINDS_MAX = 1_000
"""Kinds of lines that are counted: more than the source has; libraries may make up theirs."""


class _Count(msgspec.Struct):
    """Lines of one kind in the present period."""

    since: float
    lines: int = 0


class RepeatedLines:
    """Observer that hands on the first lines of each kind in a minute, and the number of those left out.

    Lines are of one kind if one statement of the source has written them.
    """

    def __init__(self, observer: FileLogObserver) -> None:
        self._observer = observer
        self._counts: dict[tuple[str, str], _Count] = {}
        self._lock = threading.Lock()

    def __call__(self, event: LogEvent) -> None:
        """Hand on an event, unless there are too many of its kind."""
        for one in self._handed_on(event):
            self._observer(one)

    def _handed_on(self, event: LogEvent) -> list[LogEvent]:
        kind = str(event.get("log_namespace", "")), str(event.get("log_format") or "")
        now = float(event.get("log_time", 0.0))
        before: list[LogEvent] = []
        with self._lock:
            count = self._counts.get(kind)
            if count is None or not 0.0 <= now - count.since < REPEATED_SECONDS:
                if count is not None and count.lines > REPEATED_LINES_MAX:
                    left_out = count.lines - REPEATED_LINES_MAX
                    before = [_note(event, "{n} lines like the next one were left out", left_out)]
                if len(self._counts) >= REPEATED_KINDS_MAX:
                    self._counts.clear()
                count = self._counts[kind] = _Count(now)
            count.lines += 1
            if count.lines <= REPEATED_LINES_MAX:
                return [*before, event]
            if count.lines > REPEATED_LINES_MAX + 1:
                return []
        text = "further lines like the last one are left out for {n} s; 'opengnsc status' shows what is so now"
        return [_note(event, text, round(REPEATED_SECONDS - (now - count.since)))]


def _note(event: LogEvent, text: str, number: int) -> LogEvent:
    """Return an event about lines like `event`."""
    kept: dict[str, Any] = {
        name: event[name] for name in ("log_namespace", "log_time", "log_source", "log_system") if name in event
    }
    return {**kept, "log_level": LogLevel.warn, "log_format": text, "n": number}
