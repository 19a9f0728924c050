"""`opengnsc run` with real commands, real signals and a daemon that says what the test wants."""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compass.model.exit_codes import ExitCode
from tests.support.fake_api import CREDENTIAL, SERVICE, Asked, LittleApi, Start, outcome, refusal, wait_until

COMMAND = [sys.executable, str(Path(__file__).with_name("service.py"))]


class Running:
    """`opengnsc run` of the test's service at 127.0.0.1."""

    def __init__(self, start: Start, file: Path, port: int, *options: str, given: tuple[str, ...] = (), **more: Any):
        file.touch()
        self.file = file
        at = ("--port", str(port), "--address", "127.0.0.1", *given)
        self.process = start("run", SERVICE, *at, "--", *COMMAND, str(file), *options, **more)

    @property
    def notes(self) -> list[str]:
        return self.file.read_text().splitlines()

    def pid(self) -> int:
        return int(wait_until(lambda: self.notes)[0].split()[1])

    def registered(self) -> None:
        """Wait until `run` has had the daemon's answer."""
        assert self.process.stderr is not None
        assert self.process.stderr.readline().endswith(": registered\n")

    def end(self) -> tuple[int, str]:
        """Wait for the end. Returns exit status and output."""
        said = self.process.communicate(timeout=20)[1]
        return self.process.returncode, said


@pytest.fixture
def welcoming(api: LittleApi) -> LittleApi:
    """A daemon that takes every registration."""
    api.answers = {"/v1/register": outcome(), "/v1/deregister": outcome("offline")}
    return api


def test_users_are_notified_before_the_command(welcoming: LittleApi, start: Start, tmp_path: Path, port: int) -> None:
    """SIGTERM deregisters first, under the instance that was registered; only its answer lets the signal through."""
    notes_at_deregistration = []

    def deregistered(asked: Asked) -> tuple[int, Any]:
        notes_at_deregistration.append(running.notes)
        return outcome("offline")

    welcoming.answers["/v1/deregister"] = deregistered
    running = Running(start, tmp_path / "notes", port, given=("--weight", "3", "--metadata", "zone=b"))
    asked = welcoming.wait_for("/v1/register")
    pid = running.pid()
    assert asked.body == {
        "service": SERVICE,
        "port": port,
        "credential": CREDENTIAL,
        "address": "127.0.0.1",
        "weight": 3,
        "metadata": {"zone": "b"},
        "pid": pid,
        "check": {"kind": "reported", "timeout_seconds": 5.0, "what": "accepts connections"},
    }
    running.process.send_signal(signal.SIGTERM)
    assert running.end()[0] == 0
    gone = welcoming.wait_for("/v1/deregister").body
    assert (gone["service"], gone["port"], gone["credential"], gone["epoch"]) == (SERVICE, port, CREDENTIAL, 7)
    assert [note for notes in notes_at_deregistration for note in notes if note == "SIGTERM"] == []
    assert running.notes[1:] == ["SIGTERM"]


def test_the_command_never_sees_the_credential(welcoming: LittleApi, start: Start, tmp_path: Path, port: int) -> None:
    """The credential is in no argument and no variable of the command, and in no message of a refusal."""
    welcoming.answers["/v1/register"] = refusal("bad-credential")
    running = Running(start, tmp_path / "notes", port, "--end", "0")
    pid = running.pid()
    seen = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
    assert CREDENTIAL.encode() not in seen
    assert CREDENTIAL not in running.end()[1]
    assert running.notes[0] == f"pid {pid} OPENGNS_ADDRESS OPENGNS_API OPENGNS_PORT OPENGNS_SERVICE {SERVICE}"


@pytest.mark.parametrize(
    ("code", "status"), [("bad-credential", ExitCode.NOT_ALLOWED), ("unknown-service", ExitCode.NOT_FOUND)]
)
def test_a_command_that_may_not_register_is_stopped(
    welcoming: LittleApi, start: Start, tmp_path: Path, port: int, code: str, status: ExitCode
) -> None:
    """A permanent refusal ends the command; status and text are those of the refusal."""
    welcoming.answers["/v1/register"] = refusal(code)
    running = Running(start, tmp_path / "notes", port)
    ended, said = running.end()
    assert (ended, running.notes[1:]) == (status, ["SIGTERM"])
    assert f"registration refused ({code}): refusal: {code}" in said
    assert "/v1/deregister" not in welcoming.paths()


