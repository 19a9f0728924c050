"""Real processes, really killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from compass.agent.registration.process_watch import (
    CannotWatch,
    NoSuchProcess,
    ProcessWatch,
    is_recognisable,
    start_of,
)
from tests.e2e.containers import NEEDS_NAMESPACES, UNSHARE
from tests.support.reactor_thread import ReactorThread


@pytest.fixture(scope="module")
def thread() -> Iterator[ReactorThread]:
    thread = ReactorThread()
    yield thread
    thread.stop()


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_a_killed_process_is_seen_at_once(thread: ReactorThread, process: subprocess.Popen[bytes]) -> None:
    """P9: well within a second, also while its parent has not collected it."""
    ended = Event()
    watch = ProcessWatch(thread.reactor)
    thread.call(watch.watch, process.pid, start_of(process.pid), ended.set)
    began = time.monotonic()
    process.send_signal(signal.SIGKILL)
    assert ended.wait(10)
    assert time.monotonic() - began < 1.0


def test_watching_ends(thread: ReactorThread, process: subprocess.Popen[bytes]) -> None:
    """A watch that was stopped is not notified, and its file descriptor is closed."""
    ended, other = Event(), Event()
    watch = ProcessWatch(thread.reactor)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    stop = thread.call(watch.watch, process.pid, start_of(process.pid), ended.set)
    thread.call(watch.watch, process.pid, start_of(process.pid), other.set)
    thread.call(stop)
    thread.call(stop)
    process.kill()
    assert other.wait(10)
    thread.call(lambda: None)
    assert not ended.is_set() and len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_processes_that_are_not(thread: ReactorThread, process: subprocess.Popen[bytes]) -> None:
    """A watch fails for a free pid, for a pid of another process, and for a process that only waits to be collected."""
    watch = ProcessWatch(thread.reactor)
    with pytest.raises(NoSuchProcess, match="no process"):
        watch.watch(2**22 + 5, "", lambda: None)
    with pytest.raises(NoSuchProcess, match="another one"):
        watch.watch(process.pid, "some boot 12345", lambda: None)
    started = start_of(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(NoSuchProcess, match="has ended"):
        start_of(process.pid)
    with pytest.raises(NoSuchProcess):
        watch.watch(process.pid, started, lambda: None)
    with pytest.raises(CannotWatch):
        watch.watch(-1, "", lambda: None)


HARDENED = """
import json, os, sys
from compass.agent.registration.process_watch import (
    NoSuchProcess, ProcessWatch, Unrecognisable, is_recognisable, start_of)
from compass.system.machine import this_machine
class Readers:
    def addReader(self, reader): pass
    def removeReader(self, reader): pass
os.setgid(65534); os.setuid(65534)
pid, other, boot = int(sys.argv[1]), int(sys.argv[2]), this_machine().boot
watch = ProcessWatch(Readers())
def outcome(pid, started):
    try:
        watch.watch(pid, started, lambda: None)()
        return "watched"
    except (NoSuchProcess, Unrecognisable) as problem:
        return f"{type(problem).__name__}: {problem}"
print(json.dumps([watch.problem, start_of(pid), start_of(pid) == start_of(other), outcome(pid, start_of(pid)),
    outcome(pid, start_of(other)), outcome(pid, f"{boot} 1234"), outcome(4711, f"{boot} 1234")]))
"""


@NEEDS_NAMESPACES
def test_a_process_that_proc_hides(tmp_path: Path) -> None:
    """hidepid: its pidfd says that it lives, and with pidfs which one it is; no start time compares with that."""
    script = 'mount -o remount,hidepid=2 /proc; sleep 100 & one=$!; sleep 100 & "$@" $one $!; kill $one $!'
    command = [*UNSHARE, "--mount", "sh", "-c", script, "sh", sys.executable, "-c", HARDENED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    problem, started, alike, *outcomes = json.loads(done.stdout)
    assert "hidepid" in problem and "gid=" in problem
    assert outcomes[0] == "watched"
    if is_recognisable(started):
        assert not alike and outcomes[1].startswith("NoSuchProcess")
    assert outcomes[2].startswith("Unrecognisable") and "hidepid" in outcomes[2]
    assert outcomes[3] == "NoSuchProcess: there is no process 4711"


def test_the_number_of_a_thread(thread: ReactorThread) -> None:
    """A thread is not a process: the end of a thread is not the end of the program."""
    number = thread.call(threading.get_native_id)
    watch = ProcessWatch(thread.reactor)
    with pytest.raises(NoSuchProcess, match="thread, not of a process"):
        watch.watch(number, start_of(number), lambda: None)


def test_a_name_with_parentheses(tmp_path: Path) -> None:
    """A program may be called anything; the fields are found all the same."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text("7 (a) Z (b) S " + " ".join(map(str, range(4, 30))))
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text("boot\n")
    assert start_of(7, tmp_path) == "boot 22"
