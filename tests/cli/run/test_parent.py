"""`opengnsc run` as a parent: the whole tree ends, a port of others is not registered, terminals do not notice it."""

from __future__ import annotations

import contextlib
import functools
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from compass.model.exit_codes import ExitCode
from tests.support.fake_api import CREDENTIAL, SERVICE, LittleApi, Start, outcome, refusal, wait_until

SERVER = (
    "import os, signal, socket, sys\n"
    "s = socket.create_server(('127.0.0.1', int(os.environ['OPENGNS_PORT'])))\n"
    "open(sys.argv[1], 'a').write(f'{os.getpid()}\\n')\n"
    "while True: s.accept()[0].close()\n"
)
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVER
DAEMON = "import os, sys\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n" + SERVER
SILENT = "import sys, time; open(sys.argv[1], 'a').write('started'); time.sleep(60)\n"


@pytest.fixture
def welcoming(api: LittleApi) -> LittleApi:
    """A daemon that takes every registration and every result of a check."""
    api.answers = {"/v1/register": outcome(), "/v1/deregister": outcome("offline"), "/v1/check": outcome()}
    return api


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Path]:
    """File with the numbers of the processes that serve; they are ended after the test."""
    file = tmp_path / "pids"
    file.touch()
    yield file
    for pid in numbers_in(file):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def numbers_in(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()]


def has_line(file: Path, number: int) -> bool:
    return number in numbers_in(file)


def is_free(port: int) -> bool:
    with socket.socket() as unused:
        return unused.connect_ex(("127.0.0.1", port)) != 0


def script(tmp_path: Path, program: str, file: Path, more: str = "") -> list[str]:
    """A shell script that starts a server as its child, as many scripts do."""
    path = tmp_path / "server.py"
    path.write_text(program)
    shell = tmp_path / "start.sh"
    shell.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/shell\n{sys.executable} {path} {file}\n{more}")
    shell.chmod(0o755)
    return [str(shell)]


def run(start: Start, port: int, command: list[str], *given: str, address: str = "127.0.0.1") -> subprocess.Popen[str]:
    at = ("--address", address) if address else ()
    return start("run", SERVICE, "--port", str(port), *at, *given, "--", *command)


