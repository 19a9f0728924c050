"""The ground of blocking programs: sockets with timeouts, threads for what goes on beside.

On it every awaitable of the core is done when it comes back, so a coroutine never really waits and `now` runs it
through in one go.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from compass.client.core.endpoint import ApiEndpoint

RECEIVE_OCTETS = 256 * 1024
"""Read at a time: most answers are one piece."""

T = TypeVar("T")


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that stands on a `Threads` ground."""
    try:
        work.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    work.close()
    raise RuntimeError("a coroutine on the blocking ground has waited for something else")


class SocketConnection:
    """A connection to the daemon."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    async def send(self, data: bytes) -> None:
        """Write all of it."""
        self._socket.sendall(data)

    async def receive(self, seconds: float | None) -> bytes:
        """What came next; empty at the end."""
        self._socket.settimeout(seconds)
        return self._socket.recv(RECEIVE_OCTETS)

    def close(self) -> None:
        """End it; a thread that reads it is told that it has ended, which closing alone would not do."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class ThreadTask:
    """A job. It is ended by closing what it reads; nobody waits for one that is not wait_at_exit."""

    def stop(self) -> None:
        """Whoever stops it has closed its line."""


class ThreadRuntime:
    """The ground itself."""

    async def open(self, endpoint: ApiEndpoint, seconds: float) -> SocketConnection:
        """Connect to the daemon."""
        if not endpoint.path:
            return SocketConnection(socket.create_connection((endpoint.address, endpoint.port), seconds))
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.settimeout(seconds)
            connected.connect(endpoint.path)
        except BaseException:
            connected.close()
            raise
        return SocketConnection(connected)

    async def sleep(self, seconds: float) -> None:
        """Nothing, for so long."""
        time.sleep(seconds)

    def seconds(self) -> float:
        """On a clock that never jumps."""
        return time.monotonic()

    def random(self) -> float:
        """From [0, 1)."""
        return random.random()

    def spawn(self, work: Coroutine[Any, Any, None], *, wait_at_exit: bool = False) -> ThreadTask:
        """A thread of its own; the interpreter waits for those that are wait_at_exit."""
        threading.Thread(target=run_sync, args=(work,), name="opengns", daemon=not wait_at_exit).start()
        return ThreadTask()
