"""Opening a store: where it can be, where it cannot, and what each refusal says."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from compass.model.interfaces import StoreUnavailable
from compass.model.rows import Listener
from compass.store import schema
from compass.store.engine import parse_url
from compass.store.errors import StoreTooNew, StoreUnusable
from compass.store.migrate import MIGRATIONS, head_of
from compass.store.store import Store
from tests.store.workload import registrations

ROOT = Path(__file__).parents[2]
HEAD = head_of()
NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"
{readable}

def downgrade() -> None:
    op.drop_column("host", "rack")



def upgrade() -> None:
    op.add_column("host", sa.Column("rack", sa.Text, nullable=False, server_default=""))
"""


def described(url: str) -> dict[str, object]:
    """Everything that the database says of its tables, but for the order of constraints."""
    engine = create_engine(parse_url(url))
    inspector = inspect(engine)
    told: dict[str, object] = {}
    for table in sorted(set(inspector.get_table_names()) - {schema.VERSION_TABLE}):
        told[table] = {
            "columns": [{**column, "type": str(column["type"])} for column in inspector.get_columns(table)],
            "key": inspector.get_pk_constraint(table),
            "foreign": sorted(inspector.get_foreign_keys(table), key=str),
            "checks": sorted(inspector.get_check_constraints(table), key=str),
            "indexes": inspector.get_indexes(table),
        }
    engine.dispose()
    return told


