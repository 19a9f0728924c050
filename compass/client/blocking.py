"""Blocking client, for programs with or without threads.

    client = Client("portal.web")
    with client.register("portal.web", port=8080), client.connect("openuss") as session:
        session.use(lambda stream: ask(stream, b"..."))

A client may be shared by threads, and still works in the child of a fork.
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
    """Client of the daemon of this host.

    `service`: the service whose dependencies are used; else OPENGNS_SERVICE, which `opengnsc run` sets, else the first
    service that is registered. `api`: the daemon's address; else OPENGNS_API. `views`: a source of views that is tried
    before the client watches by itself. Raises InvalidEndpoint.
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
        """Stop all watches. Registrations stay until they are ended."""
        self.core.stop_watches()

    def resolve(self, name: str) -> Resolved:
        """Return the listeners to use for a service or a category, best first, at least one. Only the first call needs
        a round trip. Raises NoneRegistered, UnknownName, NotLoaded, DaemonUnreachable."""
        return run_sync(self.core.resolve(name))

    def dependencies(self, service: str = "") -> Dependencies:
        """Return the dependencies of a service, by default this program's own (function 2.3). Raises ApiProblem."""
        return run_sync(self.core.dependencies(service))

    def shared(self, service: str = "", directory: str = "") -> SharedView:
        """Return the daemon's shared view, for lookups without a call: `shared().listeners("openuss")`. `directory`: of
        the view; by default the daemon is asked. Raises NotLoaded if none is shared, DaemonUnreachable."""
        return run_sync(self.core.shared(service, directory))

    def watch(self, service: str = "", since: int | None = None) -> Iterator[LocalEvent]:
        """Yield the dependencies of a service and then each change, also after restarts of the daemon. `since`: only
        changes after this revision. Raises ApiProblem if the daemon is unreachable at first, or refuses."""
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
        """Register `service` at `port` for this process (function 2.1), until the end of the `with` block. The
        registration is complete when this returns. See `compass.client.core.client.Options`."""
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
        """Report a listener that is unreachable or slow (function 2.5). Raises ApiProblem."""
        return run_sync(self.core.report(service, address, port, state=state, detail=detail))

    def status(self) -> HostStatus:
        """Return the daemon's status."""
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
        """Open a session with a listener of a service or category, over TCP or, with `tls`, over TLS with a certificate
        for `server_name`. `seconds`: timeout of connecting and of the socket. `resume`: called with a new connection
        and the session's cookie, if it has one. Raises NobodyThere, and what `resolve` raises."""

        async def resumed(stream: socket.socket, cookie: bytes) -> None:
            if resume is not None:
                resume(stream, cookie)

        session = CoreSession(self.core, name, SocketOpener(seconds, tls, server_name), resumed)
        run_sync(session.open())
        return Session(session)

    def attempt(self, name: str, once: Callable[[Listener], T], failures: Failures = (OSError,)) -> T:
        """Call `once` with the listeners of `name`, best first, until a call does not raise one of `failures`. Failed
        listeners are avoided and reported. Raises NobodyThere, and what `resolve` raises."""

        async def tried(peer: Listener) -> T:
            return once(peer)

        return run_sync(self.core.attempt(name, tried, failures))


class Registration:
    """Registration of one listener of this process, until the end of its `with` block or `end`."""

    def __init__(self, registration: CoreRegistration) -> None:
        self._registration = registration

    def __enter__(self) -> Registration:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def outcome(self) -> Outcome:
        """Result of the registration. Its `state` is `pending` until the daemon has delivered it to a server."""
        return self._registration.outcome

    def report_load(self, load: float) -> None:
        """Report the load of this listener, from 0 (idle) to 1 (full). Each report is sent to all its users.
        Raises ApiProblem."""
        run_sync(self._registration.report_load(load))

    def end(self) -> None:
        """Deregister (function 2.2). A repeated call does nothing."""
        run_sync(self._registration.end())


class Session(Generic[S]):
    """Connection to a listener of a name, which fails over to another one, until the end of its `with` block."""

    def __init__(self, session: CoreSession[S]) -> None:
        self._session = session

    def __enter__(self) -> Session[S]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def stream(self) -> S:
        """Current connection."""
        return self._session.stream

    @property
    def peer(self) -> Listener:
        """Current listener."""
        return self._session.peer

    @property
    def cookie(self) -> bytes:
        """State that `resume` passes to the next listener; at most COOKIE_OCTETS_MAX octets."""
        return self._session.cookie

    @cookie.setter
    def cookie(self, cookie: bytes) -> None:
        self._session.cookie = cookie

    def use(self, exchange: Callable[[S], T]) -> T:
        """Return the result of an exchange with the listener. If the exchange fails (OSError of the network, EOFError),
        it is repeated with another listener, so it must be idempotent. Raises NobodyThere."""

        async def done(stream: S) -> T:
            return exchange(stream)

        return run_sync(self._session.use(done))

    def fail_over(self, failure: BaseException) -> None:
        """Replace a connection that has failed. Raises NobodyThere."""
        run_sync(self._session.fail_over(failure))

    def close(self) -> None:
        """Close the connection. A repeated call does nothing."""
        self._session.close()


class SocketOpener:
    """Opener of sockets for `compass.client.core.session`."""

    failures: Failures = (OSError, EOFError)
    timeouts: Failures = (TimeoutError,)

    def __init__(self, seconds: float, tls: ssl.SSLContext | None, server_name: str) -> None:
        self._seconds = seconds
        self._tls = tls
        self._server_name = server_name

    async def open(self, peer: Listener) -> socket.socket:
        connected = socket.create_connection((peer.address, peer.port), self._seconds)
        if self._tls is None:
            return connected
        try:
            return self._tls.wrap_socket(connected, server_hostname=self._server_name or None)
        except BaseException:
            connected.close()
            raise

    def is_closed(self, stream: socket.socket) -> bool:
        """Return False: a closed socket fails when it is used."""
        return False

    def close(self, stream: socket.socket) -> None:
        stream.close()
