"""Servers of two schema versions side by side, as real processes, by the rule of docs/howto/upgrade.md (P13).

`test_the_next_version` makes the newer program: a copy of this one whose schema has one more column, with a migration.
`test_the_version_before_digests` checks the older one out of the history, from before there were digests; a clone
without that history skips the test.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compass.admin.shell.connection import AdminSession, IdentityFiles, Server
from compass.model.catalogue.digest import digest_of_rows, to_hex
from compass.model.replies import CatalogueDigest, Done, Registered, Rows
from compass.model.requests import Apply, Digest, Fetch, Register
from compass.model.rows import Category, Service
from compass.store.migrate import head_of
from compass.store.store import Store
from tests.e2e.processes import eventually
from tests.store.test_engine import HEAD, NEXT
from tests.support.installation import PATIENCE_SECONDS, ROOT, Daemon, Installation, free_port
from tests.support.postgresql import PostgreSQL

pytestmark = pytest.mark.long

BEFORE_DIGESTS = "2289a74d0ee5f221efb56b6930970116f2f856ad"
"""A commit of the program with schema 0002, which knows no rule for side by side."""
NEWER = "9999"


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    server = PostgreSQL()
    yield server
    server.remove()


class Pair:
    """Servers over one store, each of its own program."""

    def __init__(self, installation: Installation, url: str) -> None:
        self.installation = installation
        self.url = url
        self.ports: dict[str, int] = {}

    def start(self, name: str, code: Path) -> Daemon:
        """Start opengnssd from a tree of code, without waiting for it."""
        port = self.ports.setdefault(name, free_port())
        config = self.installation.server_config(store=self.url, listen=[f"127.0.0.1:{port}"], name=name)
        own = config.rename(config.with_name(f"{name}.toml"))
        program = "import sys; from compass.daemons.main import server; server()"
        command = [sys.executable, "-c", program, "--config", str(own)]
        return self.installation.start(command, PYTHONPATH=str(code))

    def link(self, name: str) -> AdminSession:
        directory = self.installation.directory
        files = IdentityFiles(directory / "root.crt", directory / "root.key", directory / "authority.crt")
        return AdminSession.connect([Server("127.0.0.1", self.ports[name])], files, PATIENCE_SECONDS)

    def register(self, name: str, *ports: int) -> int:
        """Register listeners through one of the servers. Returns the last revision."""
        revision = 0
        with self.link(name) as link:
            for port in ports:
                reply = link.ask(Register("portal.web", "", "192.0.2.7", port, 0))
                assert isinstance(reply, Registered), reply
                revision = reply.revision
        return revision

    def listeners(self, name: str) -> list[int]:
        with self.link(name) as link:
            reply = link.ask(Fetch("listener"))
        assert isinstance(reply, Rows)
        return sorted(row.port for row in reply.rows if hasattr(row, "port"))


def next_version(directory: Path) -> Path:
    """Return a tree of this program with one more column and its migration, with which this program still works."""
    code = directory / "next"
    shutil.copytree(ROOT / "compass", code / "compass", ignore=shutil.ignore_patterns("__pycache__"))
    migration = NEXT.format(head=HEAD, readable=f'readable_from = "{HEAD}"')
    (code / "compass/store/migrations/versions/9999_next.py").write_text(migration)
    schema = code / "compass/store/schema.py"
    text = schema.read_text()
    column = '    Column("barred", Boolean, nullable=False),\n'
    assert text.count(column) == 1
    rack = '    Column("rack", Text, nullable=False, server_default=""),\n'
    schema.write_text(text.replace(column, column + rack))
    return code


def check_side_by_side(pair: Pair, old: str, new: str) -> None:
    """Check that both accept requests, see each other's commits, and have all of them in one order."""
    with pair.link(old) as link:
        assert isinstance(link.ask(Apply((Category("web"), Service("portal.web")))), Done)
    for turn in range(3):
        pair.register(old, *range(1000 + 10 * turn, 1005 + 10 * turn))
        pair.register(new, *range(2000 + 10 * turn, 2005 + 10 * turn))
    wanted = sorted(base + 10 * turn + n for base in (1000, 2000) for turn in range(3) for n in range(5))
    for name in (old, new):
        eventually(lambda name=name: pair.listeners(name) == wanted, f"all of it at {name}")  # type: ignore[misc]


def digests(pair: Pair, *names: str) -> set[str]:
    """Return the digests of all servers, once they are at the same revision."""

    def told() -> set[str]:
        replies: list[Any] = []
        for name in names:
            with pair.link(name) as link:
                replies.append(link.ask(Digest()))
        assert all(isinstance(reply, CatalogueDigest) for reply in replies)
        return {reply.digest for reply in replies} if len({reply.revision for reply in replies}) == 1 else set()

    return eventually(told, "both at one revision")


def in_store(url: str) -> tuple[str, str]:
    """Return the digest of the rows, and the one recorded in the store."""
    store = Store.open(url, create=False)
    loaded = store.load()
    store.close()
    return to_hex(digest_of_rows(loaded.rows)), loaded.digest


def test_the_next_version_runs_beside_this_one(
    installation: Installation, postgresql: PostgreSQL, tmp_path: Path
) -> None:
    """The newer program upgrades the store while this one runs; both continue, this one can restart, and all digests
    are equal."""
    url = postgresql.new_url()
    pair = Pair(installation, url)
    old = pair.start("gns-old", ROOT)
    old.wait_for("listens on")
    new = pair.start("gns-new", next_version(tmp_path))
    new.wait_for("listens on")
    check_side_by_side(pair, "gns-old", "gns-new")
    assert old.end() == 0
    old = pair.start("gns-old", ROOT)
    old.wait_for(f"the store has the newer schema {NEWER}")
    old.wait_for("listens on")
    pair.register("gns-old", 3000)
    eventually(lambda: 3000 in pair.listeners("gns-new"), "the change of the other one")
    assert len(digests(pair, "gns-old", "gns-new")) == 1
    assert (old.end(), new.end()) == (0, 0)
    assert len(set(in_store(url))) == 1
    assert "Traceback" not in old.log + new.log


def test_the_version_before_digests_runs_beside_this_one(installation: Installation, tmp_path: Path) -> None:
    """A running server without digests continues after this program has upgraded the store; restarted it refuses by
    schema number, because it knows no other rule."""
    code = tmp_path / "before"
    code.mkdir()
    archive = ["git", "-C", str(ROOT), "archive", BEFORE_DIGESTS, "compass"]
    packed = subprocess.run(archive, capture_output=True) if shutil.which("git") else None
    if packed is None or packed.returncode:
        pytest.skip("the history has no commit from before digests here (a clone of its end only)")
    subprocess.run(["tar", "-x", "-C", str(code)], input=packed.stdout, check=True)
    url = f"sqlite:///{tmp_path}/shared.sqlite3"
    pair = Pair(installation, url)
    old = pair.start("gns-old", code)
    old.wait_for("listens on")
    new = pair.start("gns-new", ROOT)
    new.wait_for("listens on")
    check_side_by_side(pair, "gns-old", "gns-new")
    pair.register("gns-old", 3000)
    eventually(lambda: 3000 in pair.listeners("gns-new"), "the change of the other one")
    assert old.end() == 0
    refused = pair.start("gns-old", code)
    refused.wait_for(f"has schema {head_of()}, this program knows 0002") if refused.process.poll() is None else None
    assert refused.status() == 1
    assert f"has schema {head_of()}, this program knows 0002" in refused.log
    pair.register("gns-new", 3001)
    assert new.end() == 0
    assert len(set(in_store(url))) == 1
