"""Checks that `opengnsc run` repeats: of a hung service, of one that has died inside, and of a silent watchdog."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.cli.run.test_supervisor import Running
from tests.support.fake_api import CREDENTIAL, SERVICE, LittleApi, Start, outcome, refusal, wait_until

OFTEN = ("--check-interval", "0.2", "--check-failures", "2", "--check-timeout", "0.3")


@pytest.fixture
def welcoming(api: LittleApi) -> LittleApi:
    """A daemon that takes every registration and every result of a check."""
    api.answers = {"/v1/register": outcome(), "/v1/deregister": outcome("offline"), "/v1/check": outcome()}
    return api


def problems(api: LittleApi) -> list[str]:
    return [asked.body.get("problem", "") for asked in api.asked if asked.path == "/v1/check"]


def end(running: Running) -> str:
    running.process.send_signal(signal.SIGTERM)
    return running.end()[1]


def test_a_stopped_service_fails_its_check(welcoming: LittleApi, start: Start, tmp_path: Path, port: int) -> None:
    """The port still accepts: the kernel does. The daemon hears each result, and the first success after SIGCONT."""
    running = Running(start, tmp_path / "notes", port, given=OFTEN)
    running.registered()
    declared = welcoming.wait_for("/v1/register").body["check"]
    assert declared["kind"] == "reported" and declared["what"] == "accepts connections" and declared["failures"] == 2
    first = welcoming.wait_for("/v1/check").body
    assert (first["service"], first["port"], first["credential"]) == (SERVICE, port, CREDENTIAL)
    assert problems(welcoming) == [""]
    os.kill(running.pid(), signal.SIGSTOP)
    wait_until(lambda: sum(map(bool, problems(welcoming))) >= 2)
    assert f"does not accept the connections that wait at 127.0.0.1:{port}" in problems(welcoming)[-1]
    os.kill(running.pid(), signal.SIGCONT)
    wait_until(lambda: problems(welcoming)[-2:] == ["", ""])
    said = end(running)
    assert "its users are sent elsewhere until it passes its check" in said
    assert "the command passes its check again" in said


def test_a_hung_service_is_started_again(welcoming: LittleApi, start: Start, tmp_path: Path, port: int) -> None:
    """A stopped command is ended with --restart, although SIGTERM finds it stopped, and the next one is registered."""
    running = Running(start, tmp_path / "notes", port, given=(*OFTEN, "--restart", "on-failure"))
    running.registered()
    first = running.pid()
    os.kill(first, signal.SIGSTOP)
    assert welcoming.wait_for("/v1/register", 2).body["pid"] != first
    assert not Path(f"/proc/{first}").exists()
    assert "and is stopped" in end(running)


def test_a_command_check_is_repeated(welcoming: LittleApi, start: Start, tmp_path: Path, port: int) -> None:
    """The output of the check is what the daemon hears."""
    sick = tmp_path / "sick"
    check = f"sh -c 'test ! -e {sick} || {{ echo no disk; exit 3; }}'"
    running = Running(start, tmp_path / "notes", port, given=(*OFTEN, "--check-command", check))
    running.registered()
    sick.touch()
    wait_until(lambda: sum(map(bool, problems(welcoming))) >= 2)
    assert problems(welcoming)[-1].endswith("status 3 no disk")
    sick.unlink()
    wait_until(lambda: problems(welcoming)[-1] == "")
    end(running)


@pytest.mark.parametrize("then", ["time.sleep(60)", "say('WATCHDOG=trigger'); time.sleep(60)"])
def test_a_silent_watchdog_is_a_failure(
    welcoming: LittleApi, start: Start, tmp_path: Path, port: int, then: str
) -> None:
    """The command sends signs of life as to systemd, ten times, and then none."""
    program = (
        "import os, socket, time\n"
        "import threading\n"
        "s = socket.create_server(('127.0.0.1', int(os.environ['OPENGNS_PORT'])))\n"
        "n = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "say = lambda text: n.sendto(text.encode(), '\\0' + os.environ['NOTIFY_SOCKET'][1:])\n"
        "assert os.environ['WATCHDOG_USEC'] == '400000' and 'WATCHDOG_PID' not in os.environ\n"
        "def accept():\n"
        "    while True: s.accept()[0].close()\n"
        "threading.Thread(target=accept, daemon=True).start()\n"
        "for _ in range(40): say('WATCHDOG=1'); time.sleep(.05)\n"
        f"{then}\n"
    )
    at = ("--address", "127.0.0.1", "--port", str(port), *OFTEN, "--check-watchdog", "0.4", "--check-command", "true")
    process = start("run", SERVICE, *at, "--", sys.executable, "-c", program)
    what = welcoming.wait_for("/v1/register").body["check"]["what"]
    assert what == "accepts connections, true, watchdog of 0.4 s"
    wait_until(lambda: "" in problems(welcoming))
    wait_until(lambda: any(problems(welcoming)))
    end_of = "its watchdog" if "trigger" in then else "its watchdog within 0.4 s"
    said = next(problem for problem in problems(welcoming) if end_of in problem)
    assert ("reported a failure to its watchdog" if "trigger" in then else "sent no sign of life") in said
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)


def test_no_repeated_check_if_not_wanted(welcoming: LittleApi, start: Start, tmp_path: Path, port: int) -> None:
    """--check-interval 0."""
    running = Running(start, tmp_path / "notes", port, given=("--check-interval", "0"))
    running.registered()
    assert "check" not in welcoming.wait_for("/v1/register").body
    end(running)


def test_a_daemon_of_an_earlier_version_hears_of_no_check(
    welcoming: LittleApi, start: Start, tmp_path: Path, port: int
) -> None:
    """An older daemon refuses the field that it does not know; the registration is repeated without it."""
    welcoming.answers["/v1/register"] = lambda asked: refusal("malformed", 400) if "check" in asked.body else outcome()
    running = Running(start, tmp_path / "notes", port)
    assert "check" in welcoming.wait_for("/v1/register").body
    assert "check" not in welcoming.wait_for("/v1/register", 2).body
    assert "opengnscd is of an earlier version and hears of no checks" in end(running)
