"""News for administrators: one command at a time, in order, and none of its failures is anybody else's (G14)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred, fail
from twisted.logger import formatEvent, globalLogPublisher

from compass.model.rows import Alert, Category, Change, Row
from compass.server.alerts import NEWS_MAX, Alerts


@contextmanager
def logged() -> Iterator[list[str]]:
    """Level and text of what is logged meanwhile."""
    lines: list[str] = []

    def noted(event: Any) -> None:
        lines.append(f"{event['log_level'].name}: {formatEvent(event)}")

    note: Any = noted
    globalLogPublisher.addObserver(note)
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(note)


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What a test logs."""
    with logged() as lines:
        yield lines


class Command:
    """The configured command; `runs` are those under way and over, each with the news that it got."""

    def __init__(self) -> None:
        self.runs: list[tuple[Any, Deferred[None]]] = []

    def __call__(self, news: bytes) -> Deferred[None]:
        over: Deferred[None] = Deferred()
        self.runs.append((msgspec.json.decode(news), over))
        return over


def change(number: int, *, removed: bool = False, row: Row | None = None) -> Change:
    row = row or Alert(f"failure {number}", "failure", 1.5, f"incident {number}")
    return Change(revision=number, previous=0, time=2.5, operation="alert", row=row, removed=removed)


def test_an_incident_is_told_when_it_begins_and_when_it_is_over(log: list[str]) -> None:
    """The news say what, when, and at which revision; other changes are no news."""
    command = Command()
    alerts = Alerts(command)
    alerts.committed(change(1), own=True)
    alerts.committed(change(2, row=Category("web")), own=True)
    alerts.committed(change(3, removed=True), own=True)
    assert [run[0] for run in command.runs] == [
        {
            "event": "opened",
            "time": 2.5,
            "revision": 1,
            "row": "alert",
            "id": "failure 1",
            "kind": "failure",
            "opened_at": 1.5,
            "text": "incident 1",
        }
    ]
    command.runs[0][1].callback(None)
    assert [run[0]["event"] for run in command.runs] == ["opened", "resolved"]
    assert log == ["warn: alert: incident 1", "info: alert over: incident 3"]


def test_without_a_command_there_is_the_log(log: list[str]) -> None:
    """The default."""
    Alerts(None).committed(change(1), own=True)
    assert log == ["warn: alert: incident 1"]


def test_a_command_that_fails_is_logged_and_the_next_one_runs(log: list[str]) -> None:
    """Also one that cannot even be started, as often as there is news."""
    command = Command()
    alerts = Alerts(command)
    for number in (1, 2):
        alerts.committed(change(number), own=True)
    command.runs[0][1].errback(OSError("no such program"))
    assert "error: the alert command failed: no such program" in log
    assert len(command.runs) == 2


def test_news_wait_up_to_a_limit(log: list[str]) -> None:
    """P10: behind a command that is running n alerts wait, and the next one is in the log only."""
    command = Command()
    alerts = Alerts(command)
    for number in range(NEWS_MAX + 1):
        alerts.committed(change(number), own=True)
    assert not [line for line in log if "behind" in line]
    alerts.committed(change(NEWS_MAX + 1), own=True)
    assert log[-2:] == [
        f"warn: alert: incident {NEWS_MAX + 1}",
        f"error: the alert command is {NEWS_MAX} alerts behind; this one is only here",
    ]
    for number in range(NEWS_MAX + 1):
        assert len(command.runs) == number + 1
        command.runs[number][1].callback(None)
    assert [run[0]["revision"] for run in command.runs] == list(range(NEWS_MAX + 1))


def test_a_full_queue_of_commands_that_cannot_start_is_worked_off(log: list[str]) -> None:
    """A machine without memory for another process fails a thousand times and then goes on."""
    command = Command()
    first = [True]

    def run(news: bytes) -> Deferred[None]:
        if first.pop() if first else False:
            return command(news)
        return fail(OSError("no memory"))

    alerts = Alerts(run)
    for number in range(NEWS_MAX + 1):
        alerts.committed(change(number), own=True)
    command.runs[0][1].callback(None)
    assert len([line for line in log if "no memory" in line]) == NEWS_MAX
