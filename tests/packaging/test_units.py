"""The systemd units: what systemd says of them, and what their daemons survive under a supervisor that reads them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from compass.client.core.blocking_api import ApiEndpoint, HostApi
from compass.daemons.config.sections import HostSettings
from compass.model.host_api import LocalRegister
from compass.model.replies import CredentialIssued, LogEntries
from compass.model.requests import IssueCredential, Put, ReadLog
from compass.model.rows import Category, Listener, Service, UpdateEntry
from tests.e2e.processes import ROOT, eventually
from tests.packaging.supervisor import INSTALLED, UNITS, Supervised, unit
from tests.support.installation import Installation, free_port

ANALYZE = shutil.which("systemd-analyze")
NAMES = ("opengnssd", "opengnscd")
EXPOSURE_MAX = 2.0
"""Largest exposure of 10, as `systemd-analyze security` counts; below 2 it says OK, which the units reach."""
PATH_LINES = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import compass; "
ANOTHER_USER = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can give a file to another user"
)
NOBODY = 65534
ENTRY = {"opengnssd": "server", "opengnscd": "host"}


def program(name: str, version: str = "") -> list[str]:
    """The daemon as its console script runs it; with `version`, as the next release would be."""
    other = f"compass.__version__ = {version!r}; " if version else ""
    start = f"from compass.daemons.main import {ENTRY[name]} as run; sys.argv[0] = {name!r}; run()"
    return [sys.executable, "-c", PATH_LINES + other + start]


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """Certificates and room for configuration."""
    made = Installation(tmp_path)
    yield made
    made.stop()


@pytest.mark.skipif(ANALYZE is None, reason="systemd is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_systemd_accepts_the_units(tmp_path: Path, name: str) -> None:
    """systemd-analyze verify has nothing to say, with the programs where they are here."""
    for path in (*UNITS.glob("*.service"), *UNITS.glob("*.socket")):
        text = path.read_text().replace(INSTALLED, f"{Path(sys.executable).parent}/")
        (tmp_path / path.name).write_text(text)
    done = subprocess.run(
        [str(ANALYZE), "verify", "--man=no", str(tmp_path / f"{name}.service")], capture_output=True, text=True
    )
    told = [line for line in done.stderr.splitlines() if name in line or "opengns" in line]
    assert (done.returncode, told) == (0, []), done.stderr


@pytest.mark.skipif(ANALYZE is None, reason="systemd is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_little_is_left_open_to_whoever_breaks_in(name: str) -> None:
    """systemd-analyze security counts what the sandbox leaves: not more than before."""
    command = [str(ANALYZE), "security", "--offline=true", "--no-pager", str(UNITS / f"{name}.service")]
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"exposure level for .*: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= EXPOSURE_MAX, done.stdout


def calls(group: str) -> set[str]:
    """The system calls of a group, as systemd knows them; a call is a group of itself."""
    if not group.startswith("@"):
        return {group}
    told = subprocess.run([str(ANALYZE), "syscall-filter", group], capture_output=True, text=True, check=True).stdout
    names = (line.strip() for line in told.splitlines()[1:])
    return {call for name in names if name and not name.startswith("#") for call in calls(name)}


def allowed(name: str) -> set[str]:
    """Return what SystemCallFilter= leaves: the first line says what is allowed, later ones take away and add."""
    left: set[str] = set()
    for line in unit(UNITS / f"{name}.service")["SystemCallFilter"]:
        told = {call for group in line.lstrip("~").split() for call in calls(group)}
        left = left - told if line.startswith("~") else left | told
    return left


@pytest.mark.long
@pytest.mark.skipif(ANALYZE is None or shutil.which("strace") is None, reason="systemd or strace is not installed")
def test_the_filters_let_through_what_the_daemons_call(installation: Installation) -> None:
    """Every system call of a start, a session, a reload and an end is in the filter of the unit, as strace counts."""
    files = {"opengnssd": installation.server_config(), "opengnscd": installation.host_config()}
    started = {}
    for name, path in files.items():
        counted = ["strace", "-f", "-qq", "-c", "-U", "name", "-o", str(installation.directory / f"{name}.calls")]
        started[name] = installation.start([*counted, *program(name), "--config", str(path)])
        started[name].wait_for(f"{name} listens on")
    started["opengnscd"].wait_for("session")
    for number, told in ((signal.SIGHUP, r"reloads its files\n(.*\n)*.*listens on"), (signal.SIGTERM, "has stopped")):
        for daemon in started.values():
            tracer = daemon.process.pid
            child = Path(f"/proc/{tracer}/task/{tracer}/children").read_text().split()[0]
            os.kill(int(child), number)
            daemon.wait_for(told)
    for name, daemon in started.items():
        daemon.status()
        lines = (installation.directory / f"{name}.calls").read_text().split()
        used = {line for line in lines if re.fullmatch(r"[a-z][a-z0-9_]*", line)} - {"syscall", "total"}
        assert len(used) > 20
        assert used <= allowed(name), used - allowed(name)


@pytest.mark.parametrize("name", NAMES)
def test_what_the_units_name_is_there(name: str) -> None:
    """Manual pages, the configuration's variable, and the files next to the units."""
    settings = unit(UNITS / f"{name}.service")
    for page in settings["Documentation"][0].split():
        file, section = re.fullmatch(r"man:(.*)\((\d)\)", page).groups()  # type: ignore[union-attr]
        assert (ROOT / f"contrib/man/{file}.{section}").exists()
    assert settings["Environment"] == [f"{name.upper()}_CONFIG=/etc/opengns/{name}.toml"]
    assert settings["RestartPreventExitStatus"] == ["78"]
    assert (UNITS / "opengns.sysusers").read_text().splitlines()[-1].startswith("u opengns ")


