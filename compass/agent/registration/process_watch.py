"""Watch of registered processes: the pidfd of a process becomes readable when it ends.

A pid alone identifies a process for a limited time, so a process is identified by pid, boot and start time; a later
process with the same pid is another one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from compass.system.descriptors import ReadableDescriptor

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
        watched = _WatchedProcess(descriptor, self._reactor, ended)
        self._reactor.addReader(watched)
        return watched.stop


class _WatchedProcess(ReadableDescriptor):
    """Pidfd of a process, until it is readable or no longer watched."""

    def __init__(self, descriptor: int, reactor: Readers, ended: Callable[[], None]) -> None:
        super().__init__(descriptor)
        self._reactor = reactor
        self._ended = ended

    def doRead(self) -> None:  # noqa: N802
        """Report the end of the process."""
        self.stop()
        self._ended()

    def stop(self) -> None:
        """Stop watching. A repeated call does nothing."""
        if self.descriptor >= 0:
            self._reactor.removeReader(self)
            os.close(self.descriptor)
            self.descriptor = -1


class Watcher(Protocol):
    """Interface of `ProcessWatch`."""

    def start_of(self, pid: int) -> str:
        """Return what identifies the process together with its pid. Raises NoSuchProcess."""

    def watch(self, pid: int, started: str, ended: Callable[[], None]) -> Callable[[], None]:
        """Call `ended` once; the result stops watching. Raises NoSuchProcess, CannotWatch."""