def migrations_with_next(directory: Path, readable_from: str = "") -> Path:
    """The migrations of a program one step newer than this, which may say how old a program can be to work with it."""
    copy = directory / "migrations"
    shutil.copytree(MIGRATIONS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    readable = f'readable_from = "{readable_from}"' if readable_from else ""
    (copy / "versions" / "9999_next.py").write_text(NEXT.format(head=HEAD, readable=readable))
    return copy


def test_the_migrations_make_the_tables_that_the_program_declares(
    url: str, open_store: Callable[[str], Store], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Upgraded equals fresh: the steps from nothing on give what the schema says today, to the last constraint."""
    open_store(url)
    declared = f"sqlite:///{tmp_path}/declared.db"
    if not url.startswith("sqlite"):
        declared = request.getfixturevalue("postgresql").new_url()
    engine = create_engine(parse_url(declared))
    schema.metadata.create_all(engine)
    engine.dispose()
    assert described(url) == described(declared)
    assert len(described(url)) == 15


def test_an_older_store_is_upgraded_with_everything_in_it(url: str, tmp_path: Path) -> None:
    """An upgrade on SQLite first makes a private copy of the same content; on PostgreSQL this is left to the
    operator."""
    store = Store.open(url)
    assert store.backup is None
    store.commit(0, registrations(5, services=2), [], [])
    before = store.load()
    store.close()
    upgraded = Store.open(url, migrations=migrations_with_next(tmp_path))
    after = upgraded.load()
    assert (after.store, after.revision, after.topics) == (before.store, before.revision, before.topics)
    assert after.rows == before.rows
    upgraded.close()
    engine = create_engine(parse_url(url))
    assert "rack" in {column["name"] for column in inspect(engine).get_columns("host")}
    engine.dispose()
    if url.startswith("sqlite"):
        assert upgraded.backup == tmp_path / f"opengnss.db.{HEAD}-before-9999"
        assert stat.S_IMODE(upgraded.backup.stat().st_mode) == 0o600
        copy = Store.open(f"sqlite:///{upgraded.backup}", create=False)
        assert copy.load() == before
        copy.close()
    else:
        assert upgraded.backup is None


def test_what_drained_before_the_column_was_there_drains_after_it(tmp_path: Path) -> None:
    """P13: the first schema knew draining as a state only."""
    first = tmp_path / "first"
    shutil.copytree(MIGRATIONS, first, ignore=shutil.ignore_patterns("__pycache__", "000[2-9]*"))
    url = f"sqlite:///{tmp_path}/opengnss.db"
    Store.open(url, migrations=first).close()
    engine = create_engine(parse_url(url))
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO category VALUES ('c', NULL, '{}', 1)")
        connection.exec_driver_sql("INSERT INTO service VALUES ('s.c', 'c', 1)")
        for port, state in ((1, "up"), (2, "draining"), (3, "down")):
            values = ("s.c", "10.0.0.1", port, state, 1.0, 1, "h", 1, "{}", "")
            connection.exec_driver_sql(f"INSERT INTO listener VALUES ({', '.join('?' * 10)})", values)
    engine.dispose()
    store = Store.open(url)
    rows = [row for row in store.load().rows if isinstance(row, Listener)]
    assert sorted((row.port, row.state, row.draining) for row in rows) == [
        (1, "up", False),
        (2, "draining", True),
        (3, "down", False),
    ]
    store.close()


def test_a_store_of_a_newer_program_is_refused_by_name_and_number(url: str, tmp_path: Path) -> None:
    """And left as it is: the newer program opens it again."""
    newer = migrations_with_next(tmp_path)
    Store.open(url, migrations=newer).close()
    with pytest.raises(StoreTooNew, match=f"has schema 9999, this program knows {HEAD}"):
        Store.open(url)
    Store.open(url, migrations=newer).close()


def test_a_database_of_another_program_is_left_alone(url: str) -> None:
    """Tables that are not ours are never mixed with ours."""
    engine = create_engine(parse_url(url))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE recipe (name TEXT)"))
    with pytest.raises(StoreUnusable, match=r"another program \(recipe\)"):
        Store.open(url)
    assert inspect(engine).get_table_names() == ["recipe"]
    engine.dispose()


def test_an_absent_store_is_created_only_when_asked(url: str, tmp_path: Path) -> None:
    """Tools that look at a store do not make one by a slip of the pen."""
    with pytest.raises(StoreUnusable, match=r"does not exist|is empty"):
        Store.open(url, create=False)
    assert not (tmp_path / "opengnss.db").exists()


def test_the_files_are_for_the_owner_only(tmp_path: Path) -> None:
    """A store contains digests of credentials, so only its owner can read it, for any umask; a lax file is
    tightened."""
    file = tmp_path / "opengnss.db"
    before = os.umask(0)
    try:
        store = Store.open(f"sqlite:///{file}")
        store.commit(0, registrations(1), [], [])
        assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()} == {0o600}
        assert len(list(tmp_path.iterdir())) == 3
    finally:
        os.umask(before)
    store.close()
    file.chmod(0o644)
    Store.open(f"sqlite:///{file}").close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_several_open_a_new_file_at_once(tmp_path: Path) -> None:
    """Several servers may create a store at once, like workers: each waits for the creator of the tables, and none
    fails."""
    for number in range(20):
        url, ready = f"sqlite:///{tmp_path}/{number}.sqlite3", threading.Barrier(4)

        def opened(_: int, url: str = url, ready: threading.Barrier = ready) -> str:
            ready.wait()
            store = Store.open(url)
            store.close()
            return store.load().store

        with ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(opened, range(4)))) == 1


def test_a_sqlite_commit_is_on_disk(tmp_path: Path) -> None:
    """P1 rests on these settings: write-ahead log, and a sync of it at each commit."""
    store = Store.open(f"sqlite:///{tmp_path}/opengnss.db")
    told = store._transaction(
        lambda connection: [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ],
        writes=False,
    )
    assert told == ["wal", 2, 1, 5000]
    store.close()


def test_a_store_in_memory_is_a_store(open_store: Callable[[str], Store]) -> None:
    """Simulations use the real SQL without a file."""
    store = open_store("sqlite://")
    store.commit(0, registrations(3), [], [])
    assert store.load().revision == 104


@pytest.mark.parametrize("url", ["mysql://root@localhost/x", "not a url", "sqlite", "postgresql+asyncpg://x/y"])
def test_a_url_of_something_else_is_refused_with_an_example(url: str) -> None:
    """SQLite and PostgreSQL, nothing else."""
    with pytest.raises(StoreUnusable, match="sqlite:///path/to/file or postgresql://"):
        Store.open(url)


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    """A file that is not a database is refused and not changed: it may be the only copy of other data."""
    file = tmp_path / "notes.txt"
    file.write_text("remember the milk\n" * 100)
    with pytest.raises(StoreUnusable, match=re.escape(f"{file}: file is not a database; the file is not a SQLite")):
        Store.open(f"sqlite:///{file}")
    assert file.read_text() == "remember the milk\n" * 100


def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    """The text describes the store as damaged, not as unavailable."""
    file = tmp_path / "opengnss.db"
    store = Store.open(f"sqlite:///{file}")
    store.commit(0, registrations(2000), [], [])
    store.close()
    damaged = bytearray(file.read_bytes())
    damaged[4096:] = b"\xa5" * (len(damaged) - 4096)
    file.write_bytes(damaged)
    with pytest.raises(StoreUnusable, match="restore a backup"):
        Store.open(f"sqlite:///{file}").load()


def test_a_directory_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    """A common slip in a configuration."""
    with pytest.raises(StoreUnusable, match="is a directory; name a file in it"):
        Store.open(f"sqlite:///{tmp_path}")


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """Made by hand or by the package, with the right owner: not by us."""
    with pytest.raises(StoreUnusable, match=f"no directory {tmp_path}/absent; create it"):
        Store.open(f"sqlite:///{tmp_path}/absent/opengnss.db")


@pytest.mark.parametrize("locked", ["directory", "file"])
def test_a_place_that_this_user_cannot_write_is_named(locked: str) -> None:
    """Tried as a user without privileges, because root can write everywhere."""
    program = f"""
import os, pathlib, tempfile
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
place = pathlib.Path(tempfile.mkdtemp())
file = place / "opengnss.db"
file.touch(mode=0o600)
({"place" if locked == "directory" else "file"}).chmod(0o500)
from compass.store.errors import StoreUnusable
from compass.store.store import Store
try:
    Store.open(f"sqlite:///{{file}}")
except StoreUnusable as error:
    print(str(error).replace(str(place), ""))
place.chmod(0o700)
file.unlink()
place.rmdir()
"""
    told = subprocess.run([sys.executable, "-c", _imports_first(program)], text=True, capture_output=True, cwd=ROOT)
    wanted = {"directory": "this user cannot write the directory", "file": "this user cannot read and write it"}
    assert wanted[locked] in told.stdout, told.stderr


def _imports_first(program: str) -> str:
    """Import as the user who can read this checkout, then give the privileges up."""
    return f"import compass.store.store\n{program}"


def test_a_locked_database_is_told_from_a_broken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store that another program holds is unavailable for now, not unusable."""
    monkeypatch.setattr("compass.store.engine.BUSY_SECONDS", 0.05)
    file = tmp_path / "opengnss.db"
    store = Store.open(f"sqlite:///{file}")
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match=r"locked; another process has held it") as raised:
        store.commit(0, registrations(1), [], [])
    assert not isinstance(raised.value, StoreUnusable)
    assert store.load().revision == 0
    holder.close()
    store.commit(0, registrations(1), [], [])
    store.close()