def listening(family: socket.AddressFamily, place: object) -> socket.socket:
    """A socket as a socket unit makes it."""
    made = socket.socket(family)
    made.bind(place)  # type: ignore[arg-type]
    made.listen()
    return made


def test_the_socket_unit_holds_both_places_over_restarts(installation: Installation) -> None:
    """A request that comes while the daemon is stopped, killed or reloads waits, on the socket and on the port, and is
    answered by the next run; nothing removes the socket."""
    at, port = installation.directory, free_port()
    text = (UNITS / "opengnscd.socket").read_text()
    for name, default in (("api", "127.0.0.1:4866"), ("socket", "/run/opengns/opengnscd.sock")):
        assert {field.name: field.default for field in msgspec.structs.fields(HostSettings)}[name] == default
        assert f"ListenStream={default}\n" in text
    config = installation.host_config(api=f"127.0.0.1:{port}")
    places = (listening(socket.AF_UNIX, str(at / "gns.sock")), listening(socket.AF_INET, ("127.0.0.1", port)))
    clients = [HostApi(ApiEndpoint(path=str(at / "gns.sock"))), HostApi(ApiEndpoint(address="127.0.0.1", port=port))]
    asked = Supervised(UNITS / "opengnscd.service", at, program("opengnscd"), OPENGNSCD_CONFIG=str(config))
    asked.sockets = places
    with asked as host, ThreadPoolExecutor(2) as threads:
        host.ready()
        for end in (host.kill, host.reload, lambda: host.kill(signal.SIGTERM)):
            waiting = [threads.submit(client.status) for client in clients for _ in range(2)]
            end()
            waiting += [threads.submit(client.status) for client in clients]
            answered = [future.exception() for future in waiting]
            # Those that were accepted before the end are cut; no connection is refused.
            assert not [one for one in answered if "refused" in str(one) or "No such file" in str(one)], answered
            assert not any(answered[-2:]), answered
    assert (at / "gns.sock").is_socket()
    for one in places:
        one.close()


