"""Several worker processes behind one port: they serve as one, are supervised, and leave no process behind."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.error import CannotListenError

from compass.admin.shell.connection import AdminSession, ConnectionFailed
from compass.daemons.net.reuseport import PortReservation
from compass.daemons.process import start
from compass.daemons.workers.supervisor import (
    RESTART_SECONDS_MAX,
    RESTART_SECONDS_MIN,
    STABLE_SECONDS,
    pause_before_next,
)
from compass.model.replies import Refusal, Rows, ServerStatus
from compass.model.requests import Apply, Fetch, Status
from compass.model.rows import Category
from tests.e2e.processes import eventually
from tests.support.installation import PATIENCE_SECONDS, ROOT, Daemon, Installation, free_port

SERVE = "listens on 127.0.0.1:[0-9]+ with 2 workers"
SERVER = "from compass.daemons.main import server; server()"
TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-ny", str(ROOT / "opengnssd.tac")]


def workers_of(daemon: Daemon) -> list[int]:
    """Return the process ids of the workers."""
    pid = daemon.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def runs(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def serving(link: AdminSession) -> str:
    """Return the name of the worker at the other end."""
    status = link.ask(Status())
    assert isinstance(status, ServerStatus)
    return status.server


def session_with(installation: Installation, name: str) -> AdminSession:
    """Return a session that the kernel gave to that worker."""

    def there() -> AdminSession | None:
        with contextlib.suppress(ConnectionFailed):
            link = installation.link()
            if serving(link) == name:
                return link
            link.close()
        return None

    return eventually(there, f"a session with {name}")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, Daemon]]:
    """Start two workers on SQLite that serve DNS and announce themselves, for tests that leave both running."""
    installation = Installation(tmp_path_factory.mktemp("workers"))
    config = installation.server_config(workers=2, announce="239.192.48.63:48630")
    config.write_text(config.read_text() + f'\n[server.dns]\nlisten = "127.0.0.1:{free_port()}"\n')
    daemon = installation.server(config)
    daemon.wait_for(SERVE)
    yield installation, daemon
    assert "Traceback" not in daemon.log
    installation.stop()


def test_all_workers_serve_one_port_and_one_store(shared: tuple[Installation, Daemon]) -> None:
    """A change at one worker is visible at the other; each has its own name. One of them announces the common
    address."""
    installation, daemon = shared
    daemon.wait_for("worker 1: opengnssd announces itself to 239.192.48.63:48630")
    assert "worker 2: opengnssd announces" not in daemon.log
    with session_with(installation, "gns1#1") as one, session_with(installation, "gns1#2") as other:
        assert not isinstance(one.ask(Apply((Category("web"),))), Refusal)

        def known() -> bool:
            rows = other.ask(Fetch("category"))
            return isinstance(rows, Rows) and len(rows.rows) == 1

        eventually(known, "the other worker knows what was applied")


def test_a_worker_that_dies_is_started_again_and_the_others_serve_meanwhile(
    shared: tuple[Installation, Daemon],
) -> None:
    """After kill -9 of one worker no connection is refused, and soon there are two again. SIGTERM to a single worker
    does not reduce their number either."""
    installation, daemon = shared
    first, second = workers_of(daemon)
    os.kill(first, signal.SIGKILL)
    daemon.wait_for("worker 1 ended after .*killed by SIGKILL. It restarts in 0.1 s")
    while "worker 1 serves again" not in daemon.log:
        with installation.link() as link:
            assert serving(link) in ("gns1#1", "gns1#2")
    os.kill(second, signal.SIGTERM)
    daemon.wait_for("(?s)worker 2 ended after .* exit status 0.*worker 2 serves again")
    assert len({*workers_of(daemon), first, second}) == 4
    for name in ("gns1#1", "gns1#2"):
        session_with(installation, name).close()


def test_a_port_in_use_is_told_before_any_worker_starts(shared: tuple[Installation, Daemon]) -> None:
    """Sockets that share a port share it among the workers of one server only."""
    installation, _ = shared
    second = installation.server(installation.server_config(workers=2))
    assert second.status() == start.EXIT_START
    told = f"opengnssd could not start: cannot listen on 127.0.0.1:{installation.port}: Address already in use"
    assert told in second.log and "serves store" not in second.log
    with installation.link() as link:
        assert serving(link).startswith("gns1#")


def test_no_worker_outlives_its_parent(installation: Installation) -> None:
    """kill -9 of the parent ends all workers, even a hanging one, and frees the port for the next start."""
    config = installation.server_config(workers=2)
    daemon = installation.server(config)
    daemon.wait_for(SERVE)
    workers = workers_of(daemon)
    os.kill(workers[0], signal.SIGSTOP)
    daemon.end(signal.SIGKILL)
    eventually(lambda: not any(map(runs, workers)), "no worker is left")

    def free() -> bool:
        with contextlib.suppress(CannotListenError):
            PortReservation("127.0.0.1", installation.port).close()
            return True
        return False

    eventually(free, "the port is free")


def test_a_terminal_interrupts_all_of_them_and_the_end_is_in_order(installation: Installation) -> None:
    """Ctrl-C reaches every process of the group: the parent decides, and no worker restarts. The service manager is
    notified when all serve, and of the end (NOTIFY_SOCKET, as systemd sets it)."""
    config, where = installation.server_config(workers=2), installation.directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(where))
        manager.settimeout(PATIENCE_SECONDS)
        command = [sys.executable, "-c", "import os; os.setpgid(0, 0); " + SERVER, "--config", str(config)]
        daemon = installation.start(command, NOTIFY_SOCKET=str(where))
        assert manager.recv(100) == b"READY=1"
        assert daemon.log.count(" serves store ") == 2
        os.killpg(daemon.process.pid, signal.SIGHUP)
        assert manager.recv(100).startswith(b"RELOADING=1")
        assert manager.recv(100) == b"READY=1"
        workers = workers_of(daemon)
        with installation.link() as link:
            os.killpg(daemon.process.pid, signal.SIGINT)
            for worker in workers:
                # As a supervisor does that ends every process of a unit.
                os.kill(worker, signal.SIGTERM)
            assert daemon.status() == 0
            with pytest.raises(ConnectionFailed, match="the server stops"):
                link.ask(Status())
        assert manager.recv(100) == b"STOPPING=1"
    said = [line.partition("] ")[2] for line in daemon.log.splitlines()]
    assert said[-2:] == ["opengnssd has stopped", "Main loop terminated."]
    assert "worker 1: opengnssd has stopped" in said and "worker 2: opengnssd has stopped" in said
    assert "ended after" not in daemon.log and "Traceback" not in daemon.log
    assert not any(map(runs, workers))


def test_a_worker_that_hangs_does_not_keep_the_server_from_ending(installation: Installation) -> None:
    """The worker is killed after the time for the last commit, which is logged."""
    hasty = "from compass.daemons.workers import supervisor; supervisor.STOP_SECONDS = 0.3; "
    hasty += SERVER
    config = installation.server_config(workers=2)
    daemon = installation.start([sys.executable, "-c", hasty, "--config", str(config)])
    daemon.wait_for(SERVE)
    os.kill(workers_of(daemon)[0], signal.SIGSTOP)
    assert daemon.end() == 0
    assert "does not end: killing it" in daemon.log


def test_what_keeps_the_workers_from_starting_is_told_once(installation: Installation) -> None:
    """The failure is one sentence and exit status 1, as with one process, whichever of the workers found it."""
    config = installation.server_config(workers=2, store="sqlite:////proc/gns.sqlite3")
    daemon = installation.server(config)
    assert daemon.status() == start.EXIT_START
    assert daemon.log.count("could not start") == 1
    assert "opengnssd could not start: /proc/gns.sqlite3: " in daemon.log
    assert "Traceback" not in daemon.log


def test_twistd_has_workers_too(installation: Installation) -> None:
    """The .tac file starts workers, too; their entries are in twistd's log."""
    config = installation.server_config(workers=2)
    daemon = installation.start([*TWISTD, "--pidfile="], OPENGNSSD_CONFIG=str(config))
    daemon.wait_for(SERVE)
    daemon.wait_for("worker 2: gns1#2 serves store")
    workers = workers_of(daemon)
    with installation.link() as link:
        assert serving(link).startswith("gns1#")
    assert daemon.end() == -signal.SIGTERM
    assert "opengnssd has stopped" in daemon.log and not any(map(runs, workers))


