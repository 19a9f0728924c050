"""Watch of registered processes: the pidfd of a process becomes readable when it ends.

A pid alone identifies a process for a limited time, so a process is identified by pid, boot and start time; a later
process with the same pid is another one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

PROC = Path("/proc")


class NoSuchProcess(Exception):
    """Process that does not exist, or no longer."""


class CannotWatch(Exception):
    """Process that lives but cannot be watched, for example for lack of file descriptors."""


def start_of(pid: int, proc: Path = PROC) -> str:
    """Return boot and start time of a living process (proc(5)). Raises NoSuchProcess."""
    try:
        # The second field is the program's name in parentheses and may contain anything, even parentheses.
        fields = (proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        raise NoSuchProcess(f"there is no process {pid}") from None
    if not fields or fields[0] in "ZX":
        raise NoSuchProcess(f"process {pid} has ended")
    return f"{boot} {fields[19]}"


@implementer(IReadDescriptor)
class _Watched:
    """Pidfd that the reactor reads."""

    def __init__(self, descriptor: int, ended: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._ended = ended

    def fileno(self) -> int:
        """Return the pidfd."""
        return self._descriptor

    def doRead(self) -> None:  # noqa: N802
        """Report the end of the process: the pidfd is readable."""
        self._ended()

    def connectionLost(self, reason: Failure) -> None:
        """Do nothing: the reactor stops, the process may live."""

    def logPrefix(self) -> str:  # noqa: N802
        """Return the prefix for Twisted's own log lines."""
        return "process watch"


class Readers(Protocol):
    """Part of a reactor that waits for file descriptors (Twisted's IReactorFDSet)."""

    def addReader(self, reader: object) -> None:  # noqa: N802
        """Call `reader.doRead` when its descriptor can be read."""

    def removeReader(self, reader: object) -> None:  # noqa: N802
        """Stop watching."""


class ProcessWatch:
    """Watch of processes by pidfd, on a reactor that accepts file descriptors."""

    def __init__(self, reactor: Readers) -> None:
        self._reactor = reactor

    def start_of(self, pid: int) -> str:
        """Return the start of a living process. Raises NoSuchProcess."""
        return start_of(pid)

    def watch(self, pid: int, started: str, ended: Callable[[], None]) -> Callable[[], None]:
        """Call `ended` once when the process ends; the result stops watching.

        Raises NoSuchProcess when it has ended already or the pid is another process by now, and CannotWatch.
        """
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            raise NoSuchProcess(f"there is no process {pid}") from None
        except OSError as error:
            raise CannotWatch(f"cannot watch process {pid}: {error.strerror}") from error
        try:
            # After the pidfd is open, the pid cannot be given to another process unnoticed.
            if start_of(pid) != started:
                raise NoSuchProcess(f"process {pid} is another one now")
        except NoSuchProcess:
            os.close(descriptor)
            raise
        watched: _Watched

        def stop() -> None:
            nonlocal descriptor
            if descriptor >= 0:
                self._reactor.removeReader(watched)
                os.close(descriptor)
                descriptor = -1

        def died() -> None:
            stop()
            ended()

        watched = _Watched(descriptor, died)
        self._reactor.addReader(watched)
        return stop


class Watcher(Protocol):
    """Interface of `ProcessWatch`."""

    def start_of(self, pid: int) -> str:
        """Return what identifies the process together with its pid. Raises NoSuchProcess."""

    def watch(self, pid: int, started: str, ended: Callable[[], None]) -> Callable[[], None]:
        """Call `ended` once; the result stops watching. Raises NoSuchProcess, CannotWatch."""
