"""Notifications: a write to a store wakes all its servers at once, on both engines (P2)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest

from compass.model.interfaces import BatchRefused
from compass.model.rows import Listener, SecurityEntry
from compass.store.notifications import ChangeNotifier, PostgresListener
from compass.store.store import Store
from tests.store.test_errors import end_connections
from tests.store.workload import registrations
from tests.support.postgresql import PostgreSQL

PATIENCE_SECONDS = 20.0


class Ear:
    """Notifications that a server receives."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self._changed = threading.Condition()

    def __call__(self, revision: int) -> None:
        with self._changed:
            self.told.append(revision)
            self._changed.notify_all()

    def hears(self, revision: int) -> None:
        """Wait until it has heard of a revision."""
        with self._changed:
            assert self._changed.wait_for(lambda: revision in self.told, PATIENCE_SECONDS), self.told


Listen = Callable[[Store], Ear]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Start a notifier on a store, and wait until it is connected."""
    started: list[ChangeNotifier] = []

    def listening(store: Store) -> Ear:
        ear = Ear()
        wakeups = store.wakeups(ear)
        assert wakeups is not None
        started.append(wakeups)
        wakeups.start()
        ear.hears(store.load().revision)
        return ear

    yield listening
    for wakeups in started:
        wakeups.stop()


def test_each_commit_is_heard_by_whoever_listens(url: str, open_store: Callable[[str], Store], listen: Listen) -> None:
    """A wake-up has the store's revision, for commits of any server, including one's own."""
    one, other = open_store(url), open_store(url)
    ears = [listen(one), listen(other)]
    first = registrations(3)
    one.commit(0, first, [], [])
    for ear in ears:
        ear.hears(len(first))
    other.commit(len(first), registrations(2, revision=len(first)), [], [])
    for ear in ears:
        ear.hears(len(first) + 2)


def test_a_refusal_is_heard_although_it_has_no_revision(
    url: str, open_store: Callable[[str], Store], listen: Listen
) -> None:
    """A reader of the security log at one server is woken by a refusal at another."""
    store = open_store(url)
    ear = listen(open_store(url))
    heard = len(ear.told)
    store.commit(0, [], [SecurityEntry(0, 5.0, "register", "north.web", "{}", "192.0.2.9", "h1", "wrong")], [])
    wait_for(lambda: len(ear.told) > heard)
    assert set(ear.told) == {0}


def test_stores_in_one_database_hear_nothing_of_each_other(
    postgresql: PostgreSQL, open_store: Callable[[str], Store]
) -> None:
    """A channel belongs to a store, not to the database that holds several."""
    here, there = (open_store(postgresql.new_url()) for _ in range(2))
    ear = Ear()
    wakeups = here.wakeups(ear)
    assert isinstance(wakeups, PostgresListener)
    wakeups.start()
    try:
        ear.hears(0)
        there.commit(0, registrations(3), [], [])
        here.commit(0, registrations(1), [], [])
        ear.hears(len(registrations(1)))
        assert set(ear.told) <= {0, len(registrations(1))}
    finally:
        wakeups.stop()


def test_a_commit_that_is_undone_wakes_nobody(
    postgresql: PostgreSQL, open_store: Callable[[str], Store], listen: Listen
) -> None:
    """The notification is part of the transaction: no word of what is not there."""
    url = postgresql.new_url()
    store, other = open_store(url), open_store(url)
    ear = listen(other)
    wrong = registrations(7)
    wrong[-1] = msgspec.structs.replace(wrong[-1], row=Listener("gone.web", "192.0.2.1", 80, "up", 1.0, 1))
    with pytest.raises(BatchRefused):
        store.commit(0, wrong, [], [])
    first = registrations(1)
    store.commit(0, first, [], [])
    ear.hears(len(first))
    assert len(wrong) not in ear.told


def test_what_was_committed_while_the_connection_was_cut_is_heard_when_it_is_back(
    postgresql: PostgreSQL, open_store: Callable[[str], Store], listen: Listen
) -> None:
    """A new connection begins with a read of the revision: no change in between is missed."""
    url = postgresql.new_url()
    ear, store = listen(open_store(url)), open_store(url)
    first = registrations(1)
    end_connections(postgresql)
    store.commit(0, first, [], [])
    ear.hears(len(first))
    store.commit(len(first), registrations(1, revision=len(first)), [], [])
    ear.hears(len(first) + 1)


def test_a_listener_waits_for_a_database_that_is_away(
    postgresql: PostgreSQL, open_store: Callable[[str], Store], listen: Listen
) -> None:
    """The notifier continues when the database is available again, and can be stopped while it is not."""
    url = postgresql.new_url()
    ear, store = listen(open_store(url)), open_store(url)
    stopped = store.wakeups(Ear())
    assert stopped is not None
    postgresql.stop()
    try:
        stopped.start()
        time.sleep(0.3)
        stopped.stop()
    finally:
        postgresql.start()
    first = registrations(1)
    store.commit(0, first, [], [])
    ear.hears(len(first))


def test_a_store_in_memory_has_nobody_else_to_hear_of() -> None:
    """No other process can write to it."""
    store = Store.open("sqlite://")
    assert store.wakeups(Ear()) is None
    store.close()


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
