"""Messages of the daemons to a service manager, whose socket the test plays (sd_notify(3))."""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from compass.model.replies import ServerStatus
from compass.model.requests import Status
from tests.support.installation import PATIENCE_SECONDS, Daemon, Installation

RUN = {
    "opengnssd": "from compass.daemons.main import server; server()",
    "opengnscd": "from compass.daemons.main import host; host()",
}


@pytest.fixture
def manager(installation: Installation) -> Iterator[socket.socket]:
    """Open the manager's end of the socket `notify`."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(str(installation.directory / "notify"))
        manager.settimeout(PATIENCE_SECONDS)
        yield manager


def started(installation: Installation, name: str, **environment: str) -> Daemon:
    """Start a daemon with the manager's socket in its environment."""
    config = installation.server_config() if name == "opengnssd" else installation.host_config()
    where = {"NOTIFY_SOCKET": str(installation.directory / "notify")} | environment
    return installation.start([sys.executable, "-c", RUN[name], "--config", str(config)], **where)


@pytest.mark.parametrize("name", RUN)
def test_a_manager_is_told_of_readiness_life_and_the_end(
    installation: Installation, manager: socket.socket, name: str
) -> None:
    """READY is sent once the daemon serves, WATCHDOG while its loop turns, STOPPING before its end."""
    daemon = started(installation, name, WATCHDOG_USEC="200000")
    assert manager.recv(100) == b"READY=1"
    assert [manager.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    daemon.process.send_signal(signal.SIGSTOP)
    manager.settimeout(0.0)
    with pytest.raises(BlockingIOError):
        while manager.recv(100):
            pass
    time.sleep(0.3)
    with pytest.raises(BlockingIOError):
        manager.recv(100)
    daemon.process.send_signal(signal.SIGCONT)
    manager.settimeout(PATIENCE_SECONDS)
    assert manager.recv(100) == b"WATCHDOG=1"
    assert daemon.end() == 0
    said = b"WATCHDOG=1"
    while said == b"WATCHDOG=1":
        said = manager.recv(100)
    assert said == b"STOPPING=1"


def test_a_watchdog_that_is_meant_for_another_process_is_not_answered(
    installation: Installation, manager: socket.socket
) -> None:
    """WATCHDOG_PID names the process that the manager watches."""
    daemon = started(installation, "opengnssd", WATCHDOG_USEC="20000", WATCHDOG_PID="1")
    assert manager.recv(100) == b"READY=1"
    daemon.wait_for("listens on")
    assert daemon.end() == 0
    assert manager.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("name", RUN)
def test_a_reload_begins_anew_in_the_same_process(
    installation: Installation, manager: socket.socket, name: str
) -> None:
    """RELOADING is followed by READY without STOPPING; the new content of the files is effective."""
    daemon = started(installation, name)
    assert manager.recv(100) == b"READY=1"
    if name == "opengnssd":
        installation.server_config(name="gns9")
    daemon.process.send_signal(signal.SIGHUP)
    told, _, when = manager.recv(100).partition(b"\nMONOTONIC_USEC=")
    assert told == b"RELOADING=1" and int(when) <= time.monotonic_ns() // 1000
    assert manager.recv(100) == b"READY=1"
    assert daemon.process.poll() is None
    assert f"SIGHUP: {name} reloads its files" in daemon.log
    if name == "opengnssd":
        with installation.link() as link:
            status = link.ask(Status())
            assert isinstance(status, ServerStatus) and status.server == "gns9"
    assert daemon.end() == 0
    assert manager.recv(100) == b"STOPPING=1"


def test_a_reload_with_wrong_files_changes_nothing(installation: Installation, manager: socket.socket) -> None:
    """The mistakes are logged, and the daemon continues to serve."""
    daemon = started(installation, "opengnssd")
    assert manager.recv(100) == b"READY=1"
    installation.server_config(listen=["nowhere"])
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for("SIGHUP: opengnssd continues unchanged, its files are wrong: .*listen: 'nowhere' is not")
    with installation.link() as link:
        assert isinstance(link.ask(Status()), ServerStatus)
