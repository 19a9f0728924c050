"""The face for programs with threads, or with none.

    client = Client("portal.web")
    with client.register("portal.web", port=8080), client.connect("openuss") as session:
        session.use(lambda stream: ask(stream, b"..."))

A client may be shared by threads, and works on in the child of a fork.
"""

from __future__ import annotations

import os
import socket
import ssl
import weakref
from collections.abc import Callable, Iterator
from typing import Generic, Literal, TypeVar, Unpack

from compass.client.core.api import ANSWER_SECONDS
from compass.client.core.client import CoreClient, Options
from compass.client.core.client import Registration as CoreRegistration
from compass.client.core.endpoint import ApiEndpoint
from compass.client.core.session import CONNECT_SECONDS, Failures
from compass.client.core.session import Session as CoreSession
from compass.client.core.shared_view import SharedView
from compass.client.core.threads import ThreadRuntime, run_sync
from compass.client.core.view import Views
from compass.model.host_api import HostStatus, LocalEvent, Outcome, Resolved
from compass.model.replies import Dependencies
from compass.model.rows import Listener

S = TypeVar("S")
T = TypeVar("T")

_cores: weakref.WeakSet[CoreClient] = weakref.WeakSet()


def _forked() -> None:
    for core in list(_cores):
        core.reset_after_fork()


os.register_at_fork(after_in_child=_forked)


class Client:
    """What a program asks of the daemon of its host.

    `service`: on whose behalf it asks, that is, whose declared dependencies it uses; else OPENGNS_SERVICE, which
    `opengnsc run` sets, else the first service that it registers. `api`: where the daemon listens; else OPENGNS_API.
    `views`: where views are looked for before the client watches by itself. Raises InvalidEndpoint.
    """

    def __init__(
        self,
        service: str = "",
        api: str | ApiEndpoint = "",
        *,
        answer_seconds: float = ANSWER_SECONDS,
        views: Views | None = None,
    ) -> None:
        self.core = CoreClient(ThreadRuntime(), service, api, answer_seconds, views)
        _cores.add(self.core)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Watch no more. Registrations stay until they are ended."""
        self.core.stop_watches()

    def resolve(self, name: str) -> Resolved:
        """The listeners to use for a service or a category, best first, never none; without a round trip after the
        first. Raises NoneRegistered, UnknownName, NotLoaded, DaemonUnreachable."""
        return run_sync(self.core.resolve(name))

    def dependencies(self, service: str = "") -> Dependencies:
        """Function 2.3: all that a service depends on, this program's own by default. Raises ApiProblem."""
        return run_sync(self.core.dependencies(service))

    def shared(self, service: str = "", directory: str = "") -> SharedView:
        """The daemon's view in memory, for lookups that cost no call: `shared().listeners("openuss")`. `directory`:
        else the daemon is asked for it. Raises NotLoaded when it shares none, DaemonUnreachable."""
        return run_sync(self.core.shared(service, directory))

    def watch(self, service: str = "", since: int | None = None) -> Iterator[LocalEvent]:
        """The dependencies of a service and then each change of them, also over restarts of the daemon; `since`: only
        what came after this revision. Raises ApiProblem when the daemon is not there at first, or refuses."""
        following = self.core.follow(service, since)
        try:
            while (event := run_sync(following.next())) is not None:
                yield event
        finally:
            following.close()

    def register(
        self,
        service: str,
        port: int,
        **options: Unpack[Options],
    ) -> Registration:
        """Say that this process serves `service` at `port` (function 2.1), until the end of the `with` block; it is
        registered when this returns. See `compass.client.core.client.Options`."""
        return Registration(run_sync(self.core.register(service, port, **options)))

    def report(
        self,
        service: str,
        address: str,
        port: int,
        *,
        state: Literal["unreachable", "slow"] = "unreachable",
        detail: str = "",
    ) -> Outcome:
        """Say that a listener is dead or slow (function 2.5). Raises ApiProblem."""
        return run_sync(self.core.report(service, address, port, state=state, detail=detail))

    def status(self) -> HostStatus:
        """The daemon in figures."""
        return run_sync(self.core.calls.status())

    def connect(
        self,
        name: str,
        *,
        seconds: float = CONNECT_SECONDS,
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
        resume: Callable[[socket.socket, bytes], None] | None = None,
    ) -> Session[socket.socket]:
        """A session with a listener of a service or category, over TCP or, with `tls`, over TLS with a certificate
        for `server_name`. `seconds`: for a connection, and the timeout of the socket. `resume`: given a new connection
        and the session's cookie when there is one. Raises NobodyThere, and what `resolve` does."""

        async def resumed(stream: socket.socket, cookie: bytes) -> None:
            if resume is not None:
                resume(stream, cookie)

        session = CoreSession(self.core, name, SocketOpener(seconds, tls, server_name), resumed)
        run_sync(session.open())
        return Session(session)

    def attempt(self, name: str, once: Callable[[Listener], T], failures: Failures = (OSError,)) -> T:
        """Do `once` with one listener of `name` after the other, best first, until it does not raise one of
        `failures`; those that failed are avoided and reported. Raises NobodyThere, and what `resolve` does."""

        async def tried(peer: Listener) -> T:
            return once(peer)

        return run_sync(self.core.attempt(name, tried, failures))


