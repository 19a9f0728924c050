"""Errors while the store is in use: full disks, lost connections, commits with an unknown outcome."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from compass.model.catalogue.catalogue import Catalogue, catalogue_of
from compass.model.interfaces import BatchRefused, StoreUnavailable
from compass.store.errors import StoreUnusable
from compass.store.store import Store
from tests.store.workload import registrations
from tests.support.postgresql import PostgreSQL


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def consistent(store: Store) -> int:
    """The store's revision, after a look whether log and tables agree at it."""
    loaded = store.load()
    catalogue = Catalogue()
    for change in store.changes_after(0, loaded.revision + 1):
        catalogue = catalogue.apply(change)
    assert catalogue_of(loaded.rows, loaded.topics, loaded.revision) == catalogue
    return loaded.revision


def fill(store: Store) -> tuple[int, str]:
    """Commit until the store cannot: the last revision it took, and what it said then."""
    revision = store.load().revision
    while True:
        changes = registrations(50, revision=revision)
        try:
            store.commit(revision, changes, [], [])
        except StoreUnavailable as error:
            assert not isinstance(error, BatchRefused)
            return revision, str(error)
        revision += len(changes)


def test_a_full_disk_takes_nothing_and_leaves_nothing_half_done(small_disk: Path) -> None:
    """Each commit says that the disk is full, reads go on, and once there is space again commits do too."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(300_000))
    store = Store.open(f"sqlite:///{small_disk}/opengnss.db")
    revision, said = fill(store)
    assert "full; free some space" in said
    assert store.changes_after(revision, 100) == []
    assert consistent(store) == revision
    ballast.unlink()
    changes = registrations(50, revision=revision)
    store.commit(revision, changes, [], [])
    assert store.changes_after(revision, 100) == changes
    store.close()


def test_a_full_disk_when_the_store_is_created_is_told(small_disk: Path) -> None:
    """Nothing that looks like a store stays behind: opened again with space, it is a new one."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_040_000))
    with pytest.raises(StoreUnavailable, match=r"full|space|I/O"):
        Store.open(f"sqlite:///{small_disk}/opengnss.db")
    ballast.unlink()
    store = Store.open(f"sqlite:///{small_disk}/opengnss.db")
    assert store.load().revision == 0
    store.close()


def test_a_connection_lost_between_commits_is_not_even_noticed(
    postgresql: PostgreSQL, open_store: Callable[[str], Store]
) -> None:
    """Nothing had been done in the lost one, so the next call does its work in a new one."""
    store = open_store(postgresql.new_url())
    first = registrations(1)
    store.commit(0, first, [], [])
    end_connections(postgresql)
    store.commit(len(first), registrations(1, revision=len(first)), [], [])
    end_connections(postgresql)
    assert consistent(store) == len(first) + 1


def test_a_server_that_is_away_is_unavailable_until_it_is_back(
    postgresql: PostgreSQL, open_store: Callable[[str], Store]
) -> None:
    """Calls fail while it is down and work by themselves afterwards."""
    url = postgresql.new_url()
    store = open_store(url)
    changes = registrations(1)
    store.commit(0, changes, [], [])
    postgresql.stop()
    try:
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="postgresql"):
                store.commit(len(changes), registrations(1, revision=len(changes)), [], [])
            with pytest.raises(StoreUnavailable):
                store.load()
        with pytest.raises(StoreUnavailable):
            Store.open(url)
    finally:
        postgresql.start()
    store.commit(len(changes), registrations(1, revision=len(changes)), [], [])
    assert consistent(store) == len(changes) + 1


def test_a_standby_takes_no_writes_and_after_its_promotion_does_by_itself(
    postgresql: PostgreSQL, open_store: Callable[[str], Store]
) -> None:
    """A primary that was made a standby answers readers; the next commit after its promotion works, and nothing of the
    refused ones is there."""
    store = open_store(postgresql.new_url())
    changes = registrations(1)
    store.commit(0, changes, [], [])
    more = registrations(1, revision=len(changes))
    postgresql.become_standby()
    try:
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="read-only"):
                store.commit(len(changes), more, [], [])
        assert store.changes_after(0, 1000) == changes
    finally:
        postgresql.promote()
    store.commit(len(changes), more, [], [])
    assert consistent(store) == len(changes) + len(more)


