"""Promises of the store to the server, on both engines: durable, fenced, in order, all or nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from compass.model.catalogue.catalogue import Catalogue, catalogue_of
from compass.model.interfaces import BatchRefused, Conflict, LogPart, LogTrimmed
from compass.model.rows import (
    AdministrationEntry,
    Alert,
    Category,
    Change,
    Credential,
    Dependency,
    Host,
    Listener,
    Policy,
    Row,
    SecurityEntry,
    Service,
    UpdateEntry,
)
from compass.store.errors import StoreWentBack
from compass.store.statements import Log
from compass.store.store import Store
from tests.store.workload import registrations

ROOT = Path(__file__).parents[2]
LISTENER = Listener("north.web", "192.0.2.1", 80, "up", 1.0, 1, cause="registered")
REFUSED = SecurityEntry(0, 5.0, "register", "north.web", "{}", "192.0.2.9", "h1", "wrong credential")
ADMINISTERED = AdministrationEntry(0, 6.0, "put", "{}", "127.0.0.1", "root", "done", 3)


def changes_of(*rows: Row, removed: Row | None = None, revision: int = 0) -> list[Change]:
    """Changes that set the rows one after the other after `revision`; the row `removed` is removed."""
    return [Change(at, 0, 1.0, "test", row, removed=row is removed) for at, row in enumerate(rows, start=revision + 1)]


WORLD = changes_of(Category("web"), Service("north.web"), LISTENER)


def catalogue_in(store: Store) -> Catalogue:
    loaded = store.load()
    return catalogue_of(loaded.rows, loaded.topics, loaded.revision)


def replayed(changes: list[Change]) -> Catalogue:
    catalogue = Catalogue()
    for change in changes:
        catalogue = catalogue.apply(change)
    return catalogue


def test_a_new_store_is_empty_and_has_an_id_of_its_own(store: Store) -> None:
    """Nothing but an id; the log's floor is the revision that the first change will have."""
    loaded = store.load()
    assert (loaded.revision, loaded.floor, loaded.rows, loaded.topics) == (0, 1, [], {})
    assert len(loaded.store) == 32
    assert store.changes_after(0, 10) == []
    assert store.engine.startswith(("sqlite 3.", "postgresql 18."))


def test_what_was_committed_is_there_after_the_store_was_opened_again(store: Store, url: str) -> None:
    """P1, in the small: every kind of row comes back as it was, with the same store id and the same log."""
    rows: list[Row] = [
        Category("web"),
        Service("north.web"),
        Category("web", backup="north.web"),
        msgspec.structs.replace(LISTENER, host="h1", weight=0, changed_at=1750000000.123456, state="draining"),
        Dependency("web", "web"),
        Credential("abc", "north.web", "ff" * 32, 1.5, 2.5),
        Host("h1", "2001:db8::1", 4865, ("north.web", "gone.web"), barred=True),
        Alert("failure north.web", "failure", 3.25, "text"),
    ]
    store.commit(0, changes_of(*rows), [], [])
    id = store.load().store
    store.close()
    again = Store.open(url, create=False)
    assert again.load().store == id
    assert catalogue_in(again) == replayed(changes_of(*rows))
    assert again.changes_after(0, 100) == changes_of(*rows)
    again.close()


@pytest.mark.parametrize(
    "text", ["中文 ünï \U0001f9ed", '\'; DROP TABLE "listener" --', "a\\b\n\t%s :x", "\x00\x01\x7f"]
)
def test_metadata_comes_back_letter_for_letter(store: Store, text: str) -> None:
    """Text is JSON in a column on both engines, in which even a NUL is six harmless characters."""
    row = msgspec.structs.replace(LISTENER, metadata={text: text})
    store.commit(0, [*WORLD[:2], *changes_of(row, revision=2)], [], [])
    assert catalogue_in(store).listener("north.web", "192.0.2.1", 80) == row
    assert store.changes_after(2, 1)[0].row == row