def test_kill_reload_and_upgrade_flap_nothing(installation: Installation) -> None:
    """A listener stays what it was while either daemon under its unit is killed, reloaded and replaced by another
    version: not one change is in the log. Here a supervisor that reads the units stands for systemd."""
    at = installation.directory
    server_file, host_file = installation.server_config(), installation.host_config()
    port = free_port()
    listener = installation.start([sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)])
    units = {name: UNITS / f"{name}.service" for name in NAMES}
    with (
        Supervised(units["opengnssd"], at, program("opengnssd"), OPENGNSSD_CONFIG=str(server_file)) as server,
        Supervised(units["opengnscd"], at, program("opengnscd"), OPENGNSCD_CONFIG=str(host_file)) as host,
    ):
        server.ready()
        host.ready()
        with installation.link() as link:
            link.ask(Put(Category("web"), create=True))
            link.ask(Put(Service("portal.web"), create=True))
            issued = link.ask(IssueCredential("portal.web"))
            assert isinstance(issued, CredentialIssued)
        api = HostApi(ApiEndpoint(path=str(at / "gns.sock")), 10.0)

        def registered() -> bool:
            wish = LocalRegister(service="portal.web", port=port, credential=issued.token, pid=listener.process.pid)
            return api.register(wish).state == "up"

        eventually(registered, "the listener is registered")
        before = updates(installation)
        listeners = [entry.change.row for entry in before if isinstance(entry.change.row, Listener)]
        assert listeners[-1].state == "up"
        pids = (server.pid, host.pid)
        for supervised in (host, server):
            supervised.reload()
        assert pids == (server.pid, host.pid), "a reload keeps the process"
        for supervised in (host, server):
            supervised.kill()
        for name, supervised in zip(NAMES, (server, host), strict=True):
            supervised.restart(program(name, "0.1.1"))

        def in_step() -> bool:
            status = api.status()
            return status.session == "open" and status.loaded and not status.problem

        eventually(in_step, "the host is in session again")
        assert updates(installation) == before, server.log + host.log
        assert [(own.port, own.state) for own in api.status().registrations] == [(port, "registered")]
        assert (server.starts, host.starts) == (3, 3)


def updates(installation: Installation) -> list[UpdateEntry]:
    """The whole update log."""
    with installation.link() as link:
        log = link.ask(ReadLog("updates", 0, 1000))
    assert isinstance(log, LogEntries)
    return [entry for entry in log.entries if isinstance(entry, UpdateEntry)]


@ANOTHER_USER
@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_user_is_told_and_not_started_for_ever(installation: Installation, name: str) -> None:
    """A unit whose User= may not read the key: the daemon says which file, and its exit status stops systemd."""
    path = installation.server_config() if name == "opengnssd" else installation.host_config()
    key = installation.directory / ("gns1.key" if name == "opengnssd" else "web1.key")
    os.chown(key, NOBODY, NOBODY)
    settings = {f"{name.upper()}_CONFIG": str(path)}
    with Supervised(UNITS / f"{name}.service", installation.directory, program(name), **settings) as supervised:
        eventually(lambda: supervised.over, f"{name} is given up")
        assert supervised.statuses == [78]
        assert f"{name}: {key} cannot be read: Permission denied" in supervised.log
        assert "Traceback" not in supervised.log


@ANOTHER_USER
def test_a_user_without_a_place_for_its_state_is_told(installation: Installation) -> None:
    """StateDirectory= belongs to another user: a host says so and serves without its disk; a server cannot serve
    without its store, says so, and is started again until an administrator has put it right."""
    state = installation.directory / "state"
    state.mkdir(mode=0o700)
    os.chown(state, NOBODY, NOBODY)
    files = {
        "opengnscd": installation.host_config(),
        "opengnssd": installation.server_config(store="sqlite:///state/gns.sqlite3"),
    }
    told = {"opengnscd": f"cannot read {state}/catalogue.msgpack", "opengnssd": f"{state}/gns.sqlite3"}
    for name, path in files.items():
        settings = {f"{name.upper()}_CONFIG": str(path)}
        with Supervised(UNITS / f"{name}.service", installation.directory, program(name), **settings) as supervised:
            if name == "opengnscd":
                supervised.ready()
            else:
                eventually(lambda it=supervised: it.starts > 1, "opengnssd is started again")  # type: ignore[misc]
                assert supervised.statuses[0] == 1 and "opengnssd could not start" in supervised.log
            assert told[name] in supervised.log and "Traceback" not in supervised.log
