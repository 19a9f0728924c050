"""Processes that `opengnsc run` starts: the command, and its checks, each with the signals as this process got them."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import threading
from collections.abc import Mapping, Sequence

PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)
"""Signals that the Python interpreter ignores; a command gets their default action."""
OUTPUT_MAX = 200
"""Characters of a failed check's output that are shown."""
OUTPUT_OCTETS_MAX = 1024 * 1024
"""Most octets that a check may write; further writes of it fail, so that it fills no memory."""

spawning = threading.Lock()
"""Lock held while a check's process is started, and while children are listed."""
running_checks: set[int] = set()
"""Numbers of the check processes that this module waits for."""


def spawn_command(command: Sequence[str], environment: Mapping[str, str], *, own_group: bool) -> int:
    """Start the command. Returns its process number. Raises OSError.

    `own_group`: in a process group of its own. On a terminal it stays in ours, which the shell puts in the foreground,
    stops and continues as a whole, as if this process were not there.
    """
    arguments = list(command)
    ignored = PYTHON_IGNORES
    if own_group:
        return os.posix_spawnp(command[0], arguments, environment, setsigmask=[], setsigdef=ignored, setpgroup=0)
    return os.posix_spawnp(command[0], arguments, environment, setsigmask=[], setsigdef=ignored)


def run_check(command: Sequence[str], seconds: float) -> str:
    """Run the command of a check in a process group of its own. Returns an empty string, or its problem."""
    output = os.memfd_create("check", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(output, OUTPUT_OCTETS_MAX)
        fcntl.fcntl(output, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
        actions = [(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
        with spawning:
            try:
                pid = os.posix_spawnp(
                    command[0],
                    list(command),
                    os.environ,
                    file_actions=actions,
                    setsigmask=[],
                    setsigdef=PYTHON_IGNORES,
                    setpgroup=0,
                )
            except OSError as error:
                return str(error.strerror)
            running_checks.add(pid)
        try:
            problem = _wait(pid, seconds)
        finally:
            with spawning:
                os.waitpid(pid, 0)
                running_checks.discard(pid)
        if problem.startswith("status"):
            shown = os.pread(output, 4 * OUTPUT_MAX, 0).rstrip(b"\0").decode("utf-8", "replace").strip()[:OUTPUT_MAX]
            return f"{problem} {shown}".strip()
        return problem
    finally:
        os.close(output)


def _wait(pid: int, seconds: float) -> str:
    """Wait for the end of a check, which is not reaped yet. Returns its problem."""
    descriptor = os.pidfd_open(pid)
    try:
        ended = select.select([descriptor], [], [], seconds)[0]
    finally:
        os.close(descriptor)
    if not ended:
        os.killpg(pid, signal.SIGKILL)
        return f"not ended within {seconds:g} s"
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert found is not None
    status = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
    return f"status {status}" if status else ""
