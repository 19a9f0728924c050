"""Registration of an ASGI application for as long as it is served (ASGI lifespan protocol, version 2.0).

    app = Registered(application, "frontpage.web", port=8080)

Servers start an application before they listen, so it is registered as soon as its port accepts connections, and
deregistered when the server ends the application. Several worker processes of one server share one registration, which
ends with the last of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Unpack

from compass.client.asyncio import Client
from compass.client.core.api import Options
from compass.client.core.client import Registration
from compass.client.core.credential import CredentialProblem
from compass.client.core.errors import ApiProblem

LISTENING_SECONDS = 30.0
"""Time limit for the server to listen after the start of the application, as in `opengnsc run`."""
PROBE_SECONDS = 0.05
"""Seconds between two checks whether the server listens."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

_log = logging.getLogger("compass.client")


class Registered:
    """ASGI application that is registered as a listener of `service` at `port` while it is served.

    `client`: by default a new one for the service. Options are those of a registration. A failed registration is
    logged and does not end the application.
    """

    def __init__(
        self,
        application: Application,
        service: str,
        port: int,
        client: Client | None = None,
        **options: Unpack[Options],
    ) -> None:
        self.client = client or Client(service)
        self._is_own = client is None
        self._application = application
        self._service = service
        self._port = port
        self._options = options
        self._announcing: asyncio.Task[Registration | None] | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve the application; lifespan events start and end the registration."""
        if scope["type"] != "lifespan":
            await self._application(scope, receive, send)
            return
        taken = False

        async def received() -> Message:
            nonlocal taken
            taken = True
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                # Users are notified before any part of the application ends.
                await self._leave()
            return message

        async def sent(message: Message) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                self._announcing = asyncio.create_task(self._announce())

        try:
            await self._application(scope, received, sent)
        except Exception:
            if taken:
                raise
            # An application without lifespan support raises an exception (ASGI lifespan protocol).
        finally:
            if taken:
                await self._leave()
        if not taken:
            await _answer(received, sent)

    async def _announce(self) -> Registration | None:
        address = self._options.get("address", "") or "127.0.0.1"
        try:
            async with asyncio.timeout(LISTENING_SECONDS):
                while not await _accepts(address, self._port):
                    await asyncio.sleep(PROBE_SECONDS)
            options: Options = {"shared": True, **self._options}
            return await self.client.register(self._service, self._port, **options)
        except TimeoutError:
            text = (
                f"no server listens at {address} port {self._port} after {LISTENING_SECONDS:g} s; is address= missing?"
            )
            _log.error("%s is not registered: %s", self._service, text)
        except (ApiProblem, CredentialProblem) as problem:
            _log.error("%s is not registered: %s", self._service, problem)
        return None

    async def _leave(self) -> None:
        announcing, self._announcing = self._announcing, None
        if announcing is None:
            return
        if not announcing.done():
            announcing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            registration = await announcing
            if registration is not None:
                await registration.end()
        # What is left of a registration that was cancelled ends before the application does.
        await (self.client.close() if self._is_own else self.client.join())


async def _answer(receive: Receive, send: Send) -> None:
    """Answer the lifespan events of an application that does not support them."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


async def _accepts(address: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(address, port)
    except OSError:
        return False
    writer.close()
    return True
