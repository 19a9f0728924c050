"""The three faces of the client library, each driven by a test as if it were blocking: one suite for all of them."""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

import compass.client.asyncio
import compass.client.twisted
from compass import client
from compass.client.core.endpoint import ApiEndpoint
from compass.model.host_api import LocalEvent, Outcome, Resolved
from compass.model.replies import Dependencies
from compass.model.rows import Listener
from tests.e2e.processes import PATIENCE_SECONDS

ANSWER_SECONDS = 1.5
"""Time limit for a listener's answer in an exchange."""

T = TypeVar("T")


class Conversation(Protocol):
    """A session with listeners of the service in `counting`."""

    @property
    def peer(self) -> Listener:
        """Use the variant while the block runs."""

    def ask(self, line: str) -> int:
        """An exchange."""

    def bake(self, cookie: bytes) -> None:
        """Set the session's cookie."""

    def close(self) -> None:
        """The end."""


class Told(Protocol):
    """A watch."""

    def next(self) -> LocalEvent:
        """The next event."""

    def close(self) -> None:
        """The end."""


class Face(Protocol):
    """Part that all variants share."""

    def resolve(self, name: str) -> Resolved:
        """See compass.client."""

    def dependencies(self, service: str = "") -> Dependencies:
        """See compass.client."""

    def report(self, peer: Listener, detail: str) -> Outcome:
        """See compass.client."""

    def register(self, service: str, port: int, **options: Any) -> Any:
        """A registration: `outcome` is its outcome, and it is a context manager."""

    def watch(self, service: str = "") -> Told:
        """See compass.client."""

    def converse(self, name: str) -> Conversation:
        """A session that keeps its count in the cookie when it moves."""

    def close(self) -> None:
        """Ends the client, once its reports are delivered."""


# Blocking -------------------------------------------------------------------------------------------------


class BlockingFace:
    """The blocking face itself."""

    def __init__(self, place: ApiEndpoint, service: str) -> None:
        self._client = client.Client(service, place, answer_seconds=PATIENCE_SECONDS)
        self.resolve = self._client.resolve
        self.dependencies = self._client.dependencies
        self.register = self._client.register
        self.close = self._client.close

    def report(self, peer: Listener, detail: str) -> Outcome:
        return self._client.report(peer.service, peer.address, peer.port, detail=detail)

    def watch(self, service: str = "") -> Told:
        return BlockingTold(self._client.watch(service))

    def converse(self, name: str) -> Conversation:
        return BlockingConversation(self._client, name)


class BlockingTold:
    """A generator, read by a thread."""

    def __init__(self, events: Iterator[LocalEvent]) -> None:
        self._told: queue.Queue[LocalEvent] = queue.Queue()
        first = next(events)
        self._told.put(first)
        threading.Thread(target=self._read, args=(events,), daemon=True).start()

    def _read(self, events: Iterator[LocalEvent]) -> None:
        for event in events:
            self._told.put(event)

    def next(self) -> LocalEvent:
        return self._told.get(timeout=PATIENCE_SECONDS)

    def close(self) -> None:
        """The thread ends with the program."""


class BlockingConversation:
    def __init__(self, used: client.Client, name: str) -> None:
        self._session = used.connect(name, seconds=ANSWER_SECONDS, resume=self._resume)

    @property
    def peer(self) -> Listener:
        return self._session.peer

    def ask(self, line: str) -> int:
        def exchange(stream: socket.socket) -> int:
            stream.sendall(f"{line}\n".encode())
            answer = b""
            while not answer.endswith(b"\n"):
                piece = stream.recv(100)
                if not piece:
                    raise EOFError
                answer += piece
            return int(answer)

        return self._session.use(exchange)

    def bake(self, cookie: bytes) -> None:
        self._session.cookie = cookie

    def close(self) -> None:
        self._session.close()

    @staticmethod
    def _resume(stream: socket.socket, cookie: bytes) -> None:
        stream.sendall(b"resume " + cookie + b"\n")


# asyncio --------------------------------------------------------------------------------------------------


class AsyncioFace:
    """Variant on an asyncio loop in a thread."""

    def __init__(self, place: ApiEndpoint, service: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._client = compass.client.asyncio.Client(service, place, answer_seconds=PATIENCE_SECONDS)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_SECONDS)

    def resolve(self, name: str) -> Resolved:
        return self.run(self._client.resolve(name))

    def dependencies(self, service: str = "") -> Dependencies:
        return self.run(self._client.dependencies(service))

    def report(self, peer: Listener, detail: str) -> Outcome:
        return self.run(self._client.report(peer.service, peer.address, peer.port, detail=detail))

    @contextmanager
    def register(self, service: str, port: int, **options: Any) -> Iterator[Any]:
        entered = self._client.register(service, port, **options)
        registration = self.run(entered.__aenter__())
        try:
            yield registration
        finally:
            self.run(entered.__aexit__())

    def watch(self, service: str = "") -> Told:
        return AsyncioTold(self, self._client, service)

    def converse(self, name: str) -> Conversation:
        return AsyncioConversation(self, self._client, name)

    def close(self) -> None:
        self.run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_SECONDS)
        self._loop.close()


class AsyncioTold:
    def __init__(self, face: AsyncioFace, used: compass.client.asyncio.Client, service: str) -> None:
        self._face = face
        self._events = used.watch(service)

    def next(self) -> LocalEvent:
        async def event() -> LocalEvent:
            return await anext(self._events)

        return self._face.run(event())

    def close(self) -> None:
        self._face.run(self._events.aclose())  # type: ignore[attr-defined]


