"""A store that went back in time, and damaged entries of its log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Connection, text

from compass.model.catalogue.digest import digest_of_rows, to_hex
from compass.model.interfaces import Conflict, LogDamaged, LogTrimmed
from compass.model.rows import Category, Host, Row, Service
from compass.store.engine import parse_url
from compass.store.errors import StoreUnusable, StoreWentBack
from compass.store.offline.exclusive import give_new_id, open_exclusive
from compass.store.offline.verify import problems_of, report_of
from compass.store.revision_record import RevisionRecord
from compass.store.store import Store
from tests.store.test_store import LISTENER, WORLD, changes_of

COLUMNS = ("time", "operation", "subject", "address", "port", "state", "previous", "change")


def run(store: Store, statement: str, **values: object) -> None:
    def work(connection: Connection) -> None:
        connection.execute(text(statement), values)

    store._transaction(work, writes=True)


def problems(url: str) -> list[str]:
    with open_exclusive(parse_url(url), alone=False, writes=False) as connection:
        return problems_of(connection, report_of(connection, url))


@pytest.mark.parametrize("column", COLUMNS)
def test_each_column_of_an_entry_is_under_its_checksum(store: Store, url: str, column: str) -> None:
    """W14: `store check` names the entry, and no reader passes it; the entries after it are good."""
    store.commit(0, WORLD, [], [])
    assert problems(url) == []
    value: object = 7 if column in ("time", "port", "previous") else "x"
    if column == "change":
        value = msgspec.json.encode(msgspec.structs.replace(WORLD[1], time=9.0)).decode()
    run(store, f"UPDATE update_log SET {column} = :value WHERE revision = 2", value=value)
    assert any("entry of revision 2 in the update log is damaged" in problem for problem in problems(url))
    with pytest.raises(LogDamaged, match="revision 2"):
        store.changes_after(0, 10)
    assert issubclass(LogDamaged, LogTrimmed)
    assert store.changes_after(2, 10) == WORLD[2:]
    assert store.load().revision == len(WORLD)


def test_entries_of_an_older_program_stay_readable(store: Store, url: str) -> None:
    """P13: they have no checksum."""
    store.commit(0, WORLD, [], [])
    run(store, "UPDATE update_log SET checksum = ''")
    assert store.changes_after(0, 10) == WORLD and problems(url) == []


def test_octets_that_are_no_json_are_damage_also_without_a_checksum(store: Store) -> None:
    """Such octets do not end the reader."""
    store.commit(0, WORLD, [], [])
    run(store, "UPDATE update_log SET checksum = '', change = '{' WHERE revision = 1")
    with pytest.raises(LogDamaged):
        store.changes_after(0, 10)


def test_a_batch_that_must_pass_a_damaged_entry_is_not_written(store: Store) -> None:
    """The server that missed it reads the tables first."""
    store.commit(0, WORLD, [], [])
    run(store, "UPDATE update_log SET state = 'x' WHERE revision = 3")
    with pytest.raises(Conflict):
        store.commit(2, changes_of(Category("new"), revision=2), [], [], lambda missed: pytest.fail("decided"))


def test_a_lost_wal_is_noticed_at_the_start(tmp_path: Path) -> None:
    """W12: the file cannot show that its last changes are missing; the record next to it does. A new id is the way
    on."""
    url, file = f"sqlite:///{tmp_path}/gns.sqlite3", tmp_path / "gns.sqlite3"
    Store.open(url).close()
    before = file.read_bytes()
    store = Store.open(url)
    store.commit(0, WORLD, [], [])
    assert store.changes_after(len(WORLD), 10) == []
    store.close()
    # As after kill -9 and the loss of the -wal: the file is what it was before the commit.
    file.write_bytes(before)
    again = Store.open(url)
    with pytest.raises(StoreWentBack, match=r"is at revision 0, but it has been at revision 3 .*store new-id"):
        again.load()
    again.close()
    with open_exclusive(parse_url(url), alone=True, writes=True) as connection:
        give_new_id(connection)
    newer = Store.open(url)
    assert newer.load().revision == 0 and newer.changes_after(0, 1) == []
    newer.close()


def test_a_store_that_is_empty_all_at_once_is_not_created_again(tmp_path: Path) -> None:
    """Before the first checkpoint everything is in the -wal; without it the file has no tables."""
    url, file = f"sqlite:///{tmp_path}/gns.sqlite3", tmp_path / "gns.sqlite3"
    store = Store.open(url)
    store.commit(0, WORLD, [], [])
    store.changes_after(len(WORLD), 10)
    store.close()
    file.write_bytes(b"")
    with pytest.raises(StoreUnusable, match="held a store at revision 3"):
        Store.open(url)
    (tmp_path / "gns.sqlite3.revision").unlink()
    Store.open(url).close()


def test_a_record_that_cannot_be_read_or_is_not_ahead_stops_nothing(tmp_path: Path) -> None:
    """Damaged, of another store, equal, older, too long; and a directory in its place."""
    record = RevisionRecord(tmp_path / "gns.sqlite3")
    record.check("id", 0)
    record.note("id", 5)
    for store, revision in (("other", 0), ("id", 5), ("id", 6)):
        record.check(store, revision)
    with pytest.raises(StoreWentBack):
        record.check("id", 4)
    path = tmp_path / "gns.sqlite3.revision"
    assert path.stat().st_mode & 0o777 == 0o600
    for data in (b"", b"{", b'{"store": "id"}', b" " * 2000 + path.read_bytes()):
        path.write_bytes(data)
        record.check("id", 0)
    path.unlink()
    path.mkdir()
    record.note("id", 7)
    record.check("id", 0)


def test_a_mark_is_removed_by_a_new_id_only(url: str, open_store: Callable[[str], Store]) -> None:
    """W12: also on PostgreSQL, where no file shows it: a server or hosts held a later revision."""
    store = open_store(url)
    store.commit(0, WORLD, [], [])
    store.mark_lost(9)
    with pytest.raises(StoreWentBack, match="at revision 3, but it has been at revision 9"):
        open_store(url).load()
    run(store, "UPDATE clock SET lost = 0")
    assert open_store(url).load().revision == 3


UNREADABLE = {
    "no JSON": "UPDATE listener SET metadata = '{\"a'",
    "octets": "UPDATE listener SET metadata = X'7BFF'",
    "no text": "UPDATE listener SET metadata = CAST(X'7BFF' AS TEXT)",
    "another type": "UPDATE host SET services = '7'",
    "policy": "UPDATE category SET policy = 'x'",
}


@pytest.mark.parametrize("statement", UNREADABLE.values(), ids=UNREADABLE)
def test_rows_that_cannot_be_read_are_rebuilt_from_the_log(tmp_path: Path, statement: str) -> None:
    """W13: a server that starts loads what was committed; without the log entry it says what to do."""
    file = tmp_path / "gns.db"
    store = Store.open(f"sqlite:///{file}")
    rows = committed(store)
    run(store, statement)
    assert any("they are damaged" in problem for problem in problems(f"sqlite:///{file}"))
    loaded = store.load()
    assert sorted(map(repr, loaded.rows)) == sorted(map(repr, rows))
    assert store.digest().doubted == loaded.revision
    store.close()
    assert problems(f"sqlite:///{file}") == []


@pytest.mark.parametrize("statement", UNREADABLE.values(), ids=UNREADABLE)
def test_rows_that_the_log_does_not_have_are_not_served(tmp_path: Path, statement: str) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'gns.db'}")
    committed(store)
    run(store, "DELETE FROM update_log")
    run(store, statement)
    with pytest.raises(StoreUnusable, match="put a backup back with 'opengnsadmin restore'"):
        store.load()
    store.close()


def committed(store: Store) -> list[Row]:
    """Commit some rows with their digest. Returns them."""
    rows: list[Row] = [Category("web"), Service("north.web"), Host("web1", "", 0, ("north.web",)), LISTENER]
    rows[3] = msgspec.structs.replace(LISTENER, metadata={"a": "b"})
    store.commit(0, changes_of(*rows), [], [], digest=to_hex(digest_of_rows(rows)))
    return rows
