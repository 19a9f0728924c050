"""Backup, restore, copy, check and downgrade: on real files and a real PostgreSQL, next to stores that are in use."""

from __future__ import annotations

import atexit
import shutil
import sqlite3
import stat
import tempfile
from functools import cache
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import create_engine, text

from compass.model.catalogue.digest import digest_of_rows, to_hex
from compass.model.interfaces import StoreState
from compass.model.rows import Alert, Change, Listener, Row
from compass.store.engine import parse_url
from compass.store.errors import StoreInUse, StoreTooNew, StoreUnusable
from compass.store.offline.backup import back_up, downgrade, restore, verify
from compass.store.offline.copy import copy
from compass.store.offline.exclusive import give_new_id, open_exclusive
from compass.store.offline.verify import StoreReport, problems_of, report_of
from compass.store.store import Store
from tests.store.test_engine import HEAD, described, migrations_with_next
from tests.store.workload import Workload, registrations
from tests.support.postgresql import PostgreSQL

pytestmark = pytest.mark.long


def silent(done: int, total: int) -> None:
    """Ignore the progress."""


def filled(url: str, seed: int = 5, requests: int = 120) -> StoreState:
    """A store with every kind of row, with three logs, closed."""
    file = url.removeprefix("sqlite:///")
    if file == url:
        return fill(url, seed, requests)
    made = _made(seed, requests)
    shutil.copy(made / "made.db", file)
    store = Store.open(url)
    loaded = store.load()
    store.close()
    return loaded


@cache
def _made(seed: int, requests: int) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="gns"))
    atexit.register(shutil.rmtree, directory)
    fill(f"sqlite:///{directory}/made.db", seed, requests)
    return directory


def fill(url: str, seed: int, requests: int) -> StoreState:
    """Commit the changes of that number of decided requests."""
    store = Store.open(url)
    revision = 0
    workload = Workload(seed)
    for batch in workload.batches(requests, 20):
        changes = [change for decision in batch for change in decision.changes]
        security = [decision.security for decision in batch if decision.security]
        administration = [decision.administration for decision in batch if decision.administration]
        store.commit(revision, changes, security, administration)
        revision += len(changes)
    loaded = store.load()
    store.correct(revision, to_hex(digest_of_rows(loaded.rows)), False)
    loaded = store.load()
    store.close()
    return loaded


def condition(url: str) -> StoreReport:
    with open_exclusive(parse_url(url), alone=False, writes=False) as connection:
        return report_of(connection, "it")