def test_the_largest_epoch_comes_back(store: Store) -> None:
    """Epochs are 64-bit signed integers, the largest included (P6)."""
    row = msgspec.structs.replace(LISTENER, epoch=2**63 - 1)
    store.commit(0, [*WORLD[:2], *changes_of(row, revision=2)], [], [])
    assert catalogue_in(store).listener("north.web", "192.0.2.1", 80) == row


@pytest.mark.parametrize(
    "row",
    [
        msgspec.structs.replace(LISTENER, epoch=2**63),
        msgspec.structs.replace(LISTENER, cause="\ud800"),
        msgspec.structs.replace(LISTENER, port=0),
        Listener("south.web", "192.0.2.1", 80, "up", 1.0, 1),
    ],
    ids=["an epoch beyond 64 bits", "text that is no Unicode", "a port that cannot be", "a service that is not there"],
)
def test_a_batch_that_can_never_be_committed_says_so(store: Store, row: Listener) -> None:
    """The rules let no such row through; if they did, the batch must not be tried for ever. Nothing of it stays."""
    with pytest.raises(BatchRefused):
        store.commit(0, [*WORLD, *changes_of(row, revision=3)], [REFUSED], [])
    assert store.load().revision == 0
    assert store.read_log("security", 0, 10, 0) == ([], 1)
    store.commit(0, WORLD, [REFUSED], [])


def test_a_nul_in_plain_text_is_refused_by_postgresql(postgresql: object, url: str, store: Store) -> None:
    """PostgreSQL's text cannot hold one, SQLite's can: the rules must let none into causes and log entries."""
    row = msgspec.structs.replace(LISTENER, cause="a\x00b")
    batch = [*WORLD[:2], *changes_of(row, revision=2)]
    if url.startswith("sqlite"):
        store.commit(0, batch, [], [])
        assert catalogue_in(store).listener("north.web", "192.0.2.1", 80) == row
    else:
        with pytest.raises(BatchRefused, match="NUL"):
            store.commit(0, batch, [], [])
        assert store.load().revision == 0


def test_changes_must_follow_the_revision_they_were_decided_at(store: Store) -> None:
    """A batch that skips a revision would leave a gap in the log (P2)."""
    with pytest.raises(BatchRefused, match="1 to 2"):
        store.commit(0, [WORLD[0], WORLD[2]], [], [])
    assert store.load().revision == 0


def test_the_last_change_of_a_row_wins_within_a_batch(store: Store) -> None:
    """A row that is set and removed is absent; one removed and set exists; the topics' revisions are those of the last
    changes."""
    south = Listener("north.web", "192.0.2.2", 80, "up", 1.0, 1)
    store.commit(0, WORLD, [], [])
    batch = [
        Change(4, 0, 1.0, "test", LISTENER, removed=True),
        Change(5, 0, 1.0, "test", Service("north.web"), removed=True),
        Change(6, 0, 1.0, "test", Category("web"), removed=True),
        Change(7, 0, 1.0, "test", Category("web")),
        Change(8, 0, 1.0, "test", Category("gone")),
        Change(9, 0, 1.0, "test", Service("north.web")),
        Change(10, 0, 1.0, "test", south),
        Change(11, 0, 1.0, "test", LISTENER),
        Change(12, 0, 1.0, "test", south, removed=True),
        Change(13, 0, 1.0, "test", Category("gone"), removed=True),
    ]
    store.commit(3, batch, [], [])
    assert catalogue_in(store) == replayed([*WORLD, *batch])
    assert store.load().topics == {"web": 9, "north.web": 12}