def test_the_child_of_a_script_ends_with_it(
    welcoming: LittleApi, start: Start, tmp_path: Path, port: int, pids: Path
) -> None:
    """SIGTERM ends the script and the server that it started: the port is free for the next start."""
    process = run(start, port, script(tmp_path, SERVER, pids))
    welcoming.wait_for("/v1/register")
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=20)[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert is_free(port)
    assert f"the command has ended and left process {numbers_in(pids)[0]} behind: stopping" in said


def test_what_ignores_sigterm_is_killed_at_a_second_signal(
    welcoming: LittleApi, start: Start, tmp_path: Path, port: int, pids: Path
) -> None:
    """The tree gets SIGTERM and time; a further stop signal does not wait for it."""
    process = run(start, port, script(tmp_path, STUBBORN, pids))
    welcoming.wait_for("/v1/register")
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    for line in process.stderr:
        if "behind: stopping" in line:
            break
    assert not is_free(port)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    assert is_free(port)


def test_a_script_that_does_not_get_ready_leaves_no_child(
    welcoming: LittleApi, start: Start, tmp_path: Path, port: int, pids: Path
) -> None:
    """A command that is stopped for its check is stopped with what it started."""
    process = run(start, port, script(tmp_path, SERVER, pids), "--check-command", "false", "--ready-timeout", "1")
    process.communicate(timeout=20)
    assert process.returncode == ExitCode.NOT_LISTENING
    assert numbers_in(pids) and is_free(port)


def test_a_restart_waits_for_the_end_of_the_old_tree(
    welcoming: LittleApi, start: Start, tmp_path: Path, port: int, pids: Path
) -> None:
    """The orphan of a killed script is ended, so the new server has the port, and it alone is registered."""
    process = run(start, port, script(tmp_path, SERVER, pids), "--restart", "on-failure")
    welcoming.wait_for("/v1/register")
    os.kill(int((tmp_path / "shell").read_text()), signal.SIGKILL)
    second = welcoming.wait_for("/v1/register", 2).body["pid"]
    first_server, second_server = wait_until(lambda: len(numbers_in(pids)) == 2 and numbers_in(pids))
    assert second == int((tmp_path / "shell").read_text())
    assert not Path(f"/proc/{first_server}").exists() and Path(f"/proc/{second_server}").exists()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert is_free(port)


def test_a_port_of_a_stranger_is_not_registered(
    welcoming: LittleApi, start: Start, tmp_path: Path, port: int, pids: Path
) -> None:
    """A stranger takes the port while the command starts: its answers are not the command's."""
    process = run(start, port, [sys.executable, "-c", SILENT, str(tmp_path / "on")], "--ready-timeout", "1")
    wait_until((tmp_path / "on").exists)
    with socket.create_server(("127.0.0.1", port)):
        said = process.communicate(timeout=20)[1]
    assert process.returncode == ExitCode.NOT_LISTENING
    assert f"the command does not hold 127.0.0.1:{port}, where another process accepts connections" in said
    assert "--port-holder any" in said
    assert "/v1/register" not in welcoming.paths()


def test_a_port_of_a_stranger_is_registered_if_asked(
    welcoming: LittleApi, start: Start, tmp_path: Path, port: int, pids: Path
) -> None:
    """A container engine holds the port for the command."""
    process = run(start, port, [sys.executable, "-c", SILENT, str(tmp_path / "on")], "--port-holder", "any")
    wait_until((tmp_path / "on").exists)
    with socket.create_server(("127.0.0.1", port)):
        welcoming.wait_for("/v1/register")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def test_a_command_that_becomes_a_daemon_is_followed(
    welcoming: LittleApi, start: Start, tmp_path: Path, port: int, pids: Path
) -> None:
    """The command forks twice, in a session of its own, and its first process ends: what serves is followed."""
    process = run(start, port, [sys.executable, "-c", DAEMON, str(pids)])
    registered = welcoming.wait_for("/v1/register").body["pid"]
    assert registered == numbers_in(pids)[0]
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=20)[1]
    assert process.returncode == 128 + signal.SIGTERM and is_free(port)
    assert "the command has started others and ended; what it started is waited for" in said
    posts = [asked.path for asked in welcoming.asked if asked.method == "POST"]
    assert posts == ["/v1/register", "/v1/deregister"]


def test_a_daemon_that_dies_is_an_end(
    welcoming: LittleApi, start: Start, tmp_path: Path, port: int, pids: Path
) -> None:
    """And is started again if asked."""
    process = run(start, port, [sys.executable, "-c", DAEMON, str(pids)], "--restart", "on-failure")
    welcoming.wait_for("/v1/register")
    os.kill(numbers_in(pids)[0], signal.SIGKILL)
    assert welcoming.wait_for("/v1/register", 2).body["pid"] == numbers_in(pids)[1]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)


def test_a_master_that_replaces_itself_is_followed(
    welcoming: LittleApi, start: Start, tmp_path: Path, port: int, pids: Path
) -> None:
    """Like gunicorn at USR2: the new master inherits the socket, and the old one ends when it is asked to."""
    program = (
        "import os, signal, socket, sys\n"
        "s = socket.create_server(('127.0.0.1', int(os.environ['OPENGNS_PORT'])))\n"
        "def replaced(*_):\n"
        "    if not os.fork(): open(sys.argv[1], 'a').write(f'{os.getpid()}\\n')\n"
        "signal.signal(signal.SIGUSR2, replaced)\n"
        "signal.signal(signal.SIGQUIT, lambda *_: os._exit(0))\n"
        "open(sys.argv[1], 'a').write(f'{os.getpid()}\\n')\n"
        "while True: s.accept()[0].close()\n"
    )
    process = run(start, port, [sys.executable, "-c", program, str(pids)])
    old = welcoming.wait_for("/v1/register").body["pid"]
    process.send_signal(signal.SIGUSR2)
    wait_until(lambda: len(numbers_in(pids)) == 2)
    os.kill(old, signal.SIGQUIT)
    new = welcoming.wait_for("/v1/register", 2).body["pid"]
    assert [old, new] == numbers_in(pids)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=20)[1]
    assert f"process {new}, which serves now, is followed" in said
    assert is_free(port)


