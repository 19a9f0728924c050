"""Run ids: a run is known to be over only by a process that can know."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from compass.daemons.process import run_id

_PRINT = "from compass.daemons.process.run_id import new_run_id; print(new_run_id(), flush=True); input()"


@pytest.fixture
def other() -> subprocess.Popen[str]:
    """Start another process that has printed its run id and lives until its input ends."""
    return subprocess.Popen([sys.executable, "-c", _PRINT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_killed_run_is_over_before_its_parent_has_waited(other: subprocess.Popen[str]) -> None:
    """A living run is not over; a killed one is, also as a zombie."""
    assert other.stdout is not None and other.stdin is not None
    id = other.stdout.readline().strip()
    assert not run_id.is_over(id)
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert run_id.is_over(id)
    other.wait()
    assert run_id.is_over(id)
    other.stdin.close()
    other.stdout.close()


def test_another_process_with_the_same_number_is_another_run() -> None:
    """The start is part of the id, and two runs of one process differ."""
    id = run_id.new_run_id()
    assert not run_id.is_over(id) and id != run_id.new_run_id()
    assert run_id.is_over(f"{id[:24]}{'0' * 16}{id[40:]}")


@pytest.mark.parametrize("id", ["", "gns1", "0123456789abcdef", "0" * 48, "x" * 48])
def test_a_run_elsewhere_is_not_known_to_be_over(id: str) -> None:
    """An id of another machine, boot or PID namespace, or of a program that makes other ids, proves nothing."""
    assert not run_id.is_over(id)


def test_a_hidden_process_is_not_known_to_be_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of another user may be hidden in /proc: it is there all the same."""

    def refused(pid: int, number: int) -> None:
        raise PermissionError

    id = run_id.new_run_id()
    monkeypatch.setattr(os, "kill", refused)
    assert not run_id.is_over(f"{id[:24]}{'0' * 16}{id[40:]}")
