"""Runtime of the core: connections to the daemon, pauses, and concurrent work.

The core is written once, as coroutines that await nothing else. Each client variant has a runtime: its awaitables are
asyncio's, or Deferreds; those of the blocking runtime are complete when they are returned, so
`compass.client.core.threads.run_sync` runs a coroutine of the core to its end in one step.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from compass.client.core.endpoint import ApiEndpoint

T = TypeVar("T")
C_co = TypeVar("C_co", covariant=True)


class Face(Protocol[C_co]):
    """Object of a client variant that has methods of an object of the core."""

    @property
    def core(self) -> C_co:
        """Object of the core."""


class Connection(Protocol):
    """Connection to the daemon."""

    def send(self, data: bytes) -> Awaitable[None]:
        """Write all of `data`. Raises OSError."""

    def receive(self, seconds: float | None) -> Awaitable[bytes]:
        """Return the next bytes; empty at the end. Raises TimeoutError if none arrive in time, OSError."""

    @property
    def socket(self) -> Any:
        """Socket of the connection, to ask the kernel about its peer."""

    def close(self) -> None:
        """Close the connection at once; a pending `receive` returns empty. A repeated call does nothing."""


class Task(Protocol):
    """Handle of spawned work."""

    def cancel(self) -> object:
        """Cancel the work. A repeated call does nothing."""


class Runtime(Protocol):
    """Runtime of the core."""

    def open(self, endpoint: ApiEndpoint, seconds: float) -> Awaitable[Connection]:
        """Connect to the daemon. Raises OSError, TimeoutError."""

    def sleep(self, seconds: float) -> Awaitable[None]:
        """Pause."""

    def seconds(self) -> float:
        """Return the time of a monotonic clock."""

    def complete(
        self, work: Callable[[], Coroutine[Any, Any, T]], undo: Callable[[T], Coroutine[Any, Any, None]]
    ) -> Awaitable[T]:
        """Return the result of work that is not broken off: if the caller is cancelled or interrupted meanwhile, the
        work runs to its end concurrently, and its result is undone. `work` may be called again for that."""

    def spawn(self, work: Coroutine[Any, Any, None], *, wait_at_exit: bool = False) -> Task:
        """Run work concurrently. `wait_at_exit`: the program does not exit before the work is done."""