def test_every_signal_that_can_be_caught_is_passed_on(
    welcoming: LittleApi, start: Start, tmp_path: Path, port: int
) -> None:
    """Also those that a shell or a program of its own uses, such as WINCH, TSTP, ALRM and the real-time ones."""
    numbers = sorted(
        set(signal.valid_signals())
        - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGTERM}
        - {signal.SIGINT, signal.SIGQUIT}
    )
    notes = tmp_path / "notes"
    notes.touch()
    program = (
        "import os, signal, socket, sys\n"
        "log = open(sys.argv[1], 'a', buffering=1)\n"
        "note = lambda number, frame: log.write(f'{number}\\n') and None\n"
        f"for number in {[int(number) for number in numbers]}: signal.signal(number, note)\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "s = socket.create_server(('127.0.0.1', int(os.environ['OPENGNS_PORT'])))\n"
        "while True: s.accept()[0].close()\n"
    )
    process = run(start, port, [sys.executable, "-c", program, str(notes)])
    welcoming.wait_for("/v1/register")
    for number in numbers:
        process.send_signal(number)
        wait_until(functools.partial(has_line, notes, int(number)))
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert sorted(map(int, notes.read_text().split())) == [int(number) for number in numbers]


class Terminal:
    """An interactive shell with job control on a terminal of its own."""

    def __init__(self, place: str) -> None:
        self.pid, self._master = pty.fork()
        if not self.pid:
            environment = os.environ | {"OPENGNS_API": place, "OPENGNS_CREDENTIAL": CREDENTIAL, "PS1": "ready> "}
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environment)
        self._seen = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, text: str) -> None:
        """Wait until the text is shown, after what was waited for before."""
        until = time.monotonic() + 15
        while text not in self._seen:
            assert time.monotonic() < until, self._seen
            if select.select([self._master], [], [], 0.1)[0]:
                self._seen += os.read(self._master, 4096).decode(errors="replace")
        self._seen = self._seen.partition(text)[2]

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.close(self._master)
        os.waitpid(self.pid, 0)


def test_job_control_works_through_it(welcoming: LittleApi, tmp_path: Path, port: int, pids: Path) -> None:
    """Ctrl-Z stops the job for the shell, `fg` continues it, and the command reads what is typed, as without `run`."""
    program = (
        "import os, socket, sys\n"
        "s = socket.create_server(('127.0.0.1', int(os.environ['OPENGNS_PORT'])))\n"
        "open(sys.argv[1], 'a').write(f'{os.getpid()}\\n')\n"
        "for line in sys.stdin: print('heard', line.strip()[::-1], flush=True)\n"
    )
    path = tmp_path / "reads.py"
    path.write_text(program)
    shell = Terminal(welcoming.place)
    try:
        given = f"--address 127.0.0.1 --port {port} -- {sys.executable} {path} {pids}"
        shell.type(f"{sys.executable} -m compass.cli.main run {SERVICE} {given}\n")
        shell.wait_for(": registered")
        shell.type("abc\n")
        shell.wait_for("heard cba")
        shell.type("\x1a")
        shell.wait_for("Stopped")
        shell.type("echo a-prompt-$((40+2))\n")
        shell.wait_for("a-prompt-42")
        [pid] = numbers_in(pids)
        assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        shell.type("fg\n")
        shell.wait_for("compass.cli.main run")
        shell.type("def\n")
        shell.wait_for("heard fed")
        shell.type("\x04")
        shell.wait_for("ready> ")
        shell.type("echo status-$?\n")
        shell.wait_for("status-0")
        welcoming.wait_for("/v1/deregister")
    finally:
        shell.close()