def test_a_backup_service_may_come_and_go_in_the_batch_that_names_it(store: Store) -> None:
    """Categories and services refer to each other, so that is looked at when the batch is complete."""
    store.commit(0, changes_of(Category("web"), Service("a.web"), Category("web", "a.web")), [], [])
    batch = [
        Change(4, 3, 1.0, "test", Category("web")),
        Change(5, 4, 1.0, "test", Service("a.web"), removed=True),
        Change(6, 5, 1.0, "test", Category("web"), removed=True),
    ]
    store.commit(3, batch, [], [])
    assert store.load().rows == []


def test_the_second_of_two_servers_gets_a_conflict_and_can_go_on(url: str, open_store: Callable[[str], Store]) -> None:
    """Nothing of its batch is in the store; it reads what the first one wrote, and commits after that."""
    one, two = open_store(url), open_store(url)
    one.commit(0, WORLD, [], [])
    late = changes_of(Category("late"))
    with pytest.raises(Conflict):
        two.commit(0, late, [REFUSED], [ADMINISTERED])
    assert two.read_log("security", 0, 10, 0) == ([], 1)
    assert two.changes_after(0, 100) == WORLD
    two.commit(3, changes_of(Category("late"), revision=3), [REFUSED], [])
    assert catalogue_in(one) == replayed([*WORLD, *changes_of(Category("late"), revision=3)])
    assert one.load().store == two.load().store


def test_log_entries_without_changes_need_no_revision(url: str, open_store: Callable[[str], Store]) -> None:
    """A refusal is logged even by a server that is behind; the numbers go on across servers."""
    one, two = open_store(url), open_store(url)
    one.commit(0, WORLD, [REFUSED], [])
    two.commit(0, [], [REFUSED, REFUSED], [ADMINISTERED])
    one.commit(3, [], [REFUSED], [])
    entries, _ = one.read_log("security", 0, 10, 0)
    assert [entry.number for entry in entries] == [1, 2, 3, 4]
    assert one.load().revision == 3
    two.commit(0, [], [], [])