class Registration:
    """One listener of this process, until the end of its `with` block, or `end`."""

    def __init__(self, registration: CoreRegistration) -> None:
        self._registration = registration

    def __enter__(self) -> Registration:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def outcome(self) -> Outcome:
        """`state` is `pending` while no server could be asked: the daemon keeps it and delivers it."""
        return self._registration.outcome

    def report_load(self, load: float) -> None:
        """Say how much of this listener is in use, from 0 (idle) to 1 (full); each report is told to all its users.
        Raises ApiProblem."""
        run_sync(self._registration.report_load(load))

    def end(self) -> None:
        """Deregister (function 2.2); harmless when it is over already."""
        run_sync(self._registration.end())


class Session(Generic[S]):
    """A connection to a listener of a name, and to the next one when that fails, until the end of its `with` block."""

    def __init__(self, session: CoreSession[S]) -> None:
        self._session = session

    def __enter__(self) -> Session[S]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def stream(self) -> S:
        """The connection."""
        return self._session.stream

    @property
    def peer(self) -> Listener:
        """The listener in use."""
        return self._session.peer

    @property
    def cookie(self) -> bytes:
        """What the next listener needs to go on where this one was; at most COOKIE_OCTETS_MAX. Given to `resume`."""
        return self._session.cookie

    @cookie.setter
    def cookie(self, cookie: bytes) -> None:
        self._session.cookie = cookie

    def use(self, exchange: Callable[[S], T]) -> T:
        """The result of an exchange with the listener; when it fails (OSError of the network, EOFError), it is done
        again with another one, so it must bear being done twice. Raises NobodyThere."""

        async def done(stream: S) -> T:
            return exchange(stream)

        return run_sync(self._session.use(done))

    def fail_over(self, failure: BaseException) -> None:
        """The connection has failed: go on with another. Raises NobodyThere."""
        run_sync(self._session.fail_over(failure))

    def close(self) -> None:
        """End the connection; harmless when it has ended."""
        self._session.close()


class SocketOpener:
    """Opens sockets."""

    failures: Failures = (OSError, EOFError)
    timeouts: Failures = (TimeoutError,)

    def __init__(self, seconds: float, tls: ssl.SSLContext | None, server_name: str) -> None:
        self._seconds = seconds
        self._tls = tls
        self._server_name = server_name

    async def open(self, peer: Listener) -> socket.socket:
        """Connect."""
        connected = socket.create_connection((peer.address, peer.port), self._seconds)
        if self._tls is None:
            return connected
        try:
            return self._tls.wrap_socket(connected, server_hostname=self._server_name or None)
        except BaseException:
            connected.close()
            raise

    def is_closed(self, stream: socket.socket) -> bool:
        """A socket says so itself when it is used."""
        return False

    def close(self, stream: socket.socket) -> None:
        """End it."""
        stream.close()
