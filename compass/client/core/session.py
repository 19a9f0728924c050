"""Sessions with a service by name, with failover (RFC 5351 section 3.2).

A session is a connection to one listener of a name. If the listener fails, the session reports it, connects to the
next one by policy, at last to the backup, and passes the new listener the application's state cookie (RFC 5352
section 2.2.20).
"""

from __future__ import annotations

import errno
import ssl
from collections.abc import Awaitable, Callable
from typing import Generic, Literal, Protocol, TypeVar

from compass.client.core.errors import NobodyThere, NoneAnswers, NoneRegistered
from compass.model.host_api import Resolved
from compass.model.limits import DETAIL_MAX
from compass.model.names import format_endpoint
from compass.model.rows import Listener
from compass.model.text import escape_line

CONNECT_SECONDS = 3.0
"""Time limit for a connection: two lost packets of the handshake are sent again within it (RFC 6298 section 2)."""
TRIES_MAX = 8
"""Listeners tried for one connection: enough to get past a dead rack; then the call fails."""
COOKIE_OCTETS_MAX = 65_531
"""Greatest size of a state cookie: that of a parameter of RFC 5354 section 3 (16 bits of length, 4 octets header)."""
CAUSES_MAX = 10
"""Links of an exception's chain that are examined: libraries wrap an OSError three or four times."""
LOCAL_FAILURES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EACCES, errno.EPERM})
"""Error numbers of this machine, not of the listener, even if a library wraps them."""
UNREACHABLE = frozenset({errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""Error numbers of this machine that another listener may not cause, for instance without IPv6."""
NETWORK = frozenset({errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETRESET, errno.EPROTO})
"""Error numbers that a listener may cause, in addition to ConnectionError and TimeoutError; any other OSError is about
a file, a name, or the program itself."""

Cause = Literal["listener", "unreachable", "local"]
"""Cause of a failure: the listener, a missing route to the listener, or this machine or program."""
CLOSED = "the listener has closed the connection"

S = TypeVar("S")
T = TypeVar("T")
Failures = tuple[type[BaseException], ...]


class ListenerSource(Protocol):
    """Source of listeners, implemented by `CoreClient`."""

    async def resolve(self, name: str) -> Resolved:
        """Return the listeners, best first. Raises ApiProblem, NoneRegistered if there is none."""

    def report_failure(self, peer: Listener, detail: str) -> None:
        """Avoid and report a listener that failed."""

    def mark_healthy(self, peer: Listener) -> None:
        """Stop avoiding a listener that works."""


class Opener(Protocol[S]):
    """Opener of connections to listeners, one for each client variant."""

    failures: Failures
    """Exceptions of a connection that fails."""
    timeouts: Failures
    """Exceptions among `failures` that are timeouts."""

    def open(self, peer: Listener) -> Awaitable[S]:
        """Connect to a listener. Raises one of `failures`."""

    def is_closed(self, stream: S) -> bool:
        """Return whether the listener is known to have closed the connection."""

    def close(self, stream: S) -> None:
        """Close the connection."""


async def attempt(
    source: ListenerSource,
    name: str,
    once: Callable[[Listener], Awaitable[T]],
    failures: Failures,
    tried: dict[str, str] | None = None,
) -> T:
    """Call `once` with the listeners of `name`, best first, until a call succeeds.

    Failed listeners are reported, unless only the route to them is missing. `tried`: failures by endpoint, which are
    not tried again. Raises NoneRegistered, NoneAnswers, the problem of the resolution, or a failure whose cause is
    local.
    """
    tried = {} if tried is None else tried
    while True:
        try:
            known = (await source.resolve(name)).listeners
        except NobodyThere:
            known = ()
        peers = [peer for peer in known if format_endpoint(peer.address, peer.port) not in tried]
        if not peers or len(tried) >= TRIES_MAX:
            raise NoneAnswers(name, tried) if tried else NoneRegistered(name)
        try:
            done = await once(peers[0])
        except failures as failure:
            cause = classify_failure(failure)
            if cause == "local":
                raise
            detail = describe_failure(failure)
            tried[format_endpoint(peers[0].address, peers[0].port)] = detail
            if cause == "listener":
                source.report_failure(peers[0], detail)
        else:
            source.mark_healthy(peers[0])
            return done


class Session(Generic[S]):
    """Connection to a listener of `name`, with failover; connected by `open`."""

    peer: Listener
    """Current listener."""
    stream: S
    """Current connection."""

    def __init__(
        self, source: ListenerSource, name: str, opener: Opener[S], resume: Callable[[S, bytes], Awaitable[None]] | None
    ) -> None:
        self.name = name
        self._source = source
        self._opener = opener
        self._resume = resume
        self._cookie = b""
        self._is_open = False
        self._has_served = False

    @property
    def cookie(self) -> bytes:
        """State that `resume` passes to the next listener; empty: none."""
        return self._cookie

    @cookie.setter
    def cookie(self, cookie: bytes) -> None:
        if len(cookie) > COOKIE_OCTETS_MAX:
            raise ValueError(f"a cookie of {len(cookie)} octets; at most {COOKIE_OCTETS_MAX}")
        self._cookie = bytes(cookie)

    async def open(self, tried: dict[str, str] | None = None) -> None:
        """Connect. Raises as `attempt` does."""
        await attempt(self._source, self.name, self._connect, self._opener.failures, tried)

    async def use(self, exchange: Callable[[S], Awaitable[T]]) -> T:
        """Return the result of an exchange with the listener. If the exchange fails, it is repeated with another
        listener, so it must be idempotent. Raises as `attempt` does."""
        tried: dict[str, str] = {}
        while True:
            try:
                if not self._is_open:
                    await self.open(tried)
                elif self._opener.is_closed(self.stream):
                    # A request would be lost, and its answer would never arrive.
                    raise ConnectionResetError(CLOSED)
                done = await exchange(self.stream)
            except self._opener.failures as failure:
                await self.fail_over(failure, tried)
            else:
                self._has_served = True
                return done

    async def fail_over(self, failure: BaseException, tried: dict[str, str] | None = None) -> None:
        """Replace a connection that failed in use. Raises as `attempt` does.

        A listener may close an idle connection, so a listener that has served before and did not time out is connected
        once more. If that fails, or fails in use again, the listener is reported.
        """
        if classify_failure(failure) == "local":
            raise failure
        peer, reconnect = self.peer, self._has_served and not isinstance(failure, self._opener.timeouts)
        self.close()
        if reconnect:
            try:
                await self._connect(peer)
            except self._opener.failures as second:
                failure = second
            else:
                return
        detail = describe_failure(failure)
        tried = {} if tried is None else tried
        tried[format_endpoint(peer.address, peer.port)] = detail
        self._source.report_failure(peer, detail)
        await self.open(tried)

    def close(self) -> None:
        """Close the connection. A repeated call does nothing."""
        if self._is_open:
            self._is_open = self._has_served = False
            self._opener.close(self.stream)

    async def _connect(self, peer: Listener) -> None:
        stream = await self._opener.open(peer)
        try:
            if self._cookie and self._resume is not None:
                await self._resume(stream, self._cookie)
        except BaseException:
            self._opener.close(stream)
            raise
        self.peer, self.stream, self._is_open = peer, stream, True


class SessionHandle(Generic[S]):
    """Session of a client variant: what is the same in each of them."""

    def __init__(self, session: Session[S]) -> None:
        self._session = session

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

    def close(self) -> None:
        """Close the connection. A repeated call does nothing."""
        self._session.close()


class StreamOpener:
    """Part of an opener of TCP connections, with or without TLS."""

    failures: Failures = (OSError, EOFError)
    timeouts: Failures = (TimeoutError,)

    def __init__(self, seconds: float, tls: ssl.SSLContext | None, server_name: str) -> None:
        self._seconds = seconds
        self._tls = tls
        self._server_name = server_name or None


def classify_failure(failure: BaseException) -> Cause:
    """Return the cause of a failure."""
    if isinstance(failure, ConnectionError | TimeoutError | ssl.SSLEOFError):
        return "listener"
    number = errno_of(failure)
    if number in UNREACHABLE:
        return "unreachable"
    if isinstance(failure, OSError) and failure.errno is not None:
        return "listener" if number in NETWORK else "local"
    return "local" if number in LOCAL_FAILURES else "listener"


def errno_of(failure: BaseException) -> int:
    """Return the error number of a failure that libraries may have wrapped (Twisted: `osError`); 0 if there is none."""
    link: BaseException | None = failure
    for _ in range(CAUSES_MAX):
        if link is None:
            break
        number = getattr(link, "errno", None) or getattr(link, "osError", None)
        if isinstance(number, int):
            return number
        link = link.__cause__ or link.__context__
    return 0


def describe_failure(failure: BaseException) -> str:
    """Return a description of a failure: one printable line that is never empty and fits into a report."""
    return escape_line(str(failure).strip() or type(failure).__name__, DETAIL_MAX)
