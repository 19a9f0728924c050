"""`backup`, `restore`, `store` and `digest` as a person runs them; what they do is tested in tests/store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compass.model.catalogue.digest import digest_of_rows, to_hex
from compass.store.migrate import head_of
from compass.store.store import Store
from tests.admin.conftest import Program
from tests.store.workload import registrations
from tests.support.fake_server import LittleServer


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store of a hundred services, at rest."""
    url = f"sqlite:///{tmp_path}/gns.sqlite3"
    opened = Store.open(url)
    changes = registrations(9)
    opened.commit(0, changes, [], [])
    loaded = opened.load()
    opened.correct(loaded.revision, to_hex(digest_of_rows(loaded.rows)), False)
    opened.close()
    return url


def test_a_backup_is_made_checked_and_restored(program: Program, store: str, tmp_path: Path) -> None:
    """An administrator can back up, lose and restore the store, and the output names the next step."""
    monday = tmp_path / "monday.sqlite3"
    said = program.done("backup", str(monday), "--store", store)
    assert f"Wrote {monday}" in said and "at revision 110; checked" in said
    before = monday.read_bytes()
    for what in ("check", "show"):
        assert str(monday) in program.done("store", what, "--store", f"sqlite:///{monday}")
    # A backup is read as it is: no file appears next to it.
    assert monday.read_bytes() == before and sorted(tmp_path.glob("monday*")) == [monday]
    again = program.run("backup", str(monday), "--store", store)
    assert again.exit_code == 5 and "is not overwritten" in again.stderr
    asked = program.run("restore", str(monday), "--store", store)
    assert asked.exit_code == 1 and "use --yes" in asked.stderr
    restored = json.loads(program.done("--json", "restore", str(monday), "--store", store, "--yes"))
    assert restored["type"] == "restored" and Path(restored["kept"]).exists()
    assert restored["condition"]["revision"] == 110
    program.interactive = True
    told = program.run("restore", str(monday), "--store", store, stdin="n\n")
    assert told.exit_code == 1 and "nothing was changed" in told.stderr
    told = program.run("restore", str(monday), "--store", store, stdin="y\n")
    assert told.exit_code == 0 or "exists already" in told.stderr


def test_the_store_is_found_by_the_servers_configuration(program: Program, store: str, tmp_path: Path) -> None:
    """A relative path is relative to the configuration file, as in the server."""
    config = tmp_path / "opengnssd.toml"
    config.write_text('[server]\nstore = "sqlite:///gns.sqlite3"\n')
    shown_store = json.loads(program.done("--json", "store", "show", "--server-config", str(config)))
    assert shown_store["revision"] == 110 and shown_store["rows"]["listener"] == 9
    assert "schema" in program.done("store", "show", "--server-config", str(config))
    both = program.run("store", "show", "--server-config", str(config), "--store", store)
    assert both.exit_code == 2
    config.write_text("[server]\n")
    assert program.run("store", "show", "--server-config", str(config)).exit_code == 1
    absent = program.run("store", "show", "--server-config", str(tmp_path / "absent.toml"))
    assert absent.exit_code == 1 and "--store URL" in absent.stderr


def test_a_store_in_use_and_a_damaged_one_have_statuses_of_their_own(
    program: Program, store: str, tmp_path: Path
) -> None:
    """5: stop the servers first. 1: look at it."""
    server = Store.open(store)
    server.load()
    busy = program.run("--json", "store", "new-id", "--store", store, "--yes")
    assert busy.exit_code == 5 and json.loads(busy.stderr)["kind"] == "in-use"
    assert program.run("store", "copy", store, f"sqlite:///{tmp_path}/copy.db").exit_code == 5
    copied = program.done("store", "copy", store, f"sqlite:///{tmp_path}/copy.db", "--new-id")
    assert "the same as in" in copied
    server.close()
    moved = program.done("store", "copy", store, f"sqlite:///{tmp_path}/moved.db")
    assert "never use FROM again" in moved
    assert "now has the id" in program.done("store", "new-id", "--store", store, "--yes")
    broken = Store.open(store)
    broken._transaction(lambda connection: connection.exec_driver_sql("DELETE FROM listener"), writes=True)
    broken.close()
    told = program.run("--json", "store", "check", "--store", store)
    assert told.exit_code == 1 and json.loads(told.stdout)["problems"]
    none = program.run("--json", "store", "check", "--store", "mysql://x")
    assert none.exit_code == 1 and json.loads(none.stderr)["kind"] == "unusable"


