"""Client for Twisted: the core's coroutines as Deferreds, on a given reactor.

client = Client(reactor, "portal.web")
registration = await client.register("portal.web", port=8080)
session = await client.connect("openuss", Factory.forProtocol(Asking))
answer = await session.use(lambda asking: asking.ask(b"..."))
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack, cast

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from compass.client.core.api import ANSWER_SECONDS, Options
from compass.client.core.client import CoreClient, RegistrationHandle
from compass.client.core.client import Registration as CoreRegistration
from compass.client.core.endpoint import ApiEndpoint
from compass.client.core.errors import ApiProblem
from compass.client.core.runtime import Face
from compass.client.core.session import CONNECT_SECONDS, Failures, SessionHandle
from compass.client.core.session import Session as CoreSession
from compass.client.core.view import Views
from compass.model.host_api import HostStatus, LocalEvent
from compass.model.rows import Listener

C = TypeVar("C")
P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger("compass.client")


def deferred(
    method: Callable[Concatenate[C, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Face[C], P], Deferred[T]]:
    """Return a coroutine method of the core as a method of its face that returns a Deferred."""

    @functools.wraps(method)
    def called(face: Face[C], /, *arguments: P.args, **named: P.kwargs) -> Deferred[T]:
        return Deferred.fromCoroutine(method(face.core, *arguments, **named))

    return called


class Client:
    """Client of the daemon of this host. See `CoreClient` for the arguments and for what the methods raise."""

    def __init__(
        self,
        reactor: Any,
        service: str = "",
        api: str | ApiEndpoint = "",
        *,
        answer_seconds: float = ANSWER_SECONDS,
        views: Views | None = None,
    ) -> None:
        self._reactor = reactor
        self._runtime = ReactorRuntime(reactor)
        self.core = CoreClient(self._runtime, service, api, answer_seconds, views)

    def close(self) -> Deferred[None]:
        """Stop all watches. Fires when the reports are delivered. Registrations stay until they are ended."""
        self.core.stop_watches()
        return self._runtime.join()

    resolve = deferred(CoreClient.resolve)
    dependencies = deferred(CoreClient.dependencies)
    report = deferred(CoreClient.report)

    def watch(
        self, told: Callable[[LocalEvent], object], service: str = "", since: int | None = None
    ) -> Deferred[None]:
        """Pass the dependencies of a service, and then each change, to the callback, also after restarts of the daemon,
        until the result is cancelled. It fires only with the reason for an end. `since`: only changes after this
        revision."""

        async def follow() -> None:
            async for event in self.core.watch(service, since):
                told(event)

        return Deferred.fromCoroutine(follow())

    def register(self, service: str, port: int, **options: Unpack[Options]) -> Deferred[Registration]:
        """Register `service` at `port` for this process (function 2.1), until `end` or the end of an `async with`
        block. See `compass.client.core.client.Options`."""
        return Deferred.fromCoroutine(self.core.register(service, port, **options)).addCallback(Registration)

    def status(self) -> Deferred[HostStatus]:
        """Return the daemon's status."""
        return Deferred.fromCoroutine(self.core.calls.status())

    def connect(
        self,
        name: str,
        factory: IProtocolFactory,
        *,
        seconds: float = CONNECT_SECONDS,
        tls: Any = None,
        resume: Callable[[Any, bytes], Awaitable[None]] | None = None,
    ) -> Deferred[Session]:
        """Open a session with a listener of a service or category; its stream is a protocol that the factory builds.

        `tls`: a result of `twisted.internet.ssl.optionsForClientTLS`. `resume`: called with a new protocol and the
        session's cookie, if it has one.
        """
        session = CoreSession(self.core, name, ProtocolOpener(self._reactor, factory, seconds, tls), resume)

        async def begin() -> Session:
            await session.open()
            return Session(session)

        return Deferred.fromCoroutine(begin())

    def attempt(
        self, name: str, once: Callable[[Listener], Awaitable[T]], failures: Failures = (ConnectError, ConnectionClosed)
    ) -> Deferred[T]:
        """Call `once` with the listeners of `name`, best first, until a call does not fail with one of `failures`.
        Failed listeners are avoided and reported."""
        return Deferred.fromCoroutine(self.core.attempt(name, once, failures))


class Registration(RegistrationHandle):
    """Registration of one listener of this process, until `end`."""

    report_load = deferred(CoreRegistration.report_load)
    report_check = deferred(CoreRegistration.report_check)
    end = deferred(CoreRegistration.end)

    async def __aenter__(self) -> Registration:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()


class Session(SessionHandle[Any]):
    """Connection to a listener of a name, which fails over to another one, until `close`."""

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    @property
    def protocol(self) -> Any:
        """Protocol of the current connection, built by the factory."""
        return self._session.stream

    def use(self, exchange: Callable[[Any], Awaitable[T]]) -> Deferred[T]:
        """Return the result of an exchange on the protocol. If the exchange fails (ConnectionClosed, a timeout), it is
        repeated with another listener, so it must be idempotent."""
        return Deferred.fromCoroutine(self._session.use(exchange))

    def fail_over(self, failure: BaseException) -> Deferred[None]:
        """Replace a connection that has failed."""
        return Deferred.fromCoroutine(self._session.fail_over(failure))


