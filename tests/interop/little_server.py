"""A little server for the interop test: stdlib TLS around the real wire and the real rules, without disk or Twisted.

It knows one store in memory and pushes by the model's own filter; what it lacks is everything about being reliable.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from compass.model.catalogue import Catalogue
from compass.model.decide import answer, decide, permit
from compass.model.draft import Asker
from compass.model.interest import audience, interest, snapshot, widening
from compass.model.names import category_of
from compass.model.replies import Reply, Watching
from compass.model.requests import Attend, Pull, Undecided, Watch
from compass.wire import limits
from compass.wire.connection import Acknowledged, Asked, Ended, Opened, ServerConnection
from compass.wire.frames import frame
from compass.wire.messages import Hello, Notice, encode

NAME = "gns1.example"
STORE = "little"
ADMIN = Asker("admin", "alice", "127.0.0.1")


class LittleServer:
    """Listens on 127.0.0.1 in a thread of its own while the context is entered."""

    def __init__(self, authority: Path, certificate: Path, key: Path) -> None:
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority))
        self._tls.load_cert_chain(certificate, key)
        self._tls.verify_mode = ssl.CERT_REQUIRED
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_3
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="little server", daemon=True)
        self._watching: dict[ServerConnection, tuple[frozenset[str], Callable[[], None]]] = {}
        self.catalogue = Catalogue()
        self.acknowledged: list[int] = []
        self.port = 0

    def __enter__(self) -> LittleServer:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def ask(self, request: Undecided, asker: Asker = ADMIN) -> Reply:
        """Decide a request in the server's thread, as if an administrator had sent it."""
        done: Future[Reply] = Future()
        self._loop.call_soon_threadsafe(lambda: done.set_result(self._decide(request, asker)))
        return done.result(10)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)

    async def _close(self) -> None:
        self._server.close()
        sessions = asyncio.all_tasks() - {asyncio.current_task()}
        for session in sessions:
            session.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asker = asker_of(writer.get_extra_info("peercert"))
        connection = ServerConnection(time.monotonic(), limits.FRAME_MAX_FROM_HOST)
        flush: Callable[[], None] = lambda: writer.write(connection.bytes_to_send())  # noqa: E731
        try:
            while connection.state != "ended" and (data := await reader.read(65536)):
                for event in connection.receive(data, time.monotonic()):
                    match event:
                        case Opened(Hello() as hello):
                            connection.welcome(NAME, STORE, self.catalogue.revision, "little", hello.versions[0])
                        case Asked(number, request):
                            reply = self._answer(request, asker, connection, flush)
                            connection.reply(number, reply, time.monotonic())
                        case Acknowledged(acknowledge):
                            self.acknowledged.append(acknowledge.revision)
                        case Ended():
                            break
                flush()
        finally:
            self._watching.pop(connection, None)
            writer.close()

    def _answer(self, request: Any, asker: Asker, connection: ServerConnection, flush: Callable[[], None]) -> Reply:
        if isinstance(request, Pull):
            return answer(self.catalogue, request, asker, time.time()).reply
        if not isinstance(request, Watch):
            return self._decide(request, asker)
        refused = permit(self.catalogue, request, asker, time.time())
        if refused is not None:
            return refused.reply
        self._decide(Attend(asker.name, request.services, "", 0), Asker("server", NAME, ""))
        self._watching[connection] = (frozenset(map(category_of, request.services)), flush)
        connection.watching = True
        return watching(self.catalogue, request)

    def _decide(self, request: Undecided, asker: Asker) -> Reply:
        decision = decide(self.catalogue, request, asker, time.time(), "token-of-" + asker.name)
        for change in decision.changes:
            self.catalogue = self.catalogue.apply(change)
            told = audience(self.catalogue, change.row)
            encoded = frame(encode(Notice(change, widening(self.catalogue, change))))
            for connection, (categories, flush) in self._watching.items():
                if told & categories:
                    connection.push(encoded, change.revision, time.monotonic())
                    flush()
        return decision.reply


def watching(catalogue: Catalogue, request: Watch) -> Reply:
    """Always a snapshot: there is no log to resume from."""
    return Watching(STORE, catalogue.revision, snapshot(catalogue, interest(catalogue, request.services)))


def asker_of(certificate: dict[str, Any]) -> Asker:
    """Role and name from the subject: opengnsp.md, "Transport"."""
    subject = {key: value for part in certificate["subject"] for key, value in part}
    return Asker(subject["organizationalUnitName"], subject["commonName"], "127.0.0.1")
