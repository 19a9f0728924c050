"""Registration by the ASGI lifespan: a server that starts an application before it listens, played by the test."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from compass.client import asgi
from compass.client.asgi import Message, Receive, Registered, Send
from compass.client.asyncio import Client
from tests.support.fake_api import CREDENTIAL, SERVICE, LittleApi, outcome, refusal, wait_until


class Server:
    """Speaks the lifespan protocol to an application, in the order in which servers do."""

    def __init__(self, application: Registered) -> None:
        self._to: asyncio.Queue[Message] = asyncio.Queue()
        self._from: asyncio.Queue[Message] = asyncio.Queue()
        self.running = asyncio.create_task(application({"type": "lifespan"}, self._to.get, self._from.put))

    async def tell(self, what: str) -> str:
        """Send `startup` or `shutdown`; the type of the answer."""
        await self._to.put({"type": f"lifespan.{what}"})
        answered = asyncio.create_task(self._from.get())
        await asyncio.wait([answered, self.running], return_when=asyncio.FIRST_COMPLETED, timeout=10)
        return str((await answered)["type"]) if answered.done() else "nothing"


async def with_lifespan(scope: Message, receive: Receive, send: Send) -> None:
    """An application that takes part."""
    for _ in range(2):
        await send({"type": f"{(await receive())['type']}.complete"})


async def without_lifespan(scope: Message, receive: Receive, send: Send) -> None:
    """An application that does not."""
    assert scope["type"] == "http", "only HTTP"


async def failing(scope: Message, receive: Receive, send: Send) -> None:
    """An application that cannot start."""
    await receive()
    await send({"type": "lifespan.startup.failed"})
    raise RuntimeError("no database")


def played(
    api: LittleApi, port: int, application: asgi.Application, scene: Callable[[Server], Awaitable[None]]
) -> None:
    """A scene with a server of that application."""

    async def play() -> None:
        async with Client(SERVICE, api.place) as client:
            registered = Registered(application, SERVICE, port, client, credential=CREDENTIAL)
            await asyncio.wait_for(scene(Server(registered)), 30)

    asyncio.run(play())


@pytest.mark.parametrize("application", [with_lifespan, without_lifespan])
def test_an_application_is_registered_once_its_port_accepts(
    api: LittleApi, port: int, application: asgi.Application
) -> None:
    """The registration waits for the port, not for the startup; the deregistration precedes the shutdown."""
    api.answers = {"/v1/register": outcome(), "/v1/deregister": outcome("offline")}

    async def scene(server: Server) -> None:
        assert await server.tell("startup") == "lifespan.startup.complete"
        await asyncio.sleep(3 * asgi.PROBE_SECONDS)
        assert api.asked == []
        listening = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", port)
        await asyncio.to_thread(api.wait_for, "/v1/register")
        await asyncio.to_thread(wait_until, lambda: api.paths() == ["/v1/register"])
        # The daemon has been asked; that its answer is read is not seen from outside.
        await asyncio.sleep(0.2)
        assert await server.tell("shutdown") == "lifespan.shutdown.complete"
        assert api.paths() == ["/v1/register", "/v1/deregister"]
        listening.close()
        await server.running

    played(api, port, application, scene)


def test_an_application_that_cannot_start_is_not_registered(api: LittleApi, port: int) -> None:
    """The server sees the application's own error."""

    async def scene(server: Server) -> None:
        assert await server.tell("startup") == "lifespan.startup.failed"
        with pytest.raises(RuntimeError, match="no database"):
            await server.running

    played(api, port, failing, scene)
    assert api.asked == []


def test_that_it_cannot_be_registered_is_logged_and_the_application_serves(
    api: LittleApi, port: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal and a port that is not opened in time are logged."""
    api.answers["/v1/register"] = refusal("bad-credential")

    async def refused(server: Server) -> None:
        listening = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", port)
        await server.tell("startup")
        await asyncio.to_thread(wait_until, lambda: "refusal: bad-credential" in caplog.text)
        assert await server.tell("shutdown") == "lifespan.shutdown.complete"
        listening.close()

    played(api, port, with_lifespan, refused)
    monkeypatch.setattr(asgi, "LISTENING_SECONDS", 0.1)
    caplog.set_level(logging.ERROR)

    async def deaf(server: Server) -> None:
        await server.tell("startup")
        await asyncio.to_thread(wait_until, lambda: "is address= missing?" in caplog.text)
        assert await server.tell("shutdown") == "lifespan.shutdown.complete"

    played(api, port, with_lifespan, deaf)
    assert api.paths() == ["/v1/register"]