def tcp_endpoint(reactor: Any, address: str, port: int, seconds: float) -> Any:
    """Return a TCP endpoint for a literal address; typed Any, because zope's interface lacks `connect` for mypy."""
    kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
    return kind(reactor, address, port, timeout=cast(Any, seconds))


class ProtocolOpener:
    """Opener of protocols for `compass.client.core.session`."""

    timeouts: Failures = (TimeoutError, DeferredTimeout, ConnectTimeout)
    failures: Failures = (ConnectError, ConnectionClosed, OSError, EOFError, *timeouts)

    def __init__(self, reactor: Any, factory: IProtocolFactory, seconds: float, tls: Any) -> None:
        self._reactor = reactor
        self._factory = factory
        self._seconds = seconds
        self._tls = tls

    async def open(self, peer: Listener) -> IProtocol:
        where = tcp_endpoint(self._reactor, peer.address, peer.port, self._seconds)
        if self._tls is not None:
            where = wrapClientTLS(self._tls, where)
        protocol: IProtocol = await where.connect(self._factory)
        return protocol

    def is_closed(self, stream: IProtocol) -> bool:
        """Return whether the protocol has lost its connection; writing to it would raise nothing."""
        return not getattr(cast(Any, stream).transport, "connected", True)

    def close(self, stream: IProtocol) -> None:
        """Close the connection once all written data is sent."""
        transport = cast(Any, stream).transport
        if transport is not None:
            transport.loseConnection()


class ReactorRuntime:
    """Runtime on a Twisted reactor."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._waited_for: set[Deferred[None]] = set()

    async def open(self, endpoint: ApiEndpoint, seconds: float) -> ReactorConnection:
        where = (
            UNIXClientEndpoint(self._reactor, endpoint.path, timeout=cast(Any, seconds))
            if endpoint.path
            else tcp_endpoint(self._reactor, endpoint.address, endpoint.port, seconds)
        )
        try:
            connection = await where.connect(Factory.forProtocol(lambda: ReactorConnection(self._reactor)))
        except ConnectTimeout:
            raise TimeoutError from None
        except ConnectError as error:
            # The reasons of the other runtimes, by the system's own number.
            raise OSError(error.osError or 0, str(error)) from None
        return cast(ReactorConnection, connection)

    def sleep(self, seconds: float) -> Deferred[None]:
        return deferLater(self._reactor, seconds)

    def seconds(self) -> float:
        return float(self._reactor.seconds())

    def complete(
        self, work: Callable[[], Coroutine[Any, Any, T]], undo: Callable[[T], Coroutine[Any, Any, None]]
    ) -> Deferred[T]:
        ended: Deferred[T] = Deferred()

        async def finish() -> None:
            with contextlib.suppress(ApiProblem):
                await undo(await ended)

        def cancelled(_: Deferred[T]) -> None:
            self.spawn(finish(), wait_at_exit=True)

        waiting: Deferred[T] = Deferred(cancelled)

        def over(result: Any) -> None:
            # A cancelled Deferred has fired already.
            (ended if waiting.called else waiting).callback(result)

        Deferred.fromCoroutine(work()).addBoth(over)
        return waiting

    def spawn(self, work: Coroutine[Any, Any, None], *, wait_at_exit: bool = False) -> Deferred[None]:
        running: Deferred[None] = Deferred.fromCoroutine(work)

        def failed(failure: Failure) -> None:
            if not failure.check(CancelledError):
                _log.error("%s", failure.getTraceback())

        def over(result: None) -> None:
            self._waited_for.discard(running)

        if wait_at_exit:
            self._waited_for.add(running)
        running.addErrback(failed).addCallback(over)
        return running

    def join(self) -> Deferred[None]:
        """Wait for all work spawned with `wait_at_exit`."""
        waits: list[Deferred[None]] = []
        for running in list(self._waited_for):
            wait: Deferred[None] = Deferred()
            waits.append(wait)
            running.addCallback(wait.callback)
        return DeferredList(waits).addCallback(lambda _: None)


class ReactorConnection(Protocol):
    """Connection to the daemon."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._received = bytearray()
        self._closed = False
        self._waiting: Deferred[bytes] | None = None

    @property
    def socket(self) -> Any:
        return cast(Any, self.transport).getHandle()

    async def send(self, data: bytes) -> None:
        cast(Any, self.transport).write(data)

    async def receive(self, seconds: float | None) -> bytes:
        if not self._received and not self._closed:
            self._waiting = Deferred()
            if seconds is not None:
                self._waiting.addTimeout(seconds, self._clock)
            try:
                await self._waiting
            except DeferredTimeout:
                raise TimeoutError from None
            finally:
                self._waiting = None
        data, self._received = bytes(self._received), bytearray()
        return data

    def close(self) -> None:
        self._ended()
        if self.transport is not None:
            cast(Any, self.transport).abortConnection()

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended()

    def _ended(self) -> None:
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.called:
            self._waiting.callback(b"")