def test_a_commit_of_unknown_outcome_is_found_out_by_reading(
    postgresql: PostgreSQL, open_store: Callable[[str], Store]
) -> None:
    """The connection is cut while the commit waits for a standby: the caller gets StoreUnavailable, and learns from
    `changes_after` that its changes are there after all (P1)."""
    store = open_store(postgresql.new_url())
    changes = registrations(1)
    raised: list[BaseException] = []

    def commit() -> None:
        try:
            store.commit(0, changes, [], [])
        except StoreUnavailable as error:
            raised.append(error)

    with without_standby(postgresql):
        committing = threading.Thread(target=commit)
        committing.start()
        wait_for(lambda: waiting_for_standby(postgresql))
        end_connections(postgresql)
        committing.join()
    assert len(raised) == 1
    assert store.changes_after(0, 1000) == changes
    assert consistent(store) == len(changes)


def test_a_call_to_a_database_that_hangs_can_be_cut(postgresql: PostgreSQL, open_store: Callable[[str], Store]) -> None:
    """A suspended primary does not close its connections: without an abort no client would connect to another server.

    The outcome of the commit is known after the primary continues.
    """
    store = open_store(postgresql.new_url())
    changes = registrations(1)
    store.commit(0, changes, [], [])
    raised: list[BaseException] = []

    def commit() -> None:
        try:
            store.commit(len(changes), registrations(1, revision=len(changes)), [], [])
        except StoreUnavailable as error:
            raised.append(error)

    postgresql.freeze()
    try:
        committing = threading.Thread(target=commit)
        committing.start()
        committing.join(0.5)
        assert committing.is_alive(), "it waits for an answer"
        deadline = time.monotonic() + 30
        while committing.is_alive():
            # The first cut ends the connection; a new one is made once, and gives up by itself.
            store.cut()
            committing.join(0.5)
            assert time.monotonic() < deadline
    finally:
        postgresql.go_on()
    assert len(raised) == 1
    found = store.changes_after(len(changes), 10)
    assert consistent(store) == len(changes) + len(found)
    store.commit(consistent(store), registrations(1, revision=consistent(store)), [], [])


def test_a_database_set_up_to_answer_early_is_made_to_wait_for_its_disk(
    postgresql: PostgreSQL, open_store: Callable[[str], Store]
) -> None:
    """`synchronous_commit = off` would break P1; stricter settings than the default are kept."""
    for setting, kept in (("off", "on"), ("remote_apply", "remote_apply")):
        store = open_store(f"{postgresql.new_url()}%20-csynchronous_commit%3D{setting}")
        shown = store._transaction(lambda c: c.exec_driver_sql("SHOW synchronous_commit").scalar(), writes=False)
        assert shown == kept


def test_a_row_that_somebody_else_wrote_is_told_as_such(tmp_path: Path, open_store: Callable[[str], Store]) -> None:
    """A hand in the database that spells a policy wrong: the text says what was found where."""
    store = open_store(f"sqlite:///{tmp_path}/opengnss.db")
    store.commit(0, registrations(1), [], [])
    with contextlib.closing(sqlite3.connect(tmp_path / "opengnss.db", isolation_level=None)) as hand:
        hand.execute("UPDATE category SET policy = '{\"probe\": 7}'")
    with pytest.raises(StoreUnusable, match=r"opengnss.db: a row of table category cannot be read: .*probe"):
        store.load()


class without_standby:  # noqa: N801
    """PostgreSQL's commits wait for a standby that does not exist."""

    def __init__(self, server: PostgreSQL) -> None:
        self._server = server

    def __enter__(self) -> None:
        self._set("absent")

    def __exit__(self, *_: object) -> None:
        self._set("")

    def _set(self, name: str) -> None:
        self._server.ask(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
        self._server.ask("SELECT pg_reload_conf()")
        wait_for(lambda: self._server.ask("SHOW synchronous_standby_names") == [(name,)])


def waiting_for_standby(server: PostgreSQL) -> bool:
    return bool(server.ask("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"))


def end_connections(server: PostgreSQL) -> None:
    """Cut every session but the asking one, and wait until they are gone; some are soon followed by another."""
    there = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    ended = {pid for pid, _ in server.ask(f"SELECT pid, pg_terminate_backend(pid) {there}")}
    wait_for(lambda: not ended & {pid for (pid,) in server.ask(f"SELECT pid {there}")})


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
