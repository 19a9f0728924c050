"""Two real PostgreSQL servers, a primary and its synchronous standby, that change places as after a real failure.

What Patroni and its like decide is done here by hand, with PostgreSQL's own programs: initdb, pg_basebackup, pg_rewind.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg

from tests.e2e.deployment import free_port, new_address
from tests.e2e.processes import eventually
from tests.support.postgresql import _programs, _reachable_by_all

SEGMENT_MB = 1
"""Size of a segment of the log: a test writes a few hundred kilobytes."""


class Node:
    """Server of the pair, on an address of its own."""

    def __init__(self, name: str, directory: Path, programs: Path, as_user: dict[str, Any]) -> None:
        self.name = name
        self.address = new_address()
        self.port = free_port(self.address)
        self.data = directory / name
        self._log = directory / f"{name}.log"
        self._directory, self._programs, self._as = directory, programs, as_user
        self._server: subprocess.Popen[Any] | None = None

    @property
    def runs(self) -> bool:
        """True if the server was started and not ended."""
        return self._server is not None

    @property
    def where(self) -> str:
        """Connection string for libpq."""
        return f"host={self.address} port={self.port} user=postgres"

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs."""
        done = subprocess.run([self._programs / program, *arguments], capture_output=True, text=True, **self._as)
        assert done.returncode == 0, f"{program}: {done.stderr}"

    def create(self) -> None:
        """An empty cluster in which anybody on the loopback may do anything."""
        small = ("--encoding=UTF8", "--no-sync", f"--wal-segsize={SEGMENT_MB}")
        self.run("initdb", "-D", str(self.data), "-U", "postgres", "--auth=trust", *small)
        with (self.data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 127.0.0.0/8 trust\nhost replication all 127.0.0.0/8 trust\n")
        with (self.data / "postgresql.conf").open("a") as settings:
            # What pg_rewind reads must not be recycled by the recovery that it begins with.
            # A standby that has lost its primary sleeps for this time before it notices the promotion.
            settings.write("shared_buffers = 32MB\nwal_log_hints = on\nwal_keep_size = 64MB\n")
            settings.write("wal_retrieve_retry_interval = 500ms\n")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = {
            "listen_addresses": self.address,
            "port": str(self.port),
            "unix_socket_directories": "",
            "cluster_name": self.name,
        }
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        with self._log.open("ab") as log:
            command = [str(self._programs / "postgres"), "-D", str(self.data), *arguments]
            self._server = subprocess.Popen(command, stdout=log, stderr=log, **self._as)
        eventually(self._answers, f"PostgreSQL {self.name} answers")

    def _answers(self) -> bool:
        assert self._server is not None and self._server.poll() is None, self._log.read_text()
        with contextlib.suppress(psycopg.OperationalError):
            return bool(self.ask("SELECT 1"))
        return False

    def kill(self) -> None:
        """SIGKILL to every one of its processes."""
        assert self._server is not None
        pid = self._server.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in (pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        self._server.wait()
        self._server = None

    def stop(self) -> None:
        """End it at once; it may not run."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait()
            self._server = None

    def ask(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement outside of any transaction, as the superuser."""
        with psycopg.connect(f"{self.where} dbname={database} connect_timeout=5", autocommit=True) as session:
            cursor = session.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def confirmed_by(self, standby: str) -> None:
        """Have each commit wait for that standby from now on; "" for none."""
        self.ask(f"ALTER SYSTEM SET synchronous_standby_names = '{standby}'")
        self.ask("SELECT pg_reload_conf()")

    def follow(self, primary: Node) -> None:
        """Be its standby from the next start on."""
        (self.data / "standby.signal").touch()
        with (self.data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = '{primary.where} application_name={self.name}'\n")


class Pair:
    """A primary whose commits wait for its standby."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pair"))
        programs = _programs()
        as_user: dict[str, Any] = {"cwd": self.directory, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}}
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root.
            nobody = pwd.getpwnam("nobody")
            os.chown(self.directory, nobody.pw_uid, nobody.pw_gid)
            as_user.update(user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=())
            if not _reachable_by_all(programs):
                shutil.copytree(programs.parent, self.directory / "installed", symlinks=True)
                programs = self.directory / "installed" / "bin"
        one, other = (Node(name, self.directory, programs, as_user) for name in ("one", "other"))
        self.primary, self.standby = one, other
        self._hosts = "&".join(f"host={node.address}:{node.port}" for node in (one, other))
        self._databases = 0
        one.create()
        one.start()
        other.run("pg_basebackup", "-D", str(other.data), "-d", one.where, "-c", "fast", "-X", "stream", "--no-sync")
        self._attach()

    def _attach(self) -> None:
        """The standby follows, and from then on no commit is answered that it does not have."""
        self.standby.follow(self.primary)
        self.standby.start()
        self.primary.confirmed_by(self.standby.name)
        eventually(self.in_step, "the standby is synchronous")

    def in_step(self) -> bool:
        """Return whether the primary replicates to the standby synchronously."""
        return ("sync",) in self.primary.ask("SELECT sync_state FROM pg_stat_replication")

    def new_database(self) -> tuple[str, str]:
        """The name of an empty database, and the URL that finds it at whichever of the two can be written."""
        self._databases += 1
        name = f"gns{self._databases}"
        self.primary.ask(f"CREATE DATABASE {name}")
        return name, f"postgresql://postgres@/{name}?{self._hosts}&target_session_attrs=read-write"

    def promote(self) -> None:
        """Promote the standby, without a standby of its own; the old primary must be dead."""
        self.primary, self.standby = self.standby, self.primary
        self.primary.confirmed_by("")
        self.primary.ask("SELECT pg_promote(wait => false)")

    def repair(self) -> None:
        """The dead one forgets what the other never had, and is the synchronous standby."""
        self.standby.run(
            "pg_rewind", "-D", str(self.standby.data), f"--source-server={self.primary.where}", "--no-sync"
        )
        self._attach()

    def remove(self) -> None:
        """Stop both and leave nothing behind."""
        for node in (self.primary, self.standby):
            node.stop()
        shutil.rmtree(self.directory)
