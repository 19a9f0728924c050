"""Client for asyncio.

async with Client("portal.web") as client:
    async with client.register("portal.web", port=8080), client.connect("openuss") as session:
        await session.use(ask)
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Generic, NamedTuple, TypeVar, Unpack

from compass.client.core.api import ANSWER_SECONDS, Options
from compass.client.core.client import CoreClient, Registration
from compass.client.core.endpoint import ApiEndpoint
from compass.client.core.errors import ApiProblem
from compass.client.core.session import CONNECT_SECONDS, Session, StreamOpener
from compass.client.core.threads import RECEIVE_OCTETS
from compass.client.core.view import Views
from compass.model.rows import Listener

T = TypeVar("T")


class Stream(NamedTuple):
    """Connection to a listener."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Client(CoreClient):
    """Client of the daemon of this host. See `CoreClient`, whose methods are coroutines here."""

    def __init__(
        self,
        service: str = "",
        api: str | ApiEndpoint = "",
        *,
        answer_seconds: float = ANSWER_SECONDS,
        views: Views | None = None,
    ) -> None:
        self._runtime = AsyncioRuntime()
        super().__init__(self._runtime, service, api, answer_seconds, views)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop all watches and wait for the delivery of reports. Registrations stay until they are ended."""
        self.stop_watches()
        await self.join()

    async def join(self) -> None:
        """Wait for the delivery of reports, and until nothing is left of cancelled registrations."""
        await self._runtime.join()

    def register(self, service: str, port: int, **options: Unpack[Options]) -> AwaitableContext[Registration]:  # type: ignore[override]
        """Register: `async with client.register(...)`, or `registration = await client.register(...)`, ended by
        `await registration.end()`. See `Options`."""
        return AwaitableContext(super().register(service, port, **options), lambda registration: registration.end())

    def connect(
        self,
        name: str,
        *,
        seconds: float = CONNECT_SECONDS,
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
        resume: Callable[[Stream, bytes], Awaitable[None]] | None = None,
    ) -> AwaitableContext[Session[Stream]]:
        """Open a session with a listener of a service or category: `async with client.connect(...)`, or await it and
        close it. With `tls` over TLS, with a certificate for `server_name`. `seconds`: timeout of connecting.
        `resume`: called with a new connection and the session's cookie, if it has one. Raises NobodyThere, and what
        `resolve` raises."""
        session = Session(self, name, AsyncioOpener(seconds, tls, server_name), resume)

        async def begin() -> Session[Stream]:
            await session.open()
            return session

        async def end(session: Session[Stream]) -> None:
            session.close()

        return AwaitableContext(begin(), end)


class AwaitableContext(Generic[T]):
    """Awaitable that is also a context manager: entering awaits `begin`, leaving awaits `end`."""

    def __init__(self, begin: Coroutine[Any, Any, T], end: Callable[[T], Awaitable[None]]) -> None:
        self._begin = begin
        self._end = end
        self._value: T | None = None

    def __await__(self) -> Generator[Any, Any, T]:
        return self._begin.__await__()

    async def __aenter__(self) -> T:
        self._value = await self._begin
        return self._value

    async def __aexit__(self, *_: object) -> None:
        assert self._value is not None
        await self._end(self._value)


class AsyncioOpener(StreamOpener):
    """Opener of stream connections for `compass.client.core.session`."""

    async def open(self, peer: Listener) -> Stream:
        opening = asyncio.open_connection(peer.address, peer.port, ssl=self._tls, server_hostname=self._server_name)
        return Stream(*await asyncio.wait_for(opening, self._seconds))

    def is_closed(self, stream: Stream) -> bool:
        """Return whether the listener has closed the connection."""
        return stream.writer.is_closing() or stream.reader.at_eof()

    def close(self, stream: Stream) -> None:
        stream.writer.close()


class AsyncioRuntime:
    """Runtime on the running asyncio loop."""

    def __init__(self) -> None:
        self._waited_for: set[asyncio.Task[Any]] = set()

    async def open(self, endpoint: ApiEndpoint, seconds: float) -> AsyncioConnection:
        if endpoint.path:
            opening = asyncio.open_unix_connection(endpoint.path)
        else:
            opening = asyncio.open_connection(endpoint.address, endpoint.port)
        return AsyncioConnection(Stream(*await asyncio.wait_for(opening, seconds)))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def seconds(self) -> float:
        return asyncio.get_running_loop().time()

    async def complete(
        self, work: Callable[[], Coroutine[Any, Any, T]], undo: Callable[[T], Coroutine[Any, Any, None]]
    ) -> T:
        left = False

        async def finish() -> T:
            try:
                result = await work()
                if left:
                    await undo(result)
            except asyncio.CancelledError:
                # The loop ends (`asyncio.run` cancels all tasks and waits for them): whether the work was done is
                # unknown, so it is done again.
                with contextlib.suppress(ApiProblem):
                    await undo(await work())
                raise
            return result

        # It begins before the caller can be cancelled: a task that is cancelled before it begins does nothing.
        finishing = asyncio.get_running_loop().create_task(finish())
        try:
            return await asyncio.shield(finishing)
        except asyncio.CancelledError:
            left = True
            if not finishing.done():
                self._wait_for(finishing)
            elif not finishing.cancelled() and finishing.exception() is None:
                await undo(finishing.result())
            raise

    def spawn(self, work: Coroutine[Any, Any, None], *, wait_at_exit: bool = False) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        if wait_at_exit:
            self._wait_for(task)
        return task

    def _wait_for(self, task: asyncio.Task[Any]) -> None:
        self._waited_for.add(task)
        task.add_done_callback(self._waited_for.discard)

    async def join(self) -> None:
        """Wait for all work spawned with `wait_at_exit`."""
        await asyncio.gather(*self._waited_for, return_exceptions=True)


class AsyncioConnection:
    """Connection to the daemon."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    @property
    def socket(self) -> Any:
        return self._stream.writer.get_extra_info("socket")

    async def send(self, data: bytes) -> None:
        self._stream.writer.write(data)
        await self._stream.writer.drain()

    async def receive(self, seconds: float | None) -> bytes:
        return await asyncio.wait_for(self._stream.reader.read(RECEIVE_OCTETS), seconds)

    def close(self) -> None:
        self._stream.writer.close()
