"""What both daemons are assembled from: identity, endpoints, roles, the database thread."""

from __future__ import annotations

import errno
import ipaddress
import socket
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
)
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.failure import Failure

from compass.daemons.config.reader import parse_listen
from compass.daemons.config.settings import DnsSettings, TlsSettings
from compass.daemons.net.reuseport import NO_IPV6, DatagramPort, StreamPort
from compass.gateway.dns.server import DnsServer
from compass.gateway.dns.zone import DnsSource, Zone
from compass.model.interfaces import StoreUnavailable
from compass.model.names import InvalidName, parse_host_name
from compass.pki.contexts import peer_of
from compass.pki.identity import Identity, IdentityError, PeerUnknown, RoleRules, load_identity, role_and_name

BACKLOG = 4096
"""Connections that the kernel keeps until we take them: all hosts may come in one moment. Of one that finds no room the
host hears nothing, and its kernel tries again after 1, 3 and 7 seconds."""

HANG_SECONDS = 30.0
"""A call to the database that takes longer is ended, and a new connection made, perhaps to another machine: six times
what a transaction waits for a lock, and longer than it takes to read 100,000 listeners."""
DATABASE_STOP_SECONDS = 2.0
"""What the call under way may take when the daemon stops; then it is ended: supervisors do not wait for ever."""
LOOK_SECONDS = 1.0
"""How often it is looked how long a call has taken."""
DATAGRAM_OCTETS_MAX = 4096
"""Of a DNS query over UDP; what is longer is cut and then refused as malformed. A question has at most 260."""

_log = Logger("compass.daemons")


def identity_of(settings: TlsSettings) -> Identity:
    """The daemon's identity. Raises IdentityError."""
    return load_identity(Path(settings.key), Path(settings.certificate), Path(settings.authority), datetime.now(UTC))


def rules_of(settings: TlsSettings) -> RoleRules | None:
    """The role rules of the configuration, or None for the role in the certificate itself."""
    if not (settings.admin or settings.host or settings.server):
        return None
    return RoleRules(settings.admin, settings.host, settings.server)


def own_name(identity: Identity, settings: TlsSettings, role: str) -> str:
    """The name in the daemon's own certificate. Raises IdentityError when it is not one of that role."""
    try:
        found, name = role_and_name(identity.certificate, rules_of(settings))
        parse_host_name(name)
    except (PeerUnknown, InvalidName) as problem:
        raise IdentityError([f"{settings.certificate}: {problem}"]) from None
    if found != role:
        raise IdentityError(
            [f"{settings.certificate} has the role {found}; this daemon needs one with the role {role}"]
        )
    return name


def peers(rules: RoleRules | None) -> Callable[[Any], tuple[str, str, str]]:
    """What sessions ask about the other side: role, name, and why these cannot be known."""

    def peer(transport: Any) -> tuple[str, str, str]:
        try:
            role, name = peer_of(transport, rules)
            return role, parse_host_name(name) if role == "host" else name, ""
        except (PeerUnknown, InvalidName) as problem:
            return "", "", str(problem)

    return peer


_Call = tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]


