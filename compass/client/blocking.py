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
from typing import TypeVar, Unpack

from compass.client.core.api import ANSWER_SECONDS, Options
from compass.client.core.client import CoreClient, RegistrationHandle
from compass.client.core.client import Registration as CoreRegistration
from compass.client.core.endpoint import ApiEndpoint
from compass.client.core.session import CONNECT_SECONDS, Failures, SessionHandle, StreamOpener
from compass.client.core.session import Session as CoreSession
from compass.client.core.threads import ThreadRuntime, blocking, iterate_sync, run_sync
from compass.client.core.view import Views
from compass.model.host_api import HostStatus, LocalEvent
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

    resolve = blocking(CoreClient.resolve)
    dependencies = blocking(CoreClient.dependencies)
    shared = blocking(CoreClient.shared)
    report = blocking(CoreClient.report)

    def watch(self, service: str = "", since: int | None = None) -> Iterator[LocalEvent]:
        """Yield the dependencies of a service and then each change, also after restarts of the daemon. `since`: only
        changes after this revision. Raises ApiProblem if the daemon is unreachable at first, or refuses."""
        yield from iterate_sync(self.core.follow(service, since))

    def register(self, service: str, port: int, **options: Unpack[Options]) -> Registration:
        """Register `service` at `port` for this process (function 2.1), until the end of the `with` block. The
        registration is complete when this returns. See `compass.client.core.client.Options`."""
        return Registration(run_sync(self.core.register(service, port, **options)))

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


class Registration(RegistrationHandle):
    """Registration of one listener of this process, until the end of its `with` block or `end`."""

    report_load = blocking(CoreRegistration.report_load)
    report_check = blocking(CoreRegistration.report_check)
    end = blocking(CoreRegistration.end)

    def __enter__(self) -> Registration:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class Session(SessionHandle[S]):
    """Connection to a listener of a name, which fails over to another one, until the end of its `with` block."""

    def __enter__(self) -> Session[S]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def stream(self) -> S:
        """Current connection."""
        return self._session.stream

    def use(self, exchange: Callable[[S], T]) -> T:
        """Return the result of an exchange with the listener. If the exchange fails (OSError of the network, EOFError),
        it is repeated with another listener, so it must be idempotent. Raises NobodyThere."""

        async def done(stream: S) -> T:
            return exchange(stream)

        return run_sync(self._session.use(done))

    def fail_over(self, failure: BaseException) -> None:
        """Replace a connection that has failed. Raises NobodyThere."""
        run_sync(self._session.fail_over(failure))


class SocketOpener(StreamOpener):
    """Opener of sockets for `compass.client.core.session`."""

    async def open(self, peer: Listener) -> socket.socket:
        connected = socket.create_connection((peer.address, peer.port), self._seconds)
        if self._tls is None:
            return connected
        try:
            return self._tls.wrap_socket(connected, server_hostname=self._server_name)
        except BaseException:
            connected.close()
            raise

    def is_closed(self, stream: socket.socket) -> bool:
        """Return False: a closed socket fails when it is used."""
        return False

    def close(self, stream: socket.socket) -> None:
        stream.close()