def by_hand(store: str, statement: str) -> None:
    opened = Store.open(store)
    opened._transaction(lambda connection: connection.exec_driver_sql(statement), writes=True)
    opened.close()


def test_damaged_rows_are_repaired_from_the_log_or_an_administrator_decides(program: Program, store: str) -> None:
    """W13: nothing is accepted without a command."""
    assert "needs no repair" in program.done("store", "repair", "--store", store, "--yes")
    by_hand(store, "UPDATE listener SET weight = 77 WHERE port % 2 = 0")
    checked = program.run("store", "check", "--store", store)
    assert checked.exit_code == 1 and "store repair" in checked.stdout
    assert "from the update log" in program.done("store", "repair", "--store", store, "--yes")
    assert "is consistent" in program.done("store", "check", "--store", store)
    by_hand(store, "UPDATE listener SET weight = 77")
    by_hand(store, "DELETE FROM update_log")
    undecided = program.run("store", "repair", "--store", store, "--yes")
    assert undecided.exit_code == 1 and "nothing was changed" in undecided.stderr and "--accept" in undecided.stderr
    assert program.run("store", "check", "--store", store).exit_code == 1
    assert "as they are" in program.done("store", "repair", "--accept", "--store", store, "--yes")
    assert "is consistent" in program.done("store", "check", "--store", store)


def test_a_downgrade_says_where_it_can_go(program: Program, store: str) -> None:
    """And keeps a copy of the file."""
    wrong = program.run("store", "downgrade", "7777", "--store", store, "--yes")
    assert wrong.exit_code == 1 and "it can go down to 0001" in wrong.stderr
    said = program.done("store", "downgrade", "0003", "--store", store, "--yes")
    assert "now has schema 0003" in said and "before-downgrade" in said
    assert "unknown: another schema" in program.done("store", "show", "--store", store)
    Store.open(store).close()
    assert head_of() in program.done("store", "show", "--store", store)


def test_postgresql_is_answered_with_its_own_commands(program: Program, tmp_path: Path) -> None:
    """The error has the commands of PostgreSQL to run instead."""
    told = program.run("backup", str(tmp_path / "x"), "--store", "postgresql://gns@db1/gns")
    assert told.exit_code == 1
    assert "pg_dump --format=custom --file=FILE 'postgresql://gns@db1/gns'" in told.stderr


def test_servers_are_compared_by_digest(program: Program, server: LittleServer, certificates: Path) -> None:
    """Status 0 when all are equal, 1 when one differs, 7 when one cannot be asked."""
    at = certificates
    other = LittleServer(at / "server.crt", at / "server.key", at / "authority.crt")
    options = [*program.settings, f"--server=127.0.0.1:{other.port}"]
    equal = json.loads(program.done("--json", "digest", options=options))
    assert (equal["equal"], equal["complete"], len(equal["servers"])) == (True, True, 2)
    assert equal["servers"][0]["answer"]["digest"] == "0" * 64
    program.done("category", "add", "web")
    differs = program.run("digest", options=options)
    assert differs.exit_code == 1 and "2 of 2 servers: different" in differs.stderr
    other.stop()
    alone = program.run("digest", options=options)
    assert alone.exit_code == 7 and "1 of 2 servers: not all answered" in alone.stderr
    assert json.loads(program.done("--json", "digest"))["equal"] is True
