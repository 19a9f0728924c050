"""A primary and its synchronous standby (P1, P2): what was answered or sent is never lost with the primary."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import pytest

from compass.model.interfaces import StoreUnavailable
from compass.model.rows import Category, Change
from compass.store import engine
from compass.store.store import Store
from tests.e2e.processes import eventually
from tests.faults.failover import run
from tests.faults.replicated import Pair
from tests.support.reactor_thread import ReactorThread

pytestmark = pytest.mark.long

WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@pytest.fixture(scope="module")
def two() -> Iterator[Pair]:
    """A primary and its standby."""
    pair = Pair()
    yield pair
    pair.remove()


@pytest.fixture
def thread() -> Iterator[ReactorThread]:
    """A reactor."""
    thread = ReactorThread()
    yield thread
    thread.stop()


@pytest.fixture
def pair(two: Pair) -> Pair:
    """Both run, and commits wait for the standby."""
    if not two.standby.runs:
        two.repair()
    return two


def category(revision: int) -> Change:
    return Change(revision, 0, 1.0, "set", Category(f"c{revision}"))


def commits(store: Store, revision: int) -> None:
    store.commit(revision - 1, [category(revision)], [], [])


def waits_for_the_standby(pair: Pair) -> int:
    """The process on the primary whose commit is not confirmed yet."""
    return int(eventually(lambda: pair.primary.ask(WAITING), "a commit waits")[0][0])


def test_a_failover_loses_nothing_that_was_answered_or_told(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """P1: a reply means that the standby has it, whatever becomes of the commit's wait. P2: the same log from any
    server, so none may read what a failover would take back."""
    monkeypatch.setattr(engine, "CONFIRM_SECONDS", 1)
    name, url = pair.new_database()
    writer, reader = Store.open(url), Store.open(url)
    commits(writer, 1)
    with ThreadPoolExecutor() as threads:
        # An administrator cancels the wait: PostgreSQL says that it is done, with a warning.
        pair.standby.stop()
        asked: Future[None] = threads.submit(commits, writer, 2)
        pair.primary.ask(f"SELECT pg_cancel_backend({waits_for_the_standby(pair)})", name)
        with pytest.raises(StoreUnavailable, match="its synchronous standby does not confirm commits; start the"):
            asked.result()
        # Nor is it found to be there afterwards, although the primary shows it.
        with pytest.raises(StoreUnavailable, match="does not confirm"):
            writer.changes_after(1, 10)
        # The primary is restarted, and shows it to every client.
        pair.primary.kill()
        pair.primary.start()
        assert pair.primary.ask("SELECT revision FROM clock", name) == [(2,)]
        for read in (lambda: reader.changes_after(1, 10), reader.load, lambda: Store.open(url)):
            with pytest.raises(StoreUnavailable, match="does not confirm"):
                read()
    # It dies for good, and the standby takes over without what no host was sent.
    pair.primary.kill()
    pair.standby.start()
    pair.promote()
    eventually(lambda: _at(reader), "the new primary answers")
    assert (_at(reader), writer.changes_after(1, 10)) == (1, [])
    commits(writer, 2)
    assert reader.changes_after(1, 10) == [category(2)]


def _at(store: Store) -> int:
    with suppress(StoreUnavailable):
        return store.load().revision
    return 0


def _changes(store: Store) -> list[Change]:
    with suppress(StoreUnavailable):
        return store.changes_after(0, 10)
    return []


def test_a_commit_that_was_cut_off_is_found_once_the_standby_has_it(pair: Pair) -> None:
    """P1: in doubt, the server waits for the standby before it answers, and then the answer is the truth."""
    name, url = pair.new_database()
    writer = Store.open(url)
    with ThreadPoolExecutor() as threads:
        pair.standby.stop()
        asked: Future[None] = threads.submit(commits, writer, 1)
        pair.primary.ask(f"SELECT pg_terminate_backend({waits_for_the_standby(pair)})", name)
        with pytest.raises(StoreUnavailable):
            asked.result()
        looked = threads.submit(writer.changes_after, 0, 10)
        waits_for_the_standby(pair)
        assert not looked.done()
        pair.standby.start()
        # It may have come to its senses too late for this attempt.
        with suppress(StoreUnavailable):
            looked.result()
    assert eventually(lambda: _changes(writer), "the standby confirms") == [category(1)]
    pair.primary.kill()
    pair.promote()
    eventually(lambda: _at(writer), "the new primary answers")
    assert writer.changes_after(0, 10) == [category(1)]


def test_the_first_commit_of_a_connection_can_be_cut(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call to the database is ended by a caller that cannot wait any longer, also while it waits for the standby."""
    monkeypatch.setattr(engine, "CONFIRM_SECONDS", 600)
    _, url = pair.new_database()
    store = Store.open(url)
    store.close()
    with ThreadPoolExecutor() as threads:
        pair.standby.stop()
        asked = threads.submit(store.load)
        waits_for_the_standby(pair)
        store.cut()
        with pytest.raises(StoreUnavailable):
            asked.result()
    pair.standby.start()
    assert eventually(lambda: _reached(store), "the standby confirms")


def _reached(store: Store) -> bool:
    with suppress(StoreUnavailable):
        return store.load().revision == 0
    return False


@pytest.mark.parametrize("campaign", ["database", "server"])
def test_hosts_and_writers_do_not_mind(pair: Pair, thread: ReactorThread, campaign: str) -> None:
    """P1 to P5 through the loss of the primary database, and of one of three servers: writes go on, every answered
    change is there, no notice is lost or repeated, no lookup fails and no listener flaps. `make failover` is the
    long form, with the bounds in time."""
    problems = thread.call(run, thread.reactor, pair, campaign, hosts=6, writers=4, rounds=1, slack=10.0)
    assert problems == []