def test_it_waits_at_the_address_that_it_registers(
    welcoming: LittleApi, start: Start, tmp_path: Path, port: int, pids: Path
) -> None:
    """A server on the loopback is not registered at the host's address, where it refuses its users."""
    welcoming.answers["/v1/status"] = status_of("127.0.0.2")
    process = run(start, port, [sys.executable, "-c", SERVER, str(pids)], "--ready-timeout", "1", address="")
    said = process.communicate(timeout=20)[1]
    assert process.returncode == ExitCode.NOT_LISTENING
    assert f"accepts no connections at 127.0.0.2:{port}, the address that would be registered" in said
    assert f"but at 127.0.0.1:{port}" in said
    assert "/v1/register" not in welcoming.paths()


def test_it_is_registered_where_the_daemon_says(
    welcoming: LittleApi, start: Start, tmp_path: Path, port: int, pids: Path
) -> None:
    """The address of the daemon's configuration is the one that is tried."""
    welcoming.answers["/v1/status"] = status_of("127.0.0.1")
    process = run(start, port, [sys.executable, "-c", SERVER, str(pids)], address="")
    assert "address" not in welcoming.wait_for("/v1/register").body
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)


def test_an_address_that_is_learnt_late_is_tried_too(
    welcoming: LittleApi, start: Start, tmp_path: Path, port: int, pids: Path
) -> None:
    """The daemon comes back after the command listened elsewhere: it is not registered where it refuses."""
    answers = iter([refusal("unreachable", 503)])
    welcoming.answers["/v1/status"] = lambda _: next(answers, status_of("127.0.0.2"))
    process = run(start, port, [sys.executable, "-c", SERVER, str(pids)], address="")
    said = process.communicate(timeout=20)[1]
    assert process.returncode == ExitCode.BAD_INPUT
    assert f"accepts no connections at 127.0.0.2:{port}, the address of this host" in said
    assert is_free(port)


def status_of(address: str) -> tuple[int, dict[str, object]]:
    return 200, {
        "host": "web1",
        "session": "open",
        "server": "gns1",
        "store": "s",
        "revision": 1,
        "loaded": True,
        "services": [],
        "listeners": 0,
        "registrations": [],
        "address": address,
    }


UDP = (
    "import os, signal, socket\n"
    "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    "s.bind(('127.0.0.1', int(os.environ['OPENGNS_PORT'])))\n"
    "signal.pause()\n"
)


def test_a_service_over_udp_is_registered(welcoming: LittleApi, start: Start, tmp_path: Path, port: int) -> None:
    """The command has bound the port, and its check passes: no connection is tried, and the metadata says UDP."""
    process = run(start, port, [sys.executable, "-c", UDP], "--protocol", "udp", "--check-command", "true")
    body = welcoming.wait_for("/v1/register").body
    assert body["metadata"] == {"protocol": "udp"} and body["check"]["what"] == "true"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM


def test_a_udp_port_that_is_not_bound_is_not_registered(
    welcoming: LittleApi, start: Start, tmp_path: Path, port: int
) -> None:
    """A stranger's socket is not the command's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", port))
        command = [sys.executable, "-c", "import signal; signal.pause()"]
        process = run(start, port, command, "--protocol", "udp", "--ready-timeout", "0.5")
        said = process.communicate(timeout=20)[1]
    assert process.returncode == ExitCode.NOT_LISTENING
    assert f"is not bound to the UDP port 127.0.0.1:{port}" in said