class AsyncioConversation:
    def __init__(self, face: AsyncioFace, used: compass.client.asyncio.Client, name: str) -> None:
        self._face = face

        async def resume(stream: compass.client.asyncio.Stream, cookie: bytes) -> None:
            stream.writer.write(b"resume " + cookie + b"\n")

        async def connect() -> Any:
            return await used.connect(name, seconds=ANSWER_SECONDS, resume=resume)

        self._session = face.run(connect())

    @property
    def peer(self) -> Listener:
        peer: Listener = self._session.peer
        return peer

    def ask(self, line: str) -> int:
        async def exchange(stream: compass.client.asyncio.Stream) -> int:
            stream.writer.write(f"{line}\n".encode())
            return int(await asyncio.wait_for(stream.reader.readuntil(b"\n"), ANSWER_SECONDS))

        answer: int = self._face.run(self._session.use(exchange))
        return answer

    def bake(self, cookie: bytes) -> None:
        self._session.cookie = cookie

    def close(self) -> None:
        self._face.run(self._closed())

    async def _closed(self) -> None:
        self._session.close()


# Twisted --------------------------------------------------------------------------------------------------


class Asking(LineOnlyReceiver):
    """The client's side of the line protocol."""

    delimiter = b"\n"

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._asked: Deferred[int] | None = None

    def ask(self, line: str) -> Deferred[int]:
        self._asked = Deferred()
        self.say(line.encode())
        return self._asked.addTimeout(ANSWER_SECONDS, self._reactor)

    def say(self, line: bytes) -> None:
        """Without an answer."""
        cast(Any, self).sendLine(line)

    def lineReceived(self, line: bytes) -> None:
        asked, self._asked = self._asked, None
        assert asked is not None
        asked.callback(int(line))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        asked, self._asked = self._asked, None
        if asked is not None and not asked.called:
            asked.errback(reason)


class TwistedFace:
    """Variant on a reactor of its own in a thread; not the global one, which the library does not know."""

    def __init__(self, place: ApiEndpoint, service: str) -> None:
        self.reactor: Any = EPollReactor()
        self._thread = threading.Thread(target=self.reactor.run, args=(False,), daemon=True)
        self._thread.start()
        self._client = compass.client.twisted.Client(self.reactor, service, place, answer_seconds=PATIENCE_SECONDS)

    def run(self, call: Any) -> Any:
        """The result of the Deferred that `call` gives in the reactor's thread."""
        done: queue.Queue[Any] = queue.Queue()
        self.reactor.callFromThread(lambda: call().addBoth(done.put))
        result = done.get(timeout=PATIENCE_SECONDS)
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def resolve(self, name: str) -> Resolved:
        resolved: Resolved = self.run(lambda: self._client.resolve(name))
        return resolved

    def dependencies(self, service: str = "") -> Dependencies:
        dependencies: Dependencies = self.run(lambda: self._client.dependencies(service))
        return dependencies

    def report(self, peer: Listener, detail: str) -> Outcome:
        where = (peer.service, peer.address, peer.port)
        outcome: Outcome = self.run(lambda: self._client.report(*where, detail=detail))
        return outcome

    @contextmanager
    def register(self, service: str, port: int, **options: Any) -> Iterator[Any]:
        registration = self.run(lambda: self._client.register(service, port, **options))
        try:
            yield registration
        finally:
            self.run(registration.end)

    def watch(self, service: str = "") -> Told:
        return TwistedTold(self, self._client, service)

    def converse(self, name: str) -> Conversation:
        return TwistedConversation(self, self._client, name)

    def close(self) -> None:
        self.run(self._client.close)
        self.reactor.callFromThread(self.reactor.stop)
        self._thread.join(PATIENCE_SECONDS)


class TwistedTold:
    def __init__(self, face: TwistedFace, used: compass.client.twisted.Client, service: str) -> None:
        self._face = face
        self._told: queue.Queue[Any] = queue.Queue()

        def begin() -> None:
            self._watch = used.watch(self._told.put, service)
            self._watch.addErrback(lambda failure: self._told.put(failure))

        face.reactor.callFromThread(begin)

    def next(self) -> LocalEvent:
        event = self._told.get(timeout=PATIENCE_SECONDS)
        if isinstance(event, Failure):
            event.raiseException()
        assert isinstance(event, LocalEvent)
        return event

    def close(self) -> None:
        self._face.reactor.callFromThread(self._watch.cancel)
        while not isinstance(ended := self._told.get(timeout=PATIENCE_SECONDS), Failure):
            pass
        assert ended.check(CancelledError)


class TwistedConversation:
    def __init__(self, face: TwistedFace, used: compass.client.twisted.Client, name: str) -> None:
        self._face = face
        factory = Factory.forProtocol(lambda: Asking(face.reactor))

        async def resume(asking: Asking, cookie: bytes) -> None:
            asking.say(b"resume " + cookie)

        self._session = face.run(
            lambda: used.connect(name, factory, seconds=ANSWER_SECONDS, resume=resume)  # type: ignore[arg-type]
        )

    @property
    def peer(self) -> Listener:
        peer: Listener = self._session.peer
        return peer

    def ask(self, line: str) -> int:
        answer: int = self._face.run(lambda: self._session.use(lambda asking: asking.ask(line)))
        return answer

    def bake(self, cookie: bytes) -> None:
        self._session.cookie = cookie

    def close(self) -> None:
        self._face.reactor.callFromThread(self._session.close)


FACES: dict[str, type[Any]] = {"blocking": BlockingFace, "asyncio": AsyncioFace, "twisted": TwistedFace}


class Opened:
    """A face as a context manager."""

    def __init__(self, kind: str, place: ApiEndpoint, service: str) -> None:
        self.face: Face = FACES[kind](place, service)

    def __enter__(self) -> Face:
        return self.face

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.face.close()
