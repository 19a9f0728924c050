"""Limit of repeated log lines."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.logger import Logger, LogLevel, formatEvent

from compass.daemons.process.repeated_lines import (
    REPEATED_KINDS_MAX,
    REPEATED_LINES_MAX,
    REPEATED_SECONDS,
    RepeatedLines,
)


class Written:
    """Log behind the limit, on a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events: list[Any] = []
        self.limit: Any = RepeatedLines(cast(Any, self.events.append))
        self.log = self.logger("compass.test")

    def logger(self, namespace: str) -> Logger:
        """Return a module's logger, whose lines have the time of this clock."""
        return Logger(namespace, observer=cast(Any, lambda event: self.limit({**event, "log_time": self.now})))

    def texts(self) -> list[str]:
        """Return the lines since the last call."""
        texts = [formatEvent(event) for event in self.events]
        self.events.clear()
        return texts


@pytest.fixture
def written() -> Written:
    """Provide an empty log."""
    return Written()


def test_as_many_lines_as_the_limit_are_all_written(written: Written) -> None:
    """A number of n lines is within the limit."""
    for number in range(REPEATED_LINES_MAX):
        written.log.info("{number} died", number=number)
    assert written.texts() == [f"{number} died" for number in range(REPEATED_LINES_MAX)]


def test_one_line_more_is_left_out_and_the_log_says_so(written: Written) -> None:
    """Line n + 1 is left out, and a thousand more write nothing; other lines are written."""
    for number in range(REPEATED_LINES_MAX + 1_000):
        written.log.info("{number} died", number=number)
    note = "further lines like the last one are left out for 60 s; 'opengnsc status' shows what is so now"
    assert written.texts()[REPEATED_LINES_MAX:] == [note]
    written.log.warn("something else")
    assert written.texts() == ["something else"]


def test_after_the_minute_lines_are_written_again_with_the_number_left_out(written: Written) -> None:
    """Nothing is dropped without a trace."""
    for number in range(REPEATED_LINES_MAX + 7):
        written.log.error("{number} died", number=number)
    written.texts()
    written.now = REPEATED_SECONDS
    written.log.error("{number} died", number=99)
    levels = [event["log_level"] for event in written.events]
    assert written.texts() == ["7 lines like the next one were left out", "99 died"]
    assert levels == [LogLevel.warn, LogLevel.error]


def test_a_clock_that_is_set_back_silences_nothing(written: Written) -> None:
    """A period ends also when its beginning is in the future."""
    written.now = 1_000_000.0
    for _ in range(REPEATED_LINES_MAX + 1):
        written.log.info("died")
    written.texts()
    written.now = 5.0
    written.log.info("died")
    assert written.texts() == ["1 lines like the next one were left out", "died"]


def test_the_same_text_of_two_modules_is_of_two_kinds(written: Written) -> None:
    """Kinds are statements of the source."""
    other = written.logger("compass.other")
    for _ in range(REPEATED_LINES_MAX):
        written.log.info("the same")
        other.info("the same")
    assert len(written.texts()) == 2 * REPEATED_LINES_MAX


def test_kinds_are_bounded(written: Written) -> None:
    """Texts made up by a library cost no memory without bound; what is written stays the same."""
    for number in range(REPEATED_KINDS_MAX + 1):
        written.log.info(f"text {number}")
    assert len(written.texts()) == REPEATED_KINDS_MAX + 1