def test_a_refused_command_that_ignores_sigterm_is_killed(
    welcoming: LittleApi, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    """A service that must not serve ends, whatever it does about signals."""
    site = tmp_path / "sitecustomize.py"
    site.write_text("import compass.cli.run.state_machine as machine\nmachine.KILL_SECONDS = 0.3\n")
    welcoming.answers["/v1/register"] = refusal("forbidden")
    path = os.pathsep.join([str(tmp_path), str(Path.cwd())])
    running = Running(start, tmp_path / "notes", port, "--stubborn", env={"PYTHONPATH": path})
    pid = running.pid()
    assert running.end()[0] == ExitCode.NOT_ALLOWED
    assert running.notes[1:] == ["SIGTERM"]
    assert not Path(f"/proc/{pid}").exists()


def test_a_crash_is_left_to_the_daemon(welcoming: LittleApi, start: Start, tmp_path: Path, port: int) -> None:
    """kill -9 of the command: the daemon says that it died; `run` neither hides that nor changes the status."""
    running = Running(start, tmp_path / "notes", port)
    running.registered()
    os.kill(running.pid(), signal.SIGKILL)
    status, said = running.end()
    assert status == 128 + signal.SIGKILL
    assert "was killed by SIGKILL" in said
    assert "/v1/deregister" not in welcoming.paths()


@pytest.mark.parametrize("status", [0, 3])
def test_the_exit_status_is_the_commands(
    welcoming: LittleApi, start: Start, tmp_path: Path, port: int, status: int
) -> None:
    """A command that ends by itself: 0 is an end that was wanted and deregisters, anything else is a death."""
    running = Running(start, tmp_path / "notes", port, "--end", str(status))
    running.registered()
    # Not through `run`, which therefore did not ask for it.
    os.kill(running.pid(), signal.SIGTERM)
    assert running.end()[0] == status
    assert ("/v1/deregister" in welcoming.paths()) == (status == 0)


def test_signals_are_passed_on(welcoming: LittleApi, start: Start, tmp_path: Path, port: int) -> None:
    """SIGHUP and SIGUSR1 reach the command, which stays registered; a signal that kills it gives 128 + its number."""
    # Under nohup the tests ignore SIGHUP, and a program inherits that.
    ignored = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        running = Running(start, tmp_path / "notes", port)
    finally:
        signal.signal(signal.SIGHUP, ignored)
    running.registered()
    for number in (signal.SIGHUP, signal.SIGUSR1):
        running.process.send_signal(number)
        name = signal.Signals(number).name
        wait_until(functools.partial(lambda name: name in running.notes, name))
    assert "/v1/deregister" not in welcoming.paths()
    running.process.send_signal(signal.SIGQUIT)
    assert running.end()[0] == 128 + signal.SIGQUIT
    assert "/v1/deregister" in welcoming.paths()


def test_a_terminals_interrupt_is_not_doubled(welcoming: LittleApi, start: Start, tmp_path: Path, port: int) -> None:
    """Ctrl-C goes to the whole process group, so to the command as well: it gets it once, and is deregistered."""
    master, slave = os.openpty()
    script = (
        "import fcntl, os, signal, sys, termios\n"
        "os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'compass.cli.main', *sys.argv[1:]])\n"
    )
    counting = (
        "import os, signal, socket, sys\n"
        "log = open(sys.argv[1], 'a', buffering=1)\n"
        "signal.signal(signal.SIGINT, lambda *_: log.write('SIGINT\\n') and None)\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "listening = socket.create_server(('127.0.0.1', int(os.environ['OPENGNS_PORT'])))\n"
        "log.write('up\\n')\n"
        "while True: listening.accept()[0].close()\n"
    )
    notes = tmp_path / "notes"
    notes.touch()
    begin = [sys.executable, "-c", script, "run", SERVICE, "--address", "127.0.0.1", "--port", str(port), "--"]
    command = [sys.executable, "-c", counting, str(notes)]
    process = subprocess.Popen(
        [*begin, *command],
        stdin=slave,
        env=os.environ | {"OPENGNS_API": welcoming.place, "OPENGNS_CREDENTIAL": CREDENTIAL},
    )
    try:
        welcoming.wait_for("/v1/register")
        os.write(master, b"\x03")
        welcoming.wait_for("/v1/deregister")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert notes.read_text().split() == ["up", "SIGINT"]
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


def test_a_command_that_ends_before_it_listens_is_never_registered(
    welcoming: LittleApi, start: Start, port: int
) -> None:
    """The run ends with the command's status and prints it."""
    process = start("run", SERVICE, "--port", str(port), "--", "sh", "-c", "exit 5")
    said = process.communicate(timeout=20)[1]
    assert process.returncode == 5
    assert "ended with status 5 before it accepted connections" in said
    assert "/v1/register" not in welcoming.paths()


def test_a_stop_before_it_listens_goes_straight_to_the_command(
    welcoming: LittleApi, start: Start, tmp_path: Path, port: int
) -> None:
    """There is nothing to deregister yet."""
    running = Running(start, tmp_path / "notes", port, "--deaf")
    running.pid()
    running.process.send_signal(signal.SIGTERM)
    assert running.end()[0] == 0
    assert running.notes[1:] == ["SIGTERM"]
    assert "/v1/register" not in welcoming.paths()


def test_a_command_that_does_not_listen_in_time_is_stopped(
    welcoming: LittleApi, start: Start, tmp_path: Path, port: int
) -> None:
    """The status is the one of timeout(1), and the text names where it was looked for."""
    running = Running(start, tmp_path / "notes", port, "--deaf", given=("--ready-timeout", "0.8"))
    status, said = running.end()
    assert status == ExitCode.NOT_LISTENING
    assert f"waiting: the command accepts no connections at 127.0.0.1:{port}; at most 0.8 s" in said
    assert f"accepts no connections at 127.0.0.1:{port} after 0.8 s" in said
    assert "/v1/register" not in welcoming.paths()


def test_the_service_runs_without_a_daemon_and_is_registered_later(
    welcoming: LittleApi, start: Start, tmp_path: Path, port: int
) -> None:
    """The name service may be down, the service must not: said once, tried again, then registered."""
    answers = [
        refusal("not-ready", 503),
        refusal("not-ready", 503),
        outcome("pending", why="the store of gns2 is unavailable"),
    ]
    welcoming.answers["/v1/register"] = lambda asked: answers.pop(0)
    running = Running(start, tmp_path / "notes", port)
    said = running.process.stderr
    assert said is not None
    assert "refusal: not-ready; the command keeps running, registration is retried" in said.readline()
    assert "the store of gns2 is unavailable; opengnscd keeps the registration" in said.readline()
    assert welcoming.paths().count("/v1/register") == 3
    running.process.send_signal(signal.SIGTERM)
    status, rest = running.end()
    assert (status, running.notes[1:], rest) == (0, ["SIGTERM"], "")
    assert welcoming.paths().count("/v1/deregister") == 1


def test_a_stop_does_not_wait_for_a_daemon_that_is_not_there(start: Start, tmp_path: Path, port: int) -> None:
    """Without a daemon the service runs, and ends at once on a stop signal."""
    running = Running(start, tmp_path / "notes", port, env={"OPENGNS_API": f"unix:{tmp_path}/nobody.sock"})
    running.pid()
    with wait_until(lambda: connected(port)):
        running.process.send_signal(signal.SIGTERM)
    status, said = running.end()
    assert status == 0
    assert said.count("cannot be reached") <= 1


def connected(port: int) -> socket.socket | None:
    """A connection, if one is accepted."""
    try:
        return socket.create_connection(("127.0.0.1", port))
    except OSError:
        return None


def test_asked_twice_it_stops_at_once(welcoming: LittleApi, start: Start, tmp_path: Path, port: int) -> None:
    """A second SIGTERM does not wait for a daemon that does not answer."""
    running = Running(start, tmp_path / "notes", port)
    held: list[Asked] = []

    def slow(asked: Asked) -> tuple[int, Any]:
        held.append(asked)
        running.process.wait(20)
        return outcome("offline")

    welcoming.answers["/v1/deregister"] = slow
    welcoming.wait_for("/v1/register")
    running.process.send_signal(signal.SIGTERM)
    wait_until(lambda: held)
    assert running.notes[1:] == []
    running.process.send_signal(signal.SIGTERM)
    assert running.end()[0] == 0
    assert running.notes[1:] == ["SIGTERM"]


def test_run_itself_killed_leaves_the_service_registered(
    welcoming: LittleApi, start: Start, tmp_path: Path, port: int
) -> None:
    """kill -9 of `run`: the command goes on, and the daemon watches its process, not that of `run`."""
    running = Running(start, tmp_path / "notes", port)
    watched = welcoming.wait_for("/v1/register").body["pid"]
    assert watched == running.pid() != running.process.pid
    running.process.kill()
    running.process.wait()
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
        assert "/v1/deregister" not in welcoming.paths()
    finally:
        os.kill(watched, signal.SIGKILL)


def test_a_port_in_use_is_refused_before_the_command_starts(welcoming: LittleApi, start: Start, tmp_path: Path) -> None:
    """Else another process would be registered under the service's name."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        running = Running(start, tmp_path / "notes", other.getsockname()[1])
        status, said = running.end()
    assert status == ExitCode.CONFLICT
    assert "another process accepts connections" in said
    assert running.notes == []


def test_a_command_that_cannot_be_started(start: Start, tmp_path: Path, port: int) -> None:
    """The statuses are the shell's."""
    plain = tmp_path / "plain"
    plain.write_text("no program")
    for command, status in ((str(plain), ExitCode.NOT_EXECUTABLE), ("no-such-command", ExitCode.NO_COMMAND)):
        process = start("run", SERVICE, "--port", str(port), "--", command)
        assert (process.wait(20), command in process.communicate()[1]) == (status, True)
