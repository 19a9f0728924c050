"""Events of a program that watches, and the revisions from which it can resume."""

from __future__ import annotations

from typing import Any

from compass.agent.replica import change_feed
from compass.agent.replica.change_feed import ChangeFeed
from compass.agent.replica.replica import Replica
from compass.model.host_api import LocalEvent
from compass.model.replies import Dependencies, Refusal, Watching
from compass.model.rows import Category, Change, Dependency, Listener, Row, Service, Snapshot
from compass.wire.messages import Notice
from tests.support.agent_world import view_of

ROWS: list[Row] = [
    *(Category("web"), Service("www.web"), Dependency("web", "uss"), Category("uss"), Service("a.uss")),
    *(Category("mail"), Service("m.mail")),
]


class Told:
    """A replica, its feed, and a program that watches www.web."""

    def __init__(self) -> None:
        self.replica = Replica()
        self.services = ["www.web", "m.mail"]
        view = Snapshot(10, {"web": 5, "uss": 4, "a.uss": 3, "mail": 7}, ROWS)
        self.replica.watching(Watching("store", 10, view), self.services)
        self.feed = ChangeFeed(view_of(self.replica))
        self.feed.replaced()
        self.events: list[LocalEvent] = []

    def subscribe(self, since: int | None = None, service: str = "www.web") -> Any:
        self.events.clear()
        return self.feed.subscribe(service, since, self.events.append)

    def change(self, row: Row) -> None:
        topic = row.service if isinstance(row, Listener) else getattr(row, "category", "") or getattr(row, "name", "")
        previous = self.replica.catalogue.topics.get(topic, 0)
        change = Change(self.replica.catalogue.revision + 1, previous, 1.0, "x", row)
        assert self.replica.notice(Notice(change)) == "applied"
        self.feed.changed(change)

    def register(self, port: int) -> None:
        self.change(Listener("a.uss", "10.0.0.1", port, "up", 1.0, 1))

    @property
    def told(self) -> list[tuple[str, int]]:
        return [(event.kind, event.revision) for event in self.events]


def test_a_snapshot_and_then_the_changes() -> None:
    """A program gets the changes that concern its service until it ends its watch."""
    told = Told()
    stop = told.subscribe()
    assert told.told == [("snapshot", 10)]
    told.register(1)
    told.change(Category("mail", "a.uss"))
    told.register(2)
    assert told.told == [("snapshot", 10), ("change", 11), ("change", 13)]
    stop()
    told.register(3)
    assert len(told.events) == 3


def test_a_change_of_shape_brings_the_whole() -> None:
    """A new dependency or backup causes a snapshot, because one row cannot express it."""
    told = Told()
    told.subscribe()
    told.change(Category("uss", "a.uss"))
    assert told.told[1:] == [("change", 11), ("snapshot", 11)]
    assert isinstance(told.events[-1].data, Dependencies) and told.events[-1].data.categories[0].backup == "a.uss"


def test_going_on() -> None:
    """A watch resumes from any revision in the buffer, and from others with a snapshot."""
    told = Told()
    told.register(1)
    told.register(2)
    for since, expected in (
        (10, [("change", 11), ("change", 12)]),
        (12, []),
        (9, [("snapshot", 12)]),
        (13, [("snapshot", 12)]),
    ):
        told.subscribe(since)
        assert told.told == expected, since
    told.change(Category("uss"))
    told.subscribe(11)
    assert told.told == [("snapshot", 13)]


def test_a_new_view_is_told_whole() -> None:
    """After a gap or a change of stores who sees a difference gets a snapshot, and the past is closed."""
    told = Told()
    told.subscribe()
    told.feed.replaced()
    assert told.told == [("snapshot", 10)]
    view = Snapshot(50, {"web": 5, "uss": 4, "a.uss": 3, "mail": 7}, [*ROWS, Listener("a.uss", "::1", 1, "up", 1.0, 1)])
    told.replica.watching(Watching("store", 50, view), told.services)
    told.feed.replaced()
    assert told.told == [("snapshot", 10), ("snapshot", 50)]
    told.subscribe(10)
    assert told.told == [("snapshot", 50)]


def test_the_memory_is_bounded(monkeypatch: Any) -> None:
    """After one change above the limit the oldest revision cannot be resumed from."""
    monkeypatch.setattr(change_feed, "RECENT_MAX", 3)
    told = Told()
    for port in (1, 2, 3):
        told.register(port)
    told.subscribe(10)
    assert len(told.told) == 3 and told.told[0] == ("change", 11)
    told.register(4)
    told.subscribe(10)
    assert told.told == [("snapshot", 14)]


def test_programs_are_bounded_and_apart(monkeypatch: Any) -> None:
    """A watcher above the limit is refused; one that fails does not prevent delivery to the others."""
    monkeypatch.setattr(change_feed, "SUBSCRIBERS_MAX", 2)
    told = Told()

    def fail(event: LocalEvent) -> None:
        if event.kind == "change":
            raise OSError("gone")

    told.feed.subscribe("www.web", None, fail)
    told.subscribe()
    assert isinstance(told.subscribe(), Refusal)
    told.register(1)
    assert told.told == [("change", 11)]


def test_a_service_that_is_not() -> None:
    told = Told()
    refusal = told.subscribe(service="x.web")
    assert isinstance(refusal, Refusal) and refusal.code == "unknown-service"