def test_pauses_grow_while_a_worker_dies_young() -> None:
    """The pause doubles from 0.1 s up to 30 s, and is the shortest again after a minute of serving."""
    pauses, pause = [], 0.0
    for _ in range(10):
        pause = pause_before_next(pause, STABLE_SECONDS - 0.1)
        pauses.append(pause)
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8] and pauses[-1] == RESTART_SECONDS_MAX
    assert pause_before_next(pause, STABLE_SECONDS) == RESTART_SECONDS_MIN


def listening(port: int, *, shares: bool) -> socket.socket:
    """Return a socket that listens as a worker does, or as another program does."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shares))
    made.bind(("127.0.0.1", port))
    made.listen(128)
    made.setblocking(False)
    return made


def test_a_reserved_port_is_for_the_workers_of_one_server() -> None:
    """Workers of one server share the port; any other program is refused, before and after they listen."""
    port = free_port()
    reserved = PortReservation("127.0.0.1", port)
    with pytest.raises(CannotListenError):
        PortReservation("127.0.0.1", port)
    workers = [listening(port, shares=True) for _ in range(2)]
    with pytest.raises(OSError, match="in use"):
        listening(port, shares=False)
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(64)]
    taken = [0, 0]
    for n, worker in enumerate(workers):
        with contextlib.suppress(BlockingIOError):
            while True:
                worker.accept()[0].close()
                taken[n] += 1
    assert sum(taken) == 64 and min(taken) >= 8, taken
    for opened in (*clients, *workers):
        opened.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    reserved.close()
    with listening(port, shares=False), pytest.raises(CannotListenError):
        PortReservation("127.0.0.1", port)


def test_a_machine_without_ipv6_reserves_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    """[::] stands for every existing address; an address of IPv6 is refused."""
    made = socket.socket

    def without_ipv6(family: int = socket.AF_INET) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return made(family)

    monkeypatch.setattr("compass.daemons.net.reuseport.socket.socket", without_ipv6)
    reserved = PortReservation("::", free_port())
    assert reserved.address == "0.0.0.0"
    reserved.close()
    with pytest.raises(CannotListenError):
        PortReservation("::1", free_port())
