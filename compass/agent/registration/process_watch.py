"""Watch of registered processes: the pidfd of a process becomes readable when it ends.

A pid alone identifies a process for a limited time, so a process is identified by pid, boot and start time; a later
process with the same pid is another one. Where /proc hides a process (hidepid, or the proc file system of another PID
namespace), its pidfd still says whether it lives, and where the kernel has pidfs (Linux 6.9), the pidfd's inode takes
the place of the start time.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from compass.system.descriptors import ProcessDescriptor, Readers
from compass.system.machine import PROC, has_own_proc, problem_of_proc, this_machine

HIDDEN = "hidden"
"""Start of a process that /proc hides, on a kernel whose pidfds have no identity of their own."""
WHY_HIDDEN = (
    "/proc hides it from this daemon, or did so when it was registered; mount /proc without hidepid, or with gid= and "
    "a group of the daemon's user"
)


class NoSuchProcess(Exception):
    """Process that does not exist, or no longer."""


class CannotWatch(Exception):
    """Process that lives but cannot be watched, for example for lack of file descriptors."""


class Unrecognisable(Exception):
    """Living process of which cannot be said whether it is the one that was registered."""


def start_of(pid: int, proc: Path = PROC) -> str:
    """Return boot and start time of a living process (proc(5)). Raises NoSuchProcess, CannotWatch."""
    started = _visible_start(pid, proc) if proc != PROC or has_own_proc() else ""
    if started:
        return f"{this_machine(proc=proc).boot} {started}"
    descriptor = _opened(pid)
    try:
        return _hidden_start(pid, descriptor)
    finally:
        os.close(descriptor)


def _visible_start(pid: int, proc: Path) -> str:
    """Return the start time of a process, or an empty string if /proc does not show it. Raises NoSuchProcess."""
    try:
        # The second field is the program's name in parentheses and may contain anything, even parentheses.
        fields = (proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    if not fields or fields[0] in "ZX":
        raise NoSuchProcess(f"process {pid} has ended")
    return fields[19]


def _hidden_start(pid: int, descriptor: int) -> str:
    """Return boot and identity of a process that /proc hides, by its pidfd. Raises NoSuchProcess."""
    ended = select.poll()
    ended.register(descriptor, select.POLLIN)
    if ended.poll(0):
        raise NoSuchProcess(f"process {pid} has ended")
    other = os.eventfd(0)
    try:
        # Before pidfs, all pidfds have one inode: that of all anonymous files.
        found = os.fstat(descriptor)
        is_pidfs = found.st_dev != os.fstat(other).st_dev
    finally:
        os.close(other)
    return f"{this_machine().boot} {f'pidfd:{found.st_ino}' if is_pidfs else HIDDEN}"


def _opened(pid: int) -> int:
    """Return a pidfd. Raises NoSuchProcess, CannotWatch."""
    try:
        return os.pidfd_open(pid)
    except (ProcessLookupError, OverflowError):
        # A number that is none for any kernel is not even sent to this one.
        raise NoSuchProcess(f"there is no process {pid}") from None
    except OSError as error:
        if pid > 0 and error.errno in (errno.EINVAL, errno.ENOENT):
            raise NoSuchProcess(f"{pid} is the number of a thread, not of a process") from None
        raise CannotWatch(f"cannot watch process {pid}: {error.strerror}") from error


def _is_seen(started: str) -> bool:
    """Return whether a start was read in /proc."""
    return started.rpartition(" ")[2].isdigit()


def is_recognisable(started: str) -> bool:
    """Return whether a process with this start can be recognised after a restart of the daemon."""
    return not started.endswith(f" {HIDDEN}")


class ProcessWatch:
    """Watch of processes by pidfd, on a reactor that accepts file descriptors."""

    def __init__(self, reactor: Readers) -> None:
        self._reactor = reactor
        self.problem = problem_of_proc()
        """Reason for which not all processes can be seen, and what to do; empty: they can."""

    def start_of(self, pid: int) -> str:
        """Return the start of a living process. Raises NoSuchProcess, CannotWatch."""
        return start_of(pid)

    def watch(self, pid: int, started: str, ended: Callable[[], None]) -> Callable[[], None]:
        """Call `ended` once when the process ends; the result stops watching.

        Raises NoSuchProcess when it has ended already or the pid is another process by now, CannotWatch, and
        Unrecognisable if `started` was seen in /proc, which hides the process now, or the reverse.
        """
        descriptor = _opened(pid)
        try:
            # After the pidfd is open, the pid cannot be given to another process unnoticed.
            if not _is_seen(started):
                found = _hidden_start(pid, descriptor)
            elif not _is_seen(found := start_of(pid)):
                raise Unrecognisable(f"process {pid} cannot be recognised: {WHY_HIDDEN}")
            if found != started:
                raise NoSuchProcess(f"process {pid} is another one now")
        except (NoSuchProcess, CannotWatch, Unrecognisable):
            os.close(descriptor)
            raise
        watched = ProcessDescriptor(descriptor, self._reactor, ended)
        watched.start()
        return watched.stop


class Watcher(Protocol):
    """Interface of `ProcessWatch`."""

    problem: str

    def start_of(self, pid: int) -> str:
        """Return what identifies the process together with its pid. Raises NoSuchProcess, CannotWatch."""

    def watch(self, pid: int, started: str, ended: Callable[[], None]) -> Callable[[], None]:
        """Call `ended` once; the result stops watching. Raises NoSuchProcess, CannotWatch, Unrecognisable."""
