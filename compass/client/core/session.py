"""Using a service by name: which listener, and what when it fails (RFC 5351 section 3.2, "failover").

A session is a connection to one listener of a name. When that fails, the session reports it, goes on with the next
one by policy, in the end with the backup, and hands the new listener the state cookie that the application keeps in
it (RFC 5352 section 2.2.20).
"""

from __future__ import annotations

import errno
import ssl
from collections.abc import Awaitable, Callable
from typing import Generic, Literal, Protocol, TypeVar

from compass.client.core.errors import NobodyThere, NoneAnswers, NoneRegistered
from compass.model.host_api import Resolved
from compass.model.names import format_endpoint
from compass.model.rows import Listener

CONNECT_SECONDS = 3.0
"""For a listener to accept: two lost packets of the handshake are sent again within it (RFC 6298 section 2)."""
TRIES_MAX = 8
"""Listeners tried for one connection: enough to get past a dead rack, and then the caller hears about it."""
COOKIE_OCTETS_MAX = 65_531
"""Of a session's state cookie: what a parameter of RFC 5354 section 3 can carry (16 bits of length, 4 octets of it)."""
CAUSES_MAX = 10
"""Links of an exception's chain that are looked at: libraries wrap an OSError three or four times."""
LOCAL_FAILURES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EACCES, errno.EPERM})
"""Failures that say something about this machine and nothing about the listener, however a library wraps them."""
UNREACHABLE = frozenset({errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""Failures of this machine that another listener may not have: it has no IPv6, perhaps."""
NETWORK = frozenset({errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETRESET, errno.EPROTO})
"""Failures beside Python's ConnectionError and TimeoutError that a listener may be to blame for; any other OSError is
about a file, a name, or the program itself."""

Verdict = Literal["theirs", "no-way", "ours"]
CLOSED = "the listener has closed the connection"

S = TypeVar("S")
T = TypeVar("T")
Failures = tuple[type[BaseException], ...]


class ListenerSource(Protocol):
    """Who knows the listeners (the core)."""

    async def resolve(self, name: str) -> Resolved:
        """Best first. Raises ApiProblem, NoneRegistered when there is none."""

    def report_failure(self, peer: Listener, detail: str) -> None:
        """It failed: avoid it, and report it."""

    def mark_healthy(self, peer: Listener) -> None:
        """It works."""


class Opener(Protocol[S]):
    """How a connection to a listener is made on a face."""

    failures: Failures
    """What is raised by a connection that failed, or that fails in use."""
    timeouts: Failures
    """Those of them that say that nothing came in time."""

    def open(self, peer: Listener) -> Awaitable[S]:
        """Connect. Raises one of `failures`."""

    def is_closed(self, stream: S) -> bool:
        """Whether it is known already that the listener has closed it."""

    def close(self, stream: S) -> None:
        """End it."""


async def attempt(
    guide: ListenerSource,
    name: str,
    once: Callable[[Listener], Awaitable[T]],
    failures: Failures,
    tried: dict[str, str] | None = None,
) -> T:
    """Do `once` with one listener of `name` after the other, best first, until it does not fail.

    Each that fails is reported, unless there is only no way to it from here. `tried`: the endpoints that are not tried
    (again), with what happened there. Raises NoneRegistered, NoneAnswers, the resolution's own problem, or a failure
    that is this machine's own.
    """
    tried = {} if tried is None else tried
    while True:
        try:
            known = (await guide.resolve(name)).listeners
        except NobodyThere:
            known = ()
        peers = [peer for peer in known if format_endpoint(peer.address, peer.port) not in tried]
        if not peers or len(tried) >= TRIES_MAX:
            raise NoneAnswers(name, tried) if tried else NoneRegistered(name)
        try:
            done = await once(peers[0])
        except failures as failure:
            verdict = classify_failure(failure)
            if verdict == "ours":
                raise
            detail = describe_failure(failure)
            tried[format_endpoint(peers[0].address, peers[0].port)] = detail
            if verdict == "theirs":
                guide.report_failure(peers[0], detail)
        else:
            guide.mark_healthy(peers[0])
            return done


class Session(Generic[S]):
    """A connection to a listener of `name`, once `begin` is done."""

    peer: Listener
    """The listener in use."""
    stream: S
    """The connection to it."""

    def __init__(
        self, guide: ListenerSource, name: str, opener: Opener[S], resume: Callable[[S, bytes], Awaitable[None]] | None
    ) -> None:
        self.name = name
        self._source = guide
        self._opener = opener
        self._resume = resume
        self._cookie = b""
        self._is_open = False
        self._has_served = False

    @property
    def cookie(self) -> bytes:
        """What the next listener needs to go on where this one was; empty: nothing. Given to `resume`."""
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
        """The result of an exchange with the listener; when it fails, it is done again with another one, so it must
        bear being done twice. Raises as `attempt` does."""
        tried: dict[str, str] = {}
        while True:
            try:
                if not self._is_open:
                    await self.open(tried)
                elif self._opener.is_closed(self.stream):
                    # What is written to it would be lost, and its answer waited for in vain.
                    raise ConnectionResetError(CLOSED)
                done = await exchange(self.stream)
            except self._opener.failures as failure:
                await self.fail_over(failure, tried)
            else:
                self._has_served = True
                return done

    async def fail_over(self, failure: BaseException, tried: dict[str, str] | None = None) -> None:
        """The connection has failed in use: go on with another. Raises as `attempt` does.

        A listener may close a connection that was idle, so one that has served before and did not keep us waiting is
        connected to once more. If that fails, or fails in use again, it is reported.
        """
        if classify_failure(failure) == "ours":
            raise failure
        peer, again = self.peer, self._has_served and not isinstance(failure, self._opener.timeouts)
        self.close()
        if again:
            try:
                await self._connect(peer)
            except self._opener.failures as renewed:
                failure = renewed
            else:
                return
        detail = describe_failure(failure)
        tried = {} if tried is None else tried
        tried[format_endpoint(peer.address, peer.port)] = detail
        self._source.report_failure(peer, detail)
        await self.open(tried)

    def close(self) -> None:
        """End the connection; harmless when it has ended."""
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


def classify_failure(failure: BaseException) -> Verdict:
    """Whether a failure says that the listener cannot be used, that there is no way to it from here, or something
    about this machine or program."""
    if isinstance(failure, ConnectionError | TimeoutError | ssl.SSLEOFError):
        return "theirs"
    number = errno_of(failure)
    if number in UNREACHABLE:
        return "no-way"
    if isinstance(failure, OSError) and failure.errno is not None:
        return "theirs" if number in NETWORK else "ours"
    return "ours" if number in LOCAL_FAILURES else "theirs"


def errno_of(failure: BaseException) -> int:
    """The system's number of a failure that libraries may have wrapped (Twisted names it osError); 0: there is none."""
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
    """What happened, for administrators: never without a word."""
    return str(failure) or type(failure).__name__
