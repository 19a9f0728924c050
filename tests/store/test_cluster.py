"""The roster in SQL: servers that know each other through the store, on both engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text

from compass.model.cluster import Heartbeat, Presence
from compass.model.interfaces import StoreUnavailable
from compass.model.replies import HostLag
from compass.store import cluster as rosters
from compass.store.cluster import SqlClusterStore
from compass.store.store import Store
from tests.store.test_errors import without_standby
from tests.store.workload import registrations
from tests.support.postgresql import PostgreSQL

OpenStore = Callable[[str], Store]
Join = Callable[[], SqlClusterStore]


def line(id: str, name: str = "") -> Heartbeat:
    return Heartbeat(
        id, name or f"{id}.example", "compass/0", 1.5, 9, 3, 2, True, 9, (HostLag("web9", True, 7, 2, "gap"),)
    )


@pytest.fixture
def join(store: Store) -> Iterator[Join]:
    """Return another server's view of the same store."""
    made: list[SqlClusterStore] = []

    def join_() -> SqlClusterStore:
        made.append(store.roster())
        return made[-1]

    yield join_
    for roster in made:
        roster.close()


def test_what_a_server_says_of_itself_the_others_read(join: Join) -> None:
    """Every field, and that it moves with each beat."""
    one, other = join(), join()
    one.beat(line("a"), ())
    (first,) = other.beat(line("b"), ()).lines[:1]
    assert first.line == line("a") and first.silent_seconds < 60.0
    one.beat(line("a"), ())
    lines = {heard.line.id: heard for heard in other.beat(line("b"), ()).lines}
    assert lines["a"].beat == first.beat + 1 and lines.keys() == {"a", "b"}


def test_whoever_comes_reads_all_presences_and_later_only_news(join: Join) -> None:
    """10,000 hosts are read once, not once a second; one's own are never read."""
    one, other = join(), join()
    hosts = tuple(Presence(f"web{number}", "a", "here") for number in range(300))
    one.beat(line("a"), hosts)
    assert set(other.beat(line("b"), ()).presences) == set(hosts)
    assert other.beat(line("b"), ()).presences == ()
    gone = Presence("web7", "a", "left", 5)
    assert one.beat(line("a"), (gone,)).presences == ()
    assert other.beat(line("b"), ()).presences == (gone,)
    assert join().beat(line("c"), ()).presences[-1] == gone


def test_a_host_that_was_taken_over_is_not_lost_by_the_server_it_left(join: Join) -> None:
    """Whichever of the two writes later: the new session counts."""
    one, other, third = join(), join(), join()
    one.beat(line("a"), (Presence("web1", "a", "here"),))
    other.beat(line("b"), (Presence("web1", "b", "here"),))
    one.beat(line("a"), (Presence("web1", "a", "lost", 4),))
    assert third.beat(line("c"), ()).presences == (Presence("web1", "b", "here"),)


def test_a_server_that_leaves_takes_its_entries_along(join: Join) -> None:
    """The hosts of an ended server belong to the remaining servers."""
    one, other = join(), join()
    one.beat(line("a"), (Presence("web1", "a", "here"),))
    one.leave("a")
    roll = other.beat(line("b"), ())
    assert [heard.line.id for heard in roll.lines] == ["b"] and roll.presences == ()


def test_a_line_that_was_taken_out_comes_back_with_the_next_beat(join: Join) -> None:
    """A process that stood still for a day is no stranger when it goes on."""
    one, other = join(), join()
    one.beat(line("a"), ())
    other.leave("a")
    one.beat(line("a"), ())
    assert {heard.line.id for heard in other.beat(line("b"), ()).lines} == {"a", "b"}


@pytest.mark.parametrize("beyond", [-5.0, 5.0], ids=["just not", "just"])
@pytest.mark.parametrize(("name", "limit"), [("same", "REPLACED_SECONDS"), ("other", "FORGOTTEN_SECONDS")])
def test_old_lines_go_when_a_server_starts(store: Store, join: Join, name: str, limit: str, beyond: float) -> None:
    """Heartbeats of a restarted server are removed after a minute, any other after a day; with their entries."""
    join().beat(line("a", "same"), (Presence("web1", "a", "here"),))
    age = getattr(rosters, limit) + beyond
    move = text(f"UPDATE server SET seen_at = seen_at - {age}")
    store._transaction(lambda connection: connection.execute(move) and None, writes=True)
    roll = join().beat(line("b", name), ())
    assert ({heard.line.id for heard in roll.lines}, len(roll.presences)) == (
        ({"b"}, 0) if beyond > 0 else ({"a", "b"}, 1)
    )


def test_a_beat_waits_for_no_standby(postgresql: PostgreSQL, open_store: OpenStore) -> None:
    """Commits wait for it (P1); who is there is known all the same, so a slow standby makes no server look dead."""
    store = open_store(postgresql.new_url())
    roster = store.roster()
    with without_standby(postgresql):
        assert len(roster.beat(line("a"), ()).lines) == 1
    roster.close()


def test_a_store_that_is_away_is_told_and_the_next_beat_goes_on(postgresql: PostgreSQL, open_store: OpenStore) -> None:
    """A beat fails while the store is unavailable, and the next one succeeds without a restart."""
    store = open_store(postgresql.new_url())
    roster = store.roster()
    roster.beat(line("a"), ())
    postgresql.stop()
    try:
        with pytest.raises(StoreUnavailable):
            roster.beat(line("a"), (Presence("web1", "a", "here"),))
    finally:
        postgresql.start()
    assert roster.beat(line("a"), (Presence("web1", "a", "here"),)).lines[0].beat == 2
    roster.close()


def test_a_beat_does_not_disturb_a_commit(store: Store, join: Join) -> None:
    """Facts of the moment are no changes: the clock stands, and what was decided before is committed after."""
    roster = join()
    first = registrations(3)
    store.commit(0, first, [], [])
    roster.beat(line("a"), (Presence("web1", "a", "here"),))
    store.commit(len(first), registrations(2, revision=len(first)), [], [])
    assert store.load().revision == len(first) + 2
