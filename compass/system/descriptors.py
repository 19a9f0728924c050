"""File descriptors that a reactor waits for."""

from __future__ import annotations


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
