"""Process tree of a command: everything that it starts stays a descendant of this process, and ends with it.

This process is the reaper of its descendants (PR_SET_CHILD_SUBREAPER of prctl(2)), so that a process whose parent has
ended becomes a child of this one. Checks are children as well, and belong to no command.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable

from compass.cli.run.spawn import running_checks, spawning
from compass.system.proc import PortHolders, children_of, has_ended, port_holders, tree_of

PR_SET_CHILD_SUBREAPER = 36
"""Number of the option in prctl(2)."""
POLL_SECONDS = 0.02
"""Seconds between two looks at a tree that is ending."""
KILLED_SECONDS = 5.0
"""Seconds for killed processes to vanish; one that takes longer hangs in the kernel."""


def become_reaper() -> bool:
    """Make orphaned descendants children of this process. Returns False on a kernel without this."""
    return bool(ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def has_terminal() -> bool:
    """Return whether this process has a controlling terminal, whose signals reach its whole process group."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class ProcessTree:
    """Descendants of this process, without the checks."""

    def roots(self) -> set[int]:
        """Return the children: the command, and orphans of its tree."""
        with spawning:
            return children_of(os.getpid()) - running_checks

    def all(self) -> list[int]:
        """Return all processes that live, parents first."""
        return [pid for pid in tree_of(self.roots()) if not has_ended(pid)]

    def holders(self, address: str, port: int, protocol: str = "tcp") -> PortHolders:
        """Return which processes of the tree hold a listening port."""
        return port_holders(address, port, self.all(), protocol)

    def root_of(self, pid: int) -> int:
        """Return the child of this process from which a process descends; 0: none."""
        return next((root for root in sorted(self.roots()) if pid in tree_of([root])), 0)

    def reap_others(self, pid: int) -> None:
        """Reap ended children other than the command and the checks."""
        for child in self.roots() - {pid}:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)

    def signal(self, number: int) -> None:
        """Send a signal to each process, the parents first."""
        for pid in self.all():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def terminate(self) -> None:
        """Ask each process to end, also one that is stopped."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)

    def end(self, seconds: float, hurried: Callable[[], bool]) -> list[int]:
        """End what lives: SIGTERM, and SIGKILL after `seconds` or when `hurried()`. Returns what did not even then."""
        if not self._ended():
            self.terminate()
        until = time.monotonic() + seconds
        while not self._ended() and time.monotonic() < until and not hurried():
            time.sleep(POLL_SECONDS)
        until = time.monotonic() + KILLED_SECONDS
        while not self._ended() and time.monotonic() < until:
            # Again and again: a process may start another one before it gets the signal.
            self.signal(signal.SIGKILL)
            time.sleep(POLL_SECONDS)
        return self.all()

    def _ended(self) -> bool:
        self.reap_others(0)
        return not self.all()
