"""Connection of both HTTP APIs, and the factory of such connections: a peer that is slow on purpose does not hold one.

A request's head and its body have a deadline each, counted from the first octet: a peer that sends an octet from time
to time gains nothing by it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request, Site

from compass.gateway.http.request import BODY_MAX, BoundedRequest, RequestRejected, last_answer
from compass.model.interfaces import Clock, Timer
from compass.model.metrics import Counter
from compass.model.replies import Refusal

HEAD_SECONDS = 10.0
"""Seconds from the first octet of a request, or from the beginning of a new connection, to the end of the request's
head: it has 16 kB at most, and a lost packet is sent again after 1 and 3 s."""
BODY_SECONDS = 20.0
"""Seconds from the end of a request's head to the end of its body: the longest one, of 4 MiB, needs 1.7 Mbit/s."""
IDLE_SECONDS = 60.0
"""Seconds that a connection stays open between two requests, as Twisted's own servers have it."""
CLOSE_SECONDS = 2.0
"""Seconds that a peer has to read the answer that ends its connection; then the connection is aborted."""
UNREAD_ANSWERS_MAX = 16
"""Requests of one connection that are answered while the peer reads none: clients that pipeline send a handful. One
more closes the connection: otherwise each request of 30 octets would hold an answer of 60 kB in memory."""

Guard = Callable[[Request], None]
"""Function that raises RequestRejected for a request that must not be answered, whatever its path."""
BodyMax = Callable[[Request, bytes, bytes], int]
"""Function that returns the longest body of a request, in octets, by its headers, method and target. It is asked only
for bodies of more than BODY_MAX octets. Raises RequestRejected."""


def _body_max(request: Request, method: bytes, target: bytes) -> int:
    return BODY_MAX


def site(
    resource: Any, clock: Clock, guard: Guard, requests: Counter | None = None, body_max: BodyMax = _body_max
) -> Site:
    """Return the factory to listen with; `requests` counts by the operation's path and the status."""
    made = cast(Any, _Site)(resource, requestFactory=BoundedRequest, reactor=cast(Any, clock), timeout=IDLE_SECONDS)
    made.requests = requests if requests is not None else Counter()
    made.guard = guard
    made.body_max = body_max
    return cast(Site, made)


class _Channel(HTTPChannel):
    """Connection that stops a peer that does not read or does not finish a request."""

    log = Logger()
    command = target = b""
    """Method and target of the request whose body arrives."""
    _is_full = False
    _unread = 0
    _deadline: Timer | None = None
    _is_answering = False
    """A whole request has arrived and is not answered yet."""
    _is_closing = False
    """The last answer is written."""

    # Deadlines.

    def connectionMade(self) -> None:
        """Expect a head."""
        self._expect("head", HEAD_SECONDS)
        cast(Any, super()).connectionMade()

    def dataReceived(self, data: bytes) -> None:
        """Expect the rest of a head from its first octet on; drop what follows the last answer."""
        if self._is_closing:
            return
        if self._deadline is None and not self._is_answering:
            self._expect("head", HEAD_SECONDS)
        cast(Any, super()).dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        """Expect the rest of a head that arrived while the request before it was answered."""
        if self._deadline is None:
            self._expect("head", HEAD_SECONDS)
        cast(Any, super()).lineReceived(line)

    def allHeadersReceived(self) -> None:
        """Expect the body."""
        whole: Any = self
        self.command, self.target = whole._command, whole._path
        self._expect("body", BODY_SECONDS)
        cast(Any, super()).allHeadersReceived()

    def allContentReceived(self) -> None:
        """Expect nothing while the request is answered."""
        self._stop_deadline()
        self._is_answering = True
        cast(Any, super()).allContentReceived()

    def requestDone(self, request: Any) -> None:  # noqa: N802
        """Accept the next request."""
        self._is_answering = False
        cast(Any, super()).requestDone(request)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop the deadline."""
        self._stop_deadline()
        cast(Any, super()).connectionLost(reason)

    def timeoutConnection(self) -> None:
        """Close an idle connection, without a line in the log: every peer can have as many as it likes."""
        self._close()

    def forceAbortClient(self) -> None:  # noqa: N802
        """Abort the connection."""
        if self.transport is not None:
            cast(Any, self.transport).abortConnection()

    def _expect(self, part: str, seconds: float) -> None:
        self._stop_deadline()
        self._deadline = cast(Any, self).callLater(seconds, partial(self._expired, part, seconds))

    def _stop_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    def _expired(self, part: str, seconds: float) -> None:
        text = f"the request's {part} did not arrive within {seconds:g} s; send it at once"
        self.refuse(RequestRejected(408, Refusal("malformed", text)))

    # Refusals that end the connection.

    def refuse(self, rejected: RequestRejected) -> None:
        """Answer what has arrived of a request, and close the connection."""
        cast(Any, self.transport).write(last_answer(rejected))
        self._close()

    def _close(self) -> None:
        self._is_closing = True
        self._stop_deadline()
        self._deadline = cast(Any, self).callLater(CLOSE_SECONDS, self.forceAbortClient)
        cast(Any, self).loseConnection()

    def _respondToBadRequestAndDisconnect(self) -> None:  # noqa: N802
        """Refuse what is not HTTP, as Twisted does, but with the headers of every answer."""
        self.refuse(RequestRejected(400, Refusal("malformed", "this is not a request of HTTP/1.1, or is too long")))

    # Peers that do not read.

    def pauseProducing(self) -> None:
        """Note that the peer does not read."""
        self._is_full = True
        cast(Any, super()).pauseProducing()

    def resumeProducing(self) -> None:
        """Note that the peer reads again."""
        self._is_full, self._unread = False, 0
        cast(Any, super()).resumeProducing()

    def has_unread(self) -> bool:
        """Count a request. Returns whether too many arrived while the peer read nothing."""
        self._unread += self._is_full
        return self._unread > UNREAD_ANSWERS_MAX


class _Site(Site):
    """Site that counts each request, and logs it at level debug."""

    noisy = False
    protocol = cast(Any, _Channel)
    requests: Counter
    guard: Guard
    body_max: BodyMax
    _log = Logger()

    def log(self, request: Any) -> None:
        """Count and log an answered request."""
        self.requests.add((request.operation, str(request.code)))
        method, path = (part.decode("ascii", "replace") for part in (request.method, request.uri.partition(b"?")[0]))
        self._log.debug("{method} {path}: {status}", method=method, path=path, status=request.code)
