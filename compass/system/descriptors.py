"""File descriptors that a reactor waits for."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol


class Readers(Protocol):
    """Part of a reactor that waits for file descriptors (Twisted's IReactorFDSet)."""

    def addReader(self, reader: object) -> None:  # noqa: N802
        """Call `reader.doRead` when its descriptor can be read."""

    def removeReader(self, reader: object) -> None:  # noqa: N802
        """Stop watching."""


class ReadableDescriptor:
    """File descriptor that a reactor watches (Twisted's IReadDescriptor); subclasses have `doRead`."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def fileno(self) -> int:
        """Return the number of the descriptor."""
        return self.descriptor

    def connectionLost(self, reason: object) -> None:
        """Do nothing: the reactor stops."""

    def logPrefix(self) -> str:  # noqa: N802
        """Return the prefix for Twisted's own log lines."""
        return type(self).__name__


class ProcessDescriptor(ReadableDescriptor):
    """Pidfd of a process, until it is readable because the process has ended, or no longer watched."""

    def __init__(self, descriptor: int, reactor: Readers, ended: Callable[[], None]) -> None:
        super().__init__(descriptor)
        self._reactor = reactor
        self._ended = ended

    def start(self) -> None:
        """Begin to watch."""
        self._reactor.addReader(self)

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