def problems(url: str) -> list[str]:
    with open_exclusive(parse_url(url), alone=False, writes=False) as connection:
        return problems_of(connection, report_of(connection, "it"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "opengnss.db"


def test_a_backup_is_the_store_of_one_moment_while_a_server_commits(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit between every two pieces of it: none is held up, and none is in the backup, which is whole, checked,
    for its owner only, and one file."""
    monkeypatch.setattr("compass.store.offline.backup.PAGES_AT_ONCE", 4)
    url = f"sqlite:///{file}"
    before = filled(url)
    server = Store.open(url)
    told: list[tuple[int, int]] = []

    def commit(done: int, total: int) -> None:
        told.append((done, total))
        at = before.revision + len(told)
        server.commit(at - 1, [Change(at, 0, 1.0, "alert", Alert(f"failure {at}", "failure", 1.0, "x" * 9000))], [], [])

    made = back_up(parse_url(url), tmp_path / "monday.db", commit)
    assert server.load().revision == before.revision + len(told)
    server.close()
    assert (made.revision, made.digest) == (before.revision, before.digest)
    assert len(told) > 5 and told[-1][0] == told[-1][1] > 0
    assert stat.S_IMODE((tmp_path / "monday.db").stat().st_mode) == 0o600
    assert verify(tmp_path / "monday.db") == made
    assert sorted(path.name for path in tmp_path.iterdir()) == ["monday.db", "opengnss.db"]


def test_a_backup_overwrites_nothing_and_leaves_nothing_when_it_fails(file: Path, tmp_path: Path) -> None:
    """An existing name is refused, and the file stays unchanged. An absent store leaves no partial file."""
    filled(f"sqlite:///{file}")
    taken = tmp_path / "taken.db"
    taken.write_text("dear diary")
    with pytest.raises(StoreInUse, match="exists already and is not overwritten"):
        back_up(parse_url(f"sqlite:///{file}"), taken, silent)
    assert taken.read_text() == "dear diary"
    with pytest.raises(StoreUnusable, match="does not exist"):
        back_up(parse_url(f"sqlite:///{tmp_path}/absent.db"), tmp_path / "new.db", silent)
    with pytest.raises(StoreUnusable, match="No such file or directory"):
        back_up(parse_url(f"sqlite:///{file}"), tmp_path / "nowhere" / "new.db", silent)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["opengnss.db", "taken.db"]


def test_a_store_that_is_not_what_its_last_commit_said_is_not_backed_up(file: Path, tmp_path: Path) -> None:
    """A backup that cannot be trusted is found out when it is made, not when it is needed."""
    filled(f"sqlite:///{file}")
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE listener SET weight = weight + 1")
    with pytest.raises(StoreUnusable, match="a program other than"):
        back_up(parse_url(f"sqlite:///{file}"), tmp_path / "monday.db", silent)
    assert not (tmp_path / "monday.db").exists()


def test_a_restored_store_is_the_backup_with_a_new_id(file: Path, tmp_path: Path) -> None:
    """A restore has the rows, logs and revision of the backup; the old store is copied next to it."""
    url = f"sqlite:///{file}"
    before = filled(url)
    back_up(parse_url(url), tmp_path / "monday.db", silent)
    file.unlink()
    later = filled(url, seed=6)
    restored = restore(parse_url(url), tmp_path / "monday.db", "kept.db", silent)
    assert restored.kept == str(tmp_path / "kept.db")
    store = Store.open(url, create=False)
    loaded = store.load()
    assert (loaded.rows, loaded.topics, loaded.revision) == (before.rows, before.topics, before.revision)
    assert loaded.store not in (before.store, later.store) and loaded.store == restored.condition.store
    store.close()
    assert verify(tmp_path / "kept.db").store == later.store
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.db", "monday.db", "opengnss.db"]
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE((tmp_path / "kept.db").stat().st_mode) == 0o600


def test_a_backup_is_restored_where_there_is_no_store(file: Path, tmp_path: Path) -> None:
    """A restore on a new machine has no old store to copy."""
    filled(f"sqlite:///{file}")
    back_up(parse_url(f"sqlite:///{file}"), tmp_path / "monday.db", silent)
    elsewhere = tmp_path / "new" / "opengnss.db"
    elsewhere.parent.mkdir()
    assert restore(parse_url(f"sqlite:///{elsewhere}"), tmp_path / "monday.db", "kept", silent).kept == ""
    assert problems(f"sqlite:///{elsewhere}") == []
    assert [path.name for path in elsewhere.parent.iterdir()] == ["opengnss.db"]


def test_nothing_is_restored_over_a_store_that_a_server_uses(file: Path, tmp_path: Path) -> None:
    """An idle server is enough: it would go on with what it has in memory."""
    url = f"sqlite:///{file}"
    filled(url)
    back_up(parse_url(url), tmp_path / "monday.db", silent)
    server = Store.open(url)
    before = server.load()
    with pytest.raises(StoreInUse, match="stop every opengnssd that uses it"):
        restore(parse_url(url), tmp_path / "monday.db", "kept.db", silent)
    assert server.load() == before
    server.close()
    assert not (tmp_path / "kept.db").exists()


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "newer", "foreign"])
def test_what_is_no_good_backup_is_not_restored(kind: str, file: Path, tmp_path: Path) -> None:
    """Each unusable file is refused with its reason; the store stays."""
    url, backup = f"sqlite:///{file}", tmp_path / "backup.db"
    before = filled(url)
    if kind == "newer":
        Store.open(f"sqlite:///{backup}", migrations=migrations_with_next(tmp_path)).close()
    elif kind == "foreign":
        with sqlite3.connect(backup) as connection:
            connection.execute("CREATE TABLE recipe (name TEXT)")
    else:
        back_up(parse_url(url), backup, silent)
        whole = backup.read_bytes()
        damaged = {"text": b"remember the milk\n" * 300, "empty": b"", "cut": whole[: len(whole) // 8192 * 4096]}
        backup.write_bytes(damaged[kind])
    with pytest.raises(StoreUnusable) as refused:
        restore(parse_url(url), backup, "kept.db", silent)
    assert isinstance(refused.value, StoreTooNew) == (kind == "newer")
    store = Store.open(url)
    assert store.load() == before
    store.close()


def test_postgresql_is_backed_up_by_its_own_tools_which_are_named(postgresql: PostgreSQL, tmp_path: Path) -> None:
    """The error contains the command lines, without a password."""
    url = postgresql.new_url()
    with pytest.raises(StoreUnusable, match=r"pg_dump --format=custom .*'postgresql://") as told:
        back_up(parse_url(url.replace("postgres@", "postgres:secret@")), tmp_path / "x", silent)
    assert "secret" not in str(told.value) and "store new-id" in str(told.value)


@pytest.mark.parametrize("way", ["there", "back", "new-id"])
def test_a_store_is_copied_from_one_engine_to_the_other(
    way: str, file: Path, postgresql: PostgreSQL, tmp_path: Path
) -> None:
    """Every row and log entry, revisions and the id, odd texts and all; the digest is compared. With a new id it is a
    store of its own, and the source may be in use."""
    here, there = f"sqlite:///{file}", postgresql.new_url()
    source, target = (there, here) if way == "back" else (here, there)
    before = filled(source)
    user = Store.open(source) if way == "new-id" else None
    told: list[tuple[int, int]] = []
    copied = copy(
        parse_url(source),
        parse_url(target),
        new_id=way == "new-id",
        progress=lambda done, total: told.append((done, total)),
    )
    assert copied.condition.digest == before.digest and told[-1][0] == told[-1][1]
    store, first = Store.open(target, create=False), Store.open(source)
    loaded = store.load()
    assert (loaded.revision, loaded.topics, loaded.floor) == (before.revision, before.topics, before.floor)
    assert digest_of_rows(loaded.rows) == digest_of_rows(before.rows)
    assert (loaded.store == before.store) == (way != "new-id")
    assert store.changes_after(0, 10_000) == first.changes_after(0, 10_000)
    for log in ("security", "administration"):
        assert store.read_log(log, 0, 10_000, 0) == first.read_log(log, 0, 10_000, 0)
    for opened_store in (store, first, *([user] if user else [])):
        opened_store.close()
    assert problems(target) == []


def test_a_copy_goes_only_into_an_empty_database_and_from_one_that_rests(
    url: str, tmp_path: Path, postgresql: PostgreSQL
) -> None:
    """A store at the target stays as it is; a source that servers write to would lose what they write later."""
    filled(url)
    target = f"sqlite:///{tmp_path}/other.db"
    other = filled(target, seed=9)
    with pytest.raises(StoreInUse, match="holds a store already"):
        copy(parse_url(url), parse_url(target), new_id=False, progress=silent)
    server = Store.open(url)
    server.load()
    with pytest.raises(StoreInUse, match="stop every opengnssd"):
        copy(parse_url(url), parse_url(postgresql.new_url()), new_id=False, progress=silent)
    server.close()
    again = Store.open(target)
    assert again.load() == other
    again.close()


def test_a_store_with_problems_is_not_copied(url: str, tmp_path: Path) -> None:
    """A damaged source is not copied; the target stays empty."""
    filled(url)
    damage(url, "UPDATE update_log SET revision = 100000 WHERE revision = 7")
    target = tmp_path / "other.db"
    with pytest.raises(StoreUnusable, match="is damaged and was not copied"):
        copy(parse_url(url), parse_url(f"sqlite:///{target}"), new_id=True, progress=silent)
    assert not target.exists() or target.stat().st_size == 0


def damage(url: str, statement: str) -> None:
    engine = create_engine(parse_url(url))
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE listener SET weight = 4711", "a program other than"),
        ("UPDATE clock SET digest_at = 0, digest = ''; UPDATE listener SET weight = 4711", "the table has Listener"),
        ("DELETE FROM update_log WHERE revision = 7", "some are missing"),
        ("DELETE FROM security_log WHERE number = (SELECT max(number) FROM security_log)", "the log of security ends"),
        ("UPDATE service SET revision = 1", "the table has 1"),
    ],
)
def test_a_check_names_what_is_wrong(url: str, statement: str, told: str) -> None:
    """Rows, logs, revisions of topics and digest must fit each other; a sound store has no problems."""
    filled(url)
    assert problems(url) == []
    for one in statement.split("; "):
        damage(url, one)
    found = problems(url)
    assert any(told in problem for problem in found), found


def test_a_check_is_right_about_a_log_that_was_trimmed(url: str) -> None:
    """Trimmed entries are not missing; the digest still covers every row."""
    filled(url)
    store = Store.open(url)
    store.trim(10, 5)
    store.close()
    assert problems(url) == []
    assert condition(url).floor == condition(url).revision - 9
    damage(url, "UPDATE listener SET weight = weight + 1")
    assert problems(url) != []


def test_a_new_id_leaves_everything_else(url: str) -> None:
    """After PostgreSQL's own tools have restored an earlier state; never while a server uses it."""
    before = filled(url)
    server = Store.open(url)
    server.load()
    with pytest.raises(StoreInUse), open_exclusive(parse_url(url), alone=True, writes=True) as connection:
        give_new_id(connection)
    server.close()
    with open_exclusive(parse_url(url), alone=True, writes=True) as connection:
        id = give_new_id(connection)
    store = Store.open(url)
    after = store.load()
    store.close()
    assert after.store == id != before.store
    assert (after.rows, after.revision, after.digest) == (before.rows, before.revision, before.digest)


@pytest.mark.parametrize("target", ["0001", "0004"])
def test_an_upgrade_can_be_taken_back(target: str, url: str, tmp_path: Path) -> None:
    """P13: up and down again is as before, to the last column; and up once more loses nothing."""
    old = tmp_path / "old"
    shutil.copytree(
        Path(__file__).parents[3] / "compass/store/migrations",
        old,
        ignore=lambda _, names: [n for n in names if n == "__pycache__" or (n[:4].isdigit() and n[:4] > target)],
    )
    Store.open(url, migrations=old).close()
    earlier = described(url)
    before = filled(url)
    done = downgrade(parse_url(url), target, "kept.db")
    assert (done.condition.schema, described(url)) == (target, earlier)
    assert bool(done.kept) == url.startswith("sqlite")
    if done.kept:
        assert verify(Path(done.kept)).digest == before.digest
    upgraded = Store.open(url)
    after = upgraded.load()
    upgraded.close()
    assert after.revision == before.revision
    if target != "0001":
        assert after.rows == before.rows
    else:
        # The first schema has no place for draining next to another state.
        assert digest_of_rows(undrained(before)) == digest_of_rows(undrained(after))


def undrained(loaded: StoreState) -> list[Row]:
    return [msgspec.structs.replace(row, draining=False) if isinstance(row, Listener) else row for row in loaded.rows]


def test_a_downgrade_to_nowhere_is_refused(url: str) -> None:
    """The versions that can be reached are named; nothing is changed."""
    filled(url, requests=20)
    before = described(url)
    for version in (HEAD, "0000", "base", "9999"):
        with pytest.raises(StoreUnusable, match="it can go down to 0001, 0002, 0003, 0004"):
            downgrade(parse_url(url), version, "kept.db")
    assert described(url) == before
    server = Store.open(url)
    server.load()
    with pytest.raises(StoreInUse):
        downgrade(parse_url(url), "0002", "kept.db")
    server.close()


def test_a_newer_store_is_used_when_it_says_that_this_program_can(url: str, tmp_path: Path) -> None:
    """docs/howto/upgrade.md: an additive migration says `readable_from`; the program before it goes on, starts again,
    and both commit. Without that word, or with a younger one, it is refused by name and number."""
    newer = migrations_with_next(tmp_path, readable_from=HEAD)
    first = Store.open(url)
    second = Store.open(url, migrations=newer)
    assert (first.newer, second.newer) == ("", "")
    first.commit(0, registrations(3, services=2), [], [])
    second.commit(6, registrations(1, revision=6, services=2), [], [])
    again = Store.open(url)
    assert again.newer == "9999"
    again.commit(7, registrations(1, revision=7, services=2), [], [])
    assert first.load().rows == second.load().rows == again.load().rows
    for store in (first, second, again):
        store.close()


def test_a_newer_store_that_needs_a_newer_program_is_refused(url: str, tmp_path: Path) -> None:
    """The error names both schemas."""
    Store.open(url, migrations=migrations_with_next(tmp_path, readable_from="9000")).close()
    with pytest.raises(
        StoreTooNew, match=f"schema 9999, this program knows {HEAD}.*the oldest that can use it .* 9000"
    ):
        Store.open(url)
