"""What the shells are handed, as structural types, so that they run on a reactor and on virtual time alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Timer(Protocol):
    """A call to come (Twisted's IDelayedCall)."""

    def cancel(self) -> None:
        """It will not come."""

    def active(self) -> bool:
        """Whether it is still to come."""

    def getTime(self) -> float:  # noqa: N802
        """When it comes, in the clock's seconds."""


class Clock(Protocol):
    """Monotonic seconds and calls to come (Twisted's IReactorTime)."""

    def seconds(self) -> float:
        """Seconds on a clock that never jumps."""

    def callLater(self, delay: float, callable: Callable[..., object], *args: Any, **kw: Any) -> Timer:
        """Call after `delay` seconds."""


class Stream(Protocol):
    """A connection's transport (Twisted's ITCPTransport and ITransport)."""

    def write(self, data: bytes) -> None:
        """Queue bytes."""

    def loseConnection(self) -> None:
        """Close once everything is written."""

    def abortConnection(self) -> None:
        """Close now."""

    def getPeer(self) -> object:
        """The address of the other side."""

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Who is told to pause when too much is queued."""

    def unregisterProducer(self) -> None:
        """Nobody any more. A TLS stream is not closed before."""
