"""Rows and books with real processes: lost state, restored backups, directories and addresses that two daemons have."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from compass.admin.main import cli as admin_cli
from compass.model.host_api import LocalRegister
from compass.model.replies import ServerStatus
from compass.model.requests import Status
from compass.model.rows import Listener
from tests.e2e.conftest import Deploy
from tests.e2e.containers import serving
from tests.e2e.deployment import Deployment, Host, free_port
from tests.e2e.processes import Program, eventually, python

SERVICE = "chinaserver.openuss"


def row(deployment: Deployment, port: int) -> Listener:
    return deployment.listeners()[SERVICE, port]


def alerts(deployment: Deployment) -> str:
    return " / ".join(alert.text for alert in deployment.ask(Status(), ServerStatus).alerts)


def registered(deployment: Deployment, host: Host, address: str = "", pid: int = 0) -> int:
    port = free_port(host.address)
    host.api.register(LocalRegister(SERVICE, port, deployment.token(SERVICE), address, pid=pid))
    return port


def second_daemon(deployment: Deployment, host: Host, name: str, changes: dict[str, str]) -> Program:
    """Make another daemon with the configuration of a host, but for some texts in it."""
    text = (host.directory / "opengnscd.toml").read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = host.directory / f"{name}.toml"
    path.write_text(text)
    program = Program(name, python("compass.daemons.main:host", "--config", str(path)), host.directory / f"{name}.log")
    deployment.programs.append(program)
    return program


@pytest.mark.parametrize("stranger", [False, True])
def test_a_lost_state_directory(deployment: Deployment, stranger: bool) -> None:
    """F3 (a): the host is back within grace seconds; its old row is marked, though a stranger listens there."""
    host = deployment.add_host(f"lost{stranger:d}")
    host.in_session()
    port = free_port(host.address)
    with serving(host, port) as process:
        host.api.register(LocalRegister(SERVICE, port, deployment.token(SERVICE)))
        host.daemon.kill()
        shutil.rmtree(host.directory / "state")
        if not stranger:
            process.kill()
            process.wait()
        host.daemon.start()
        host.in_session()
        eventually(lambda: row(deployment, port).state != "up", "the row is marked")
        assert row(deployment, port).cause.startswith("its host does not hold it")
        assert f"is recorded for host {host.name}" in alerts(deployment)
        if stranger:
            time.sleep(1.0)
            assert row(deployment, port).state == "suspect"
    eventually(lambda: row(deployment, port).state == "down", "the row is down")
    # As many listeners of a category may be down as its cap says.
    deployment.opengnsadmin("listener", "remove", SERVICE, f"{host.address}:{port}")


def test_a_restored_backup(deploy: Deploy) -> None:
    """F3 (b): what ended after the backup does not stay up, and what began after it comes back."""
    deployment = deploy()
    deployment.start()
    host = deployment.add_host("store1")
    host.in_session()
    backup = deployment.directory / "b.sqlite3"
    runner, place = CliRunner(), {"OPENGNSSD_CONFIG": str(deployment.directory / "opengnssd.toml")}
    with serving(host, first := free_port(host.address)) as process:
        host.api.register(LocalRegister(SERVICE, first, deployment.token(SERVICE), pid=process.pid))
        made = runner.invoke(admin_cli, ["backup", str(backup)], env=place)
        assert made.exit_code == 0, made.output
    eventually(lambda: row(deployment, first).state == "offline", "its death is known")
    with serving(host, second := free_port(host.address)) as process:
        host.api.register(LocalRegister(SERVICE, second, deployment.token(SERVICE), pid=process.pid))
        deployment.server.stop()
        restored = runner.invoke(admin_cli, ["restore", str(backup), "--yes"], env=place)
        assert restored.exit_code == 0, restored.output
        deployment.server.start()
        deployment.serves()
        host.in_session()
        eventually(lambda: row(deployment, first).state == "down", "the row of the dead is down")
        eventually(lambda: row(deployment, second).state == "up", "the living is back")


def test_two_daemons_over_one_directory(deployment: Deployment) -> None:
    """F4: the second one refuses and names the first; a restart is none."""
    host = deployment.add_host("own1")
    host.in_session()
    changes = {str(host.port): str(free_port(host.address)), "api.sock": "second.sock"}
    second = second_daemon(deployment, host, "second", changes)
    second.start()
    assert second.ended() == 1
    text = second.log.read_text()
    assert f"process {host.daemon.pid} uses {host.directory / 'state'} already: stop that daemon" in text
    assert host.status() is not None
    host.restart()
    host.restart(signal.SIGTERM)
    os.kill(host.daemon.pid, signal.SIGHUP)
    eventually(lambda: host.daemon.log.read_text().count("SIGHUP"), "it reloads")
    host.in_session()
    assert "already" not in host.daemon.log.read_text()


def test_a_new_daemon_waits_for_the_one_that_stops(deployment: Deployment) -> None:
    """A restart that starts the new one while the old one still stops works."""
    host = deployment.add_host("next1")
    host.in_session()
    changes = {str(host.port): str(free_port(host.address)), "api.sock": "second.sock"}
    second = second_daemon(deployment, host, "second", changes)
    second.start()
    host.daemon.stop()
    eventually(lambda: "session with server" in second.log.read_text(), "the second one takes over")
    assert second.runs


def test_two_daemons_with_one_shared_view(deployment: Deployment) -> None:
    """Programs 13: the second one refuses, with directories of its own otherwise."""
    view = deployment.directory / "view"
    host = deployment.add_host("view1", settings=f'view = "{view}"\n')
    host.in_session()
    changes = {str(host.port): str(free_port(host.address)), "api.sock": "second.sock", "/state": "/state2"}
    second = second_daemon(deployment, host, "second", changes)
    second.start()
    assert second.ended() == 1
    assert f"uses {view} already" in second.log.read_text() and "[host] view" in second.log.read_text()


def test_two_hosts_with_one_address_and_port(deployment: Deployment) -> None:
    """F6: both daemons and administrators know, and the older one counts again when the newer one ends."""
    first, second = deployment.add_hosts("two1", "two2")
    sleeps = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    try:
        port = registered(deployment, first, first.address, sleeps[0].pid)
        second.api.register(LocalRegister(SERVICE, port, deployment.token(SERVICE), first.address, pid=sleeps[1].pid))

        def displaced() -> bool:
            status = first.status()
            return status is not None and [one.state for one in status.registrations] == ["refused"]

        eventually(displaced, "the first one knows")
        status = second.status()
        assert status is not None and first.name in status.registrations[0].problem
        assert second.name in first.daemon.log.read_text()
        eventually(lambda: "is registered by two hosts" in alerts(deployment), "administrators know")
        sleeps[1].kill()
        eventually(
            lambda: (row(deployment, port).host, row(deployment, port).state) == (first.name, "up"), "it is back"
        )
        assert "two hosts" not in alerts(deployment)
    finally:
        for sleep in sleeps:
            sleep.kill()
            sleep.wait()


def test_a_book_that_cannot_be_read(deployment: Deployment) -> None:
    """F9: the daemon runs, refuses registrations with what to do, and leaves the file as it is."""
    if os.geteuid() != 0:
        pytest.skip("only root can run a daemon that may not read a file of another user")
    host = deployment.add_host("unread1")
    host.in_session()
    port = free_port(host.address)
    with serving(host, port):
        host.api.register(LocalRegister(SERVICE, port, deployment.token(SERVICE)))
        host.daemon.stop()
        book = host.directory / "state" / "registrations.json"
        content = book.read_bytes()
        make_unreadable(deployment.directory, host, book)
        command = ["setpriv", "--reuid=65534", "--clear-groups", "--regid=65534"]
        command += python("compass.daemons.main:host", "--config", str(host.directory / "opengnscd.toml"))
        program = Program("as nobody", command, host.directory / "nobody.log")
        deployment.programs.append(program)
        program.start()
        eventually(lambda: "session with server" in program.log.read_text(), "it runs")
        more = {"OPENGNS_CREDENTIAL": deployment.token(SERVICE), "OPENGNS_API_USER": "nobody"}
        refused = deployment.opengnsc(host, "register", SERVICE, "4444", more=more)
        assert refused.returncode != 0 and "cannot read" in refused.stderr and "own the file" in refused.stderr
        assert "cannot read" in deployment.opengnsc(host, "status", more=more).stdout
        assert "cannot read" in alerts(deployment)
        assert book.read_bytes() == content and row(deployment, port).state == "up"


def make_unreadable(directory: Path, host: Host, book: Path) -> None:
    """Give everything of a host to another user, but for its book; and let that user pass through the directories."""
    for path in (directory, *directory.parents):
        if path.stat().st_mode & 0o001 == 0:
            path.chmod(path.stat().st_mode | 0o011)
    for path in directory.rglob("*"):
        if path.suffix in (".key", ".crt", ".toml") or host.directory in path.parents or path == host.directory:
            shutil.chown(path, 65534, 65534)
    shutil.chown(book, 0, 0)
    book.chmod(0o600)
    host.socket.unlink(missing_ok=True)
