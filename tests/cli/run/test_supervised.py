"""`opengnsc run` as a supervisor: checks, draining, restarts, several services, a service manager, dependencies."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from compass.model.exit_codes import ExitCode
from tests.cli.run.test_supervisor import Running
from tests.support.fake_api import CREDENTIAL, SERVICE, LittleApi, Start, outcome, wait_until

SECOND = "northeast.openuss"
LISTENER = {
    "service": "account.openuso",
    "address": "192.0.2.7",
    "port": 80,
    "state": "up",
    "changed_at": 1.0,
    "epoch": 1,
}
DEPENDENCIES = {
    "type": "dependencies",
    "service": SERVICE,
    "revision": 5,
    "categories": [
        {"category": "openuso", "services": [{"id": "account.openuso", "listeners": [LISTENER]}]},
        {
            "category": "re-scue",
            "services": [{"id": "one.re-scue", "listeners": [LISTENER | {"state": "down"}]}],
            "backup": "emergency.rescue",
            "backup_listeners": [LISTENER | {"address": "2001:db8::1"}],
        },
    ],
}


@pytest.fixture
def welcoming(api: LittleApi) -> LittleApi:
    """A daemon that takes every registration."""
    api.answers = {"/v1/register": outcome(), "/v1/deregister": outcome("offline"), "/v1/drain": outcome("draining")}
    return api


def test_users_are_drained_before_the_deregistration(
    welcoming: LittleApi, start: Start, tmp_path: Path, port: int
) -> None:
    """--drain: first no new users, then, after their time, the deregistration, and only then the signal."""
    running = Running(start, tmp_path / "notes", port, given=("--drain", "0.5"))
    running.registered()
    running.process.send_signal(signal.SIGTERM)
    assert running.end()[0] == 0
    posts = [asked.path for asked in welcoming.asked if asked.method == "POST"]
    assert posts == ["/v1/register", "/v1/drain", "/v1/deregister"]
    assert welcoming.wait_for("/v1/drain").body == {
        "service": SERVICE,
        "port": port,
        "credential": CREDENTIAL,
        "address": "127.0.0.1",
    }


def test_a_second_signal_does_not_wait_for_users(welcoming: LittleApi, start: Start, tmp_path: Path, port: int) -> None:
    """A second stop signal ends the draining."""
    running = Running(start, tmp_path / "notes", port, given=("--drain", "600"))
    running.registered()
    running.process.send_signal(signal.SIGTERM)
    welcoming.wait_for("/v1/drain")
    running.process.send_signal(signal.SIGTERM)
    assert running.end()[0] == 0
    assert "/v1/deregister" in welcoming.paths()


def test_it_is_registered_when_its_check_passes(welcoming: LittleApi, start: Start, tmp_path: Path, port: int) -> None:
    """Accepting connections is not sufficient if there is a check."""
    fit = tmp_path / "fit"
    running = Running(start, tmp_path / "notes", port, given=("--check-command", f"test -e {fit}"))
    running.pid()
    wait_until(lambda: _accepted(port))
    assert "/v1/register" not in welcoming.paths()
    fit.touch()
    running.registered()
    running.process.send_signal(signal.SIGTERM)
    assert running.end()[0] == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--check-http", "/health"), "does not answer GET /health at 127.0.0.1:"),
        (("--check-command", "sleep 9", "--check-timeout", "0.1"), "does not pass sleep 9: not ended within 0.1 s"),
        (("--check-command", "sh -c 'echo not yet; false'"), "status 1 not yet"),
        (("--check-command", "/no/such"), "does not pass /no/such: No such file or directory"),
    ],
)
def test_a_check_that_never_passes_is_reported(
    welcoming: LittleApi, start: Start, tmp_path: Path, port: int, given: tuple[str, ...], said: str
) -> None:
    """A listener that accepts and says nothing, a check that hangs, one that fails, and one that is not there."""
    running = Running(start, tmp_path / "notes", port, given=("--ready-timeout", "5", *given))
    status, told = running.end()
    assert status == ExitCode.NOT_LISTENING
    assert said in told
    assert "/v1/register" not in welcoming.paths()


def test_a_crashed_command_is_started_again(welcoming: LittleApi, start: Start, tmp_path: Path, port: int) -> None:
    """And registered as a new instance; a stop that was asked for is one."""
    running = Running(start, tmp_path / "notes", port, given=("--restart", "on-failure"))
    running.registered()
    first = running.pid()
    os.kill(first, signal.SIGKILL)
    second = welcoming.wait_for("/v1/register", 2).body["pid"]
    assert second != first
    running.process.send_signal(signal.SIGTERM)
    status, said = running.end()
    assert status == 0
    assert "restarting the command in 0.5 s" in said


def test_a_command_that_only_crashes_is_given_up(welcoming: LittleApi, start: Start, port: int) -> None:
    """After the limit, with its own status."""
    process = start("run", SERVICE, "--port", str(port), "--restart", "always", "--restart-limit", "1", "--", "false")
    said = process.communicate(timeout=20)[1]
    assert process.returncode == 1
    assert "the command ended 2 times in a row: giving up" in said


def test_a_stop_between_two_starts_ends_it(welcoming: LittleApi, start: Start, port: int) -> None:
    """Nothing runs then, and nothing is started any more."""
    process = start("run", SERVICE, "--port", str(port), "--restart", "always", "--", "sh", "-c", "exit 3")
    assert process.stderr is not None
    for line in process.stderr:
        if "restarting the command in 2 s" in line:
            break
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 3


TWO_PORTS = """
import os, socket, sys, signal
listening = [socket.create_server(("127.0.0.1", int(port))) for port in sys.argv[1:]]
signal.pause()
"""


def test_several_services_of_one_command(welcoming: LittleApi, start: Start, tmp_path: Path, port: int) -> None:
    """Each with its port and its credential; all are registered, drained and deregistered together."""
    token = tmp_path / "token"
    token.write_text("second-credential-of-the-northeast\n")
    token.chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as found:
        other = int(found.getsockname()[1])
    options = [
        "--port",
        str(port),
        "--address",
        "127.0.0.1",
        "--also",
        SECOND,
        str(other),
        str(token),
        "--drain",
        "0.1",
    ]
    process = start("run", SERVICE, *options, "--", sys.executable, "-c", TWO_PORTS, str(port), str(other))
    second = welcoming.wait_for("/v1/register", 2).body
    assert (second["service"], second["port"]) == (SECOND, other)
    assert second["credential"] == "second-credential-of-the-northeast"
    assert process.stderr is not None
    assert process.stderr.readline().endswith(": registered\n")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    for path in ("/v1/drain", "/v1/deregister"):
        assert [a.body["service"] for a in welcoming.asked if a.path == path] == [SERVICE, SECOND]


def test_a_service_manager_is_notified(welcoming: LittleApi, start: Start, tmp_path: Path, port: int) -> None:
    """sd_notify(3): ready when it is registered, alive for the watchdog, stopping before it leaves; the command gets
    neither the socket nor the watchdog."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        running = Running(start, tmp_path / "notes", port, env=env)
        told = b""
        while b"READY=1" not in told:
            told = manager.recv(1000)
        assert "/v1/register" in welcoming.paths()
        environment = Path(f"/proc/{running.pid()}/environ").read_bytes()
        assert b"NOTIFY_SOCKET" not in environment
        assert b"WATCHDOG" not in environment
        while told != b"WATCHDOG=1":
            told = manager.recv(1000)
        running.process.send_signal(signal.SIGTERM)
        while b"STOPPING=1" not in told:
            told = manager.recv(1000)
        assert running.end()[0] == 0


def test_the_command_finds_what_it_depends_on(welcoming: LittleApi, start: Start, tmp_path: Path, port: int) -> None:
    """Variables have the dependencies at the start, a file has the current ones."""
    welcoming.answers[f"/v1/dependencies/{SERVICE}"] = (200, DEPENDENCIES)
    file = tmp_path / "dependencies.json"
    running = Running(start, tmp_path / "notes", port, given=("--dependencies-file", str(file)))
    environment = dict(
        line.split("=", 1) for line in Path(f"/proc/{running.pid()}/environ").read_text().split("\0") if "=" in line
    )
    assert environment["OPENGNS_DEPENDENCY_OPENUSO"] == "192.0.2.7:80"
    assert environment["OPENGNS_DEPENDENCY_RE_SCUE"] == "[2001:db8::1]:80"
    assert environment["OPENGNS_DEPENDENCIES"] == str(file)
    assert json.loads(file.read_text())["revision"] == 5
    running.process.send_signal(signal.SIGTERM)
    assert running.end()[0] == 0


def _accepted(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True
