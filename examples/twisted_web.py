"""A Twisted web service that is registered, and asks another one by name for each of its pages.

    OPENGNS_SERVICE=portal.web OPENGNS_CREDENTIAL_FILE=portal.token ADDRESS=127.0.0.1 PORT=8003 \\
        python examples/twisted_web.py
"""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.python.log import startLogging
from twisted.web.client import Agent, readBody
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from compass.client import ApiProblem, Listener
from compass.client.twisted import Client

SERVICE = os.environ.get("OPENGNS_SERVICE", "portal.web")
ADDRESS, PORT = os.environ.get("ADDRESS", "127.0.0.1"), int(os.environ.get("PORT", "8003"))


class Portal(Resource):
    """Each page is what a listener of openuss says."""

    isLeaf = True

    def __init__(self, client: Client, agent: Agent) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._client = client
        self._agent = agent

    def render_GET(self, request: Request) -> int:
        """Ask, and answer when there is an answer."""
        ensureDeferred(self._answer(request))
        return NOT_DONE_YET

    async def _answer(self, request: Any) -> None:
        try:
            text = await self._client.attempt("openuss", self._ask)
        except ApiProblem as problem:
            request.setResponseCode(503)
            text = f"{problem}\n".encode()
        request.setHeader("Content-Type", "text/plain")
        request.write(b"the portal was told: " + text)
        request.finish()

    async def _ask(self, peer: Listener) -> bytes:
        response = await self._agent.request(b"GET", f"http://{peer.address}:{peer.port}/".encode())
        body: bytes = await readBody(response)
        return body


async def main(reactor: Any) -> None:
    """Listen, then register; at the end the other way round."""
    client = Client(reactor, SERVICE)
    site = Site(Portal(client, Agent(reactor, connectTimeout=3)))
    listening = await TCP4ServerEndpoint(reactor, PORT, interface=ADDRESS).listen(site)
    registration = await client.register(SERVICE, PORT, address=ADDRESS)

    async def leave() -> None:
        await registration.end()
        await listening.stopListening()
        await client.close()

    reactor.addSystemEventTrigger("before", "shutdown", lambda: ensureDeferred(leave()))
    # Until a signal stops the reactor.
    await Deferred()


if __name__ == "__main__":
    startLogging(sys.stderr)
    task.react(lambda reactor: ensureDeferred(main(reactor)))