class DatabaseThread:
    """The one thread that SQL runs on, and what is done about a call on it that does not end.

    A thread and a queue, and no pool: one of futures makes a lock and two conditions for each call, and Twisted's makes
    a lone client wait 4 % longer.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._work: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._since: float | None = None
        """When the call under way began; written by the thread."""
        self._cut: Callable[[], None] = lambda: None
        self._look: Any = None
        self._stopping = False

    def start(self) -> None:
        """Begin to take work."""
        # Whoever ends without `stop` does not wait for it: what is under way ends as it does when a server is killed.
        self._thread = Thread(target=self._serve, name="database", daemon=True)
        self._thread.start()

    def guard(self, cut: Callable[[], None], hang_seconds: float = HANG_SECONDS) -> None:
        """From now on a call that takes longer is ended by `cut`, which makes it raise StoreUnavailable."""
        self._cut = cut
        self._look = self._reactor.callLater(LOOK_SECONDS, self._guard, hang_seconds)

    def stop(self) -> Deferred[None]:
        """Finish what was begun, unless that takes long; fires when the thread has ended."""
        self._stopping = True
        if self._look is not None and self._look.active():
            self._look.cancel()
        stopped: Deferred[None] = Deferred()
        self._end(stopped, time.monotonic() + DATABASE_STOP_SECONDS)
        return stopped

    def run(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """The result of `work`, which runs on the thread."""
        assert self._thread is not None, "the database thread has not started"
        done: Deferred[Any] = Deferred()
        self._work.put((done, work, args))
        return done

    def _serve(self) -> None:
        while (call := self._work.get()) is not None:
            self._do(*call)

    def _do(self, done: Deferred[Any], work: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._since = time.monotonic()
        try:
            if self._stopping:
                raise StoreUnavailable("this server stops")
            result = work(*args)
        except BaseException:
            self._reactor.callFromThread(done.errback, Failure())
        else:
            self._reactor.callFromThread(done.callback, result)
        finally:
            self._since = None

    def _guard(self, hang_seconds: float) -> None:
        since = self._since
        if since is not None and time.monotonic() - since > hang_seconds:
            self._log.warn("the database has not answered for {n:g} s; connecting anew", n=hang_seconds)
            self._cut()
        self._look = self._reactor.callLater(LOOK_SECONDS, self._guard, hang_seconds)

    def _end(self, stopped: Deferred[None], until: float) -> None:
        if self._since is not None:
            if time.monotonic() >= until:
                self._cut()
            self._reactor.callLater(LOOK_SECONDS / 10, self._end, stopped, until)
            return
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()
        stopped.callback(None)


def endpoint(reactor: Any, name: str, port: int, timeout_seconds: float) -> Any:
    """Where to connect. For an address the plain endpoint: the one for names tells a refusal 0.3 s late."""
    try:
        version = ipaddress.ip_address(name).version
    except ValueError:
        return HostnameEndpoint(reactor, name, port, timeout=timeout_seconds)
    plain = TCP6ClientEndpoint if version == 6 else TCP4ClientEndpoint
    return plain(reactor, name, port, timeout=timeout_seconds)


async def listen(reactor: Any, address: str, port: int, factory: Any) -> Any:
    """Listen for TCP; `::` is every IPv4 address on a machine without IPv6. Raises CannotListenError."""
    try:
        return _listening(reactor, port, factory, address)
    except CannotListenError as error:
        if address != "::" or getattr(error.socketError, "errno", None) not in NO_IPV6:
            raise
        _log.info("there is no IPv6 on this machine: 0.0.0.0 takes the place of [::]")
        return _listening(reactor, port, factory, "0.0.0.0")


def _listening(reactor: Any, port: int, factory: Any, interface: str) -> StreamPort:
    listening = StreamPort(port, factory, BACKLOG, interface, reactor)
    listening.startListening()
    return listening


async def listen_dns(
    reactor: Any,
    settings: DnsSettings,
    source: DnsSource,
    nameserver: str,
    ports: list[Any],
    answers: Counter[int] | None = None,
) -> None:
    """Serve the zone over UDP and TCP, adding the ports as they open; `answers` counts by response code.

    Raises CannotListenError.
    """
    server = DnsServer(Zone(source, settings.zone, nameserver, settings.ttl), reactor, answers)
    address, port = parse_listen(settings.listen)
    ports.append(await listen(reactor, address, port, server.factory()))
    datagrams = DatagramPort(port, server.datagrams(), address, DATAGRAM_OCTETS_MAX, reactor)
    datagrams.startListening()
    ports.append(datagrams)


def listen_unix(reactor: Any, path: Path, mode: int, factory: Any) -> Any:
    """Listen on a Unix socket. A killed daemon's is replaced, a living one's is not. Raises CannotListenError.

    Whether somebody listens is asked of the socket itself: a lock with a process id would mistake another process
    that got the same id, as is usual in containers, for the daemon.
    """
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            if path.is_socket():
                path.unlink()
        except OSError:
            # Nothing is there, or it cannot be used: listening tells. A full queue is a living daemon's.
            pass
        else:
            raise CannotListenError(None, str(path), OSError(errno.EADDRINUSE, "a daemon listens there already"))
    return reactor.listenUNIX(str(path), factory, mode=mode)