def test_a_program_killed_in_the_middle_loses_nothing_that_it_answered(
    url: str, open_store: Callable[[str], Store]
) -> None:
    """P1: `kill -9` again and again while it commits. Each revision it spoke of is there, the log has no gap, and
    replaying it gives the tables."""
    for _ in range(3):
        program = subprocess.Popen(
            [sys.executable, "-m", "tests.store.committer", url], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert program.stdout is not None
        answered = [int(program.stdout.readline()) for _ in range(20)]
        program.kill()
        answered += map(int, program.stdout.read().split())
        program.stdout.close()
        assert program.wait() == -9
        store = open_store(url)
        revision = store.load().revision
        assert revision >= answered[-1]
        changes = store.changes_after(0, revision + 1)
        assert [change.revision for change in changes] == list(range(1, revision + 1))
        assert catalogue_in(store) == replayed(changes)
        store.close()


def test_a_log_is_read_page_by_page_or_from_its_end(store: Store) -> None:
    """`after` and `limit` page forward; `last` returns that number of entries from the end, in order."""
    store.commit(0, registrations(20, services=9), [REFUSED] * 5, [ADMINISTERED] * 5)
    logs: tuple[tuple[Log, int], ...] = (("updates", 30), ("security", 5), ("administration", 5))
    for log, count in logs:
        read: list[int] = []
        while page := store.read_log(log, read[-1] if read else 0, 4, 0)[0]:
            assert len(page) <= 4
            read += [entry.number for entry in page]
        assert read == list(range(1, count + 1))
        assert [entry.number for entry in store.read_log(log, 0, 1, 3)[0]] == [count - 2, count - 1, count]


def test_the_update_log_tells_what_happened_to_what(store: Store) -> None:
    """Function 2.1's fields, readable without knowing the change's own form."""
    rows = (Category("web"), Service("n.web"), Listener("n.web", "::1", 7, "up", 2.0, 1), Dependency("web", "web"))
    credential, host, alert = Credential("c", "n.web", "f", 1.0), Host("h1"), Alert("a", "slow", 1.0, "t")
    store.commit(0, changes_of(*rows, credential, host, alert, alert, rows[2], removed=rows[2]), [], [])
    entries = store.read_log("updates", 0, 20, 0)[0]
    told = [(e.subject, e.address, e.port, e.state) for e in entries if isinstance(e, UpdateEntry)]
    assert told == [
        ("web", "", 0, ""),
        ("n.web", "", 0, ""),
        ("n.web", "::1", 7, "removed"),
        ("web web", "", 0, ""),
        ("n.web", "", 0, ""),
        ("h1", "", 0, ""),
        ("a", "", 0, ""),
        ("a", "", 0, ""),
        ("n.web", "::1", 7, "removed"),
    ]


def test_a_log_is_measured_in_octets_and_cut_at_a_number(store: Store) -> None:
    """Octets of UTF-8, by parts; what was cut is not there, and a part begins after a number."""
    wide = Category("web", policy=Policy(probe="http:/" + "x" * 40))
    store.commit(0, changes_of(wide, Alert("a", "slow", 1.0, "\u00fc" * 50)), [REFUSED] * 2, [ADMINISTERED])
    first, both = store.measure("updates", 0, 1), store.measure("updates", 0, 9)
    rest = store.measure("updates", 1, 9)
    assert (first.entries, first.last, first.floor) == (1, 1, 1)
    assert (rest.entries, rest.last, both.entries) == (1, 2, 2)
    assert first.octets + rest.octets == both.octets
    written = [len(msgspec.json.encode(change)) for change in store.changes_after(0, 9)]
    # The other columns with text are the operation, the subject, the address and the state.
    assert sum(written) < both.octets < sum(written) + 60 and rest.octets > written[1] > 100
    assert store.measure("security", 0, 9).entries == 2 and store.measure("administration", 0, 9).octets > 0
    store.trim_to("updates", 1)
    assert store.load().floor == 2
    assert store.measure("updates", 0, 9) == LogPart(1, 2, rest.octets, 2)
    store.trim_to("security", 2)
    assert store.measure("security", 0, 9) == LogPart(0, 0, 0, 0)


def test_trimming_lets_the_oldest_go_and_moves_the_floor(store: Store) -> None:
    """Exactly the numbers to keep stay; the tables stay; a read of trimmed changes raises and has no gap (P4)."""
    changes = registrations(20, services=9)
    store.commit(0, changes, [REFUSED] * 5, [ADMINISTERED] * 2)
    store.trim(12, 3)
    assert store.load().floor == 19
    assert len(store.load().rows) == 30
    assert store.changes_after(18, 100) == changes[18:]
    with pytest.raises(LogTrimmed, match="revision 17"):
        store.changes_after(17, 100)
    floors: dict[Log, int] = {"updates": 19, "security": 3, "administration": 1}
    assert {log: store.read_log(log, 0, 1, 0)[1] for log in floors} == floors
    store.trim(0, 0)
    assert store.load().floor == 31
    assert store.changes_after(30, 10) == []
    with pytest.raises(LogTrimmed):
        store.changes_after(29, 10)
    store.commit(30, changes_of(Category("new"), revision=30), [REFUSED], [])
    assert [entry.number for entry in store.read_log("security", 0, 9, 0)[0]] == [6]
    assert store.load().floor == 31


def test_a_store_that_went_back_in_time_is_noticed(store: Store) -> None:
    """A server ahead of its store (an old backup was restored) gets an error, nothing is committed any longer, and no
    server starts on it."""
    store.commit(0, WORLD, [], [])
    with pytest.raises(StoreWentBack, match="store new-id"):
        store.changes_after(4, 10)
    for read in (lambda: store.changes_after(3, 10), store.load):
        with pytest.raises(StoreWentBack, match="at revision 3, but it has been at revision 4"):
            read()
    with pytest.raises(Conflict):
        store.commit(3, changes_of(Category("new"), revision=3), [], [])
