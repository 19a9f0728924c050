"""Runtime of blocking programs: sockets with timeouts, and threads for concurrent work.

Every awaitable is complete when it is returned, so a coroutine never suspends and `run_sync` runs it in one step.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from compass.client.core.endpoint import ApiEndpoint
from compass.client.core.runtime import Face

RECEIVE_OCTETS = 256 * 1024
"""Octets read at a time: most responses arrive in one piece."""

C = TypeVar("C")
P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Source(Protocol[T_co]):
    """Source of results one after another, for instance a watch."""

    async def next(self) -> T_co | None:
        """Return the next result; None at the end."""

    def close(self) -> None:
        """End the source."""


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that uses a `ThreadRuntime`."""
    try:
        work.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    work.close()
    raise RuntimeError("a coroutine on the blocking runtime has suspended")


def iterate_sync(source: Source[T]) -> Iterator[T]:
    """Yield the results of a source, which is closed at the end of the iteration."""
    try:
        while (result := run_sync(source.next())) is not None:
            yield result
    finally:
        source.close()


def blocking(method: Callable[Concatenate[C, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[Face[C], P], T]:
    """Return a coroutine method of the core as a blocking method of its face."""

    @functools.wraps(method)
    def called(face: Face[C], /, *arguments: P.args, **named: P.kwargs) -> T:
        return run_sync(method(face.core, *arguments, **named))

    return called


class SocketConnection:
    """Connection to the daemon."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    @property
    def socket(self) -> Any:
        return self._socket

    async def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    async def receive(self, seconds: float | None) -> bytes:
        self._socket.settimeout(seconds)
        return self._socket.recv(RECEIVE_OCTETS)

    def close(self) -> None:
        """Close the connection; shutting it down first ends a read in another thread."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class ThreadTask:
    """Handle of a thread, which ends when the connection that it reads is closed."""

    def cancel(self) -> None:
        """Do nothing: the thread ends when its connection is closed."""


class ThreadRuntime:
    """Runtime on sockets and threads."""

    async def open(self, endpoint: ApiEndpoint, seconds: float) -> SocketConnection:
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
        time.sleep(seconds)

    def seconds(self) -> float:
        return time.monotonic()

    async def complete(
        self, work: Callable[[], Coroutine[Any, Any, T]], undo: Callable[[T], Coroutine[Any, Any, None]]
    ) -> T:
        """Do the work in a thread, which goes on if this one is interrupted (KeyboardInterrupt, an exception of a
        signal handler, a greenlet that is killed). At the end of the interpreter it ends with the process."""
        done: Future[T] = Future()
        lock = threading.Lock()
        left = False

        def run() -> None:
            try:
                result = run_sync(work())
            except BaseException as failure:
                done.set_exception(failure)
                return
            with lock:
                done.set_result(result)
                is_unwanted = left
            if is_unwanted:
                run_sync(undo(result))

        try:
            try:
                threading.Thread(target=run, name="opengns", daemon=True).start()
            except RuntimeError:
                # No thread can be started at the end of the interpreter or at the limit of threads.
                return await work()
            return done.result()
        except BaseException:
            with lock:
                left = True
                is_complete = done.done() and done.exception() is None
            if is_complete:
                await undo(done.result())
            raise

    def spawn(self, work: Coroutine[Any, Any, None], *, wait_at_exit: bool = False) -> ThreadTask:
        """Start a thread; the interpreter waits for a thread with `wait_at_exit`."""
        thread = threading.Thread(target=run_sync, args=(work,), name="opengns", daemon=not wait_at_exit)
        try:
            thread.start()
        except RuntimeError:
            # No thread can be started at the end of the interpreter or at the limit of threads: what must be done is
            # done here.
            if not wait_at_exit:
                work.close()
                raise
            run_sync(work)
        return ThreadTask()
