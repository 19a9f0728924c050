"""What the core stands on: bytes to and from a daemon, pauses, and work that goes on beside the caller's.

The core is written once, as coroutines that await nothing but these. Each face brings a ground: on asyncio's they are
asyncio's awaitables, on Twisted's they are Deferreds, and on the blocking one they are done when they come back, so
that `compass.client.core.threads.now` runs a coroutine of the core through in one go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from typing import Any, Protocol

from compass.client.core.endpoint import ApiEndpoint


class Connection(Protocol):
    """A connection to the daemon."""

    def send(self, data: bytes) -> Awaitable[None]:
        """Write all of it. Raises OSError."""

    def receive(self, seconds: float | None) -> Awaitable[bytes]:
        """What came next; empty at the end. Raises TimeoutError when nothing comes in time, OSError."""

    def close(self) -> None:
        """End it at once; who waits in `receive` is told that it is the end. Harmless when it has ended."""


class Task(Protocol):
    """Work that goes on beside the caller's."""

    def stop(self) -> None:
        """End it; harmless when it has ended."""


class Runtime(Protocol):
    """Where the core runs."""

    def open(self, endpoint: ApiEndpoint, seconds: float) -> Awaitable[Connection]:
        """Connect to the daemon. Raises OSError, TimeoutError."""

    def sleep(self, seconds: float) -> Awaitable[None]:
        """Nothing, for so long."""

    def seconds(self) -> float:
        """On a clock that never jumps."""

    def random(self) -> float:
        """From [0, 1)."""

    def spawn(self, work: Coroutine[Any, Any, None], *, wait_at_exit: bool = False) -> Task:
        """Run it beside the caller. `wait_at_exit`: the program does not end before it is done."""
