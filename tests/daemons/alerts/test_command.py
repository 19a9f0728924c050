"""Command channel: a command that runs has its whole input, whatever becomes of the server."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

_SERVER = """
import os, signal, sys
from twisted.internet import reactor
from compass.daemons.alerts.command import command_runner
command = ("sh", "-c", "sleep 0.2; cat > %s; mv %s %s" % (sys.argv[1] + ".new", sys.argv[1] + ".new", sys.argv[1]))
command_runner(reactor, command)(b"x" * 200_000)
os.kill(os.getpid(), signal.SIGKILL)
"""
"""A server that is killed right after it has started the command; the input is longer than a pipe holds."""


def test_a_command_has_its_whole_input_when_the_server_is_killed(tmp_path: Path) -> None:
    """The input "is complete before the command starts": no command has to ignore an empty or a short one."""
    target = tmp_path / "input"
    ended = subprocess.run([sys.executable, "-c", _SERVER, str(target)], timeout=20)
    assert ended.returncode == -signal.SIGKILL
    until = time.monotonic() + 10.0
    while not target.exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert target.read_bytes() == b"x" * 200_000
