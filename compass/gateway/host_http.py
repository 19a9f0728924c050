"""The host's HTTP JSON API for programs on the same machine (mission section 5), as a twisted.web site.

It translates and decides nothing: each path reads a request, asks the daemon that it was handed, and writes what came
of it. Only programs on the machine may ask; a browser that was lured here is recognised by its Origin or by the name
it believes to talk to, and refused.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast
from urllib.parse import unquote_to_bytes

import msgspec
from klein import Klein
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.web.http import HTTPChannel
from twisted.web.server import Request, Site
from werkzeug.exceptions import HTTPException

from compass.gateway.host_document import document
from compass.gateway.http_status import status_of
from compass.gateway.server_events import EventStream
from compass.model.local import (
    HostStatus,
    LocalDeregister,
    LocalDrain,
    LocalEvent,
    LocalLoad,
    LocalRegister,
    LocalReport,
    Outcome,
    Resolved,
)
from compass.model.ports import Clock
from compass.model.replies import Dependencies, Refusal

BODY_MAX = 64 * 1024
"""Octets of a request's body: a registration with all the metadata there can be is 12 kB."""
REVISION_MAX = 2**63 - 1
"""Largest revision: what SQL's BIGINT holds."""

B = TypeVar("B", bound=msgspec.Struct)


class HostApi(Protocol):
    """What the daemon does for programs on its host."""

    def dependencies(self, service: str) -> Deferred[Dependencies | Refusal]:
        """Function 2.3."""

    def resolve(self, name: str) -> Resolved | Refusal:
        """The listeners to use."""

    def register(self, request: LocalRegister) -> Deferred[Outcome | Refusal]:
        """Function 2.1."""

    def deregister(self, request: LocalDeregister) -> Deferred[Outcome | Refusal]:
        """Function 2.2."""

    def report_load(self, request: LocalLoad) -> Deferred[Outcome | Refusal]:
        """How busy a listener of this host is."""

    def drain(self, request: LocalDrain) -> Deferred[Outcome | Refusal]:
        """Whether a listener of this host takes new users."""

    def released(self, outcome: Outcome) -> None:
        """The connection that held a registration is closed."""

    def report(self, request: LocalReport) -> Deferred[Outcome | Refusal]:
        """Function 2.5."""

    def watch(
        self, service: str, since: int | None, deliver: Callable[[LocalEvent], None]
    ) -> Deferred[Callable[[], None] | Refusal]:
        """Deliver events until the result is called."""

    def status(self) -> HostStatus:
        """The daemon in figures."""


class _Unusable(Exception):
    """A request that is answered without asking the daemon."""

    def __init__(self, status: int, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.status = status
        self.refusal = refusal


class BoundedRequest(Request):
    """A request whose body is refused as soon as it is longer than `BODY_MAX`, before it is stored.

    What cannot be read as text is refused here, too: the layers above would call it a failure of their own.
    """

    _received = 0

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """All of it is here: hand it on, if path and headers are text in one line."""
        headers = (value for _, values in self.requestHeaders.getAllRawHeaders() for value in values)
        if _is_text(unquote_to_bytes(path)) and all(_is_text(value) for value in headers):
            cast(Any, super()).requestReceived(command, path, version)
            return
        self.method, self.uri, self.clientproto = command, path, version
        _prepare(self, 400)
        refusal = Refusal("malformed", "path and headers must be UTF-8 without control characters")
        cast(Any, self).write(msgspec.json.encode(refusal))
        cast(Any, self).finish()

    def getRequestHostname(self) -> bytes:  # noqa: N802
        """Whatever the request says: the paths are the same for all, and `_check_origin` judges the name."""
        return b"localhost"

    def gotLength(self, length: int | None) -> None:  # noqa: N802
        """The length that was announced."""
        if length is not None and length > BODY_MAX:
            self._refuse()
        else:
            cast(Any, super()).gotLength(length)

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802
        """Part of the body; a chunked one announces no length."""
        self._received += len(data)
        if self._received > BODY_MAX:
            self._refuse()
        else:
            cast(Any, super()).handleContentChunk(data)

    def _refuse(self) -> None:
        body = msgspec.json.encode(Refusal("too-large", f"the body has more than {BODY_MAX} octets"))
        channel = self.channel
        if channel is not None and channel.transport is not None:
            head = f"HTTP/1.1 413 Content Too Large\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
            cast(Any, channel.transport).write(f"{head}\r\nConnection: close\r\n\r\n".encode() + body)
            channel.loseConnection()
        # What still comes of the body is thrown away.
        self.handleContentChunk = lambda data: None  # type: ignore[method-assign]


def _is_text(octets: bytes) -> bool:
    """Whether it is UTF-8 in one line; libraries split lines at more than CR and LF."""
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        return False
    return text.replace("\t", " ").isprintable()


def site(api: HostApi, clock: Clock) -> Site:
    """The factory to listen with, on the loopback or a Unix socket."""
    return Site(HostHttp(api, clock).resource(), requestFactory=BoundedRequest, reactor=cast(Any, clock))


class HostHttp:
    """The paths of the API."""

    def __init__(self, api: HostApi, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._document = msgspec.json.encode(document())

    def resource(self) -> Any:
        """The root resource."""
        app = Klein()
        # Two slashes are not one: the redirect that werkzeug would have made of them is no use to anybody.
        app.url_map.merge_slashes = False
        for path, method, endpoint in (
            ("/v1/dependencies/<service>", "GET", self._dependencies),
            ("/v1/resolve/<name>", "GET", self._resolve),
            ("/v1/register", "POST", self._register),
            ("/v1/deregister", "POST", self._deregister),
            ("/v1/load", "POST", self._load),
            ("/v1/drain", "POST", self._drain),
            ("/v1/report", "POST", self._report),
            ("/v1/watch", "GET", self._watch),
            ("/v1/status", "GET", self._status),
            ("/openapi.json", "GET", self._openapi),
        ):
            self._route(app, path, method, endpoint)
        app.handle_errors(_Unusable)(lambda request, failure: _refused(request, failure.value))
        app.handle_errors(HTTPException)(lambda request, failure: _not_here(request, failure.value))
        return app.resource()

    @staticmethod
    def _route(app: Klein, path: str, method: str, endpoint: Callable[..., Any]) -> None:
        def guarded(request: Request, **arguments: str) -> Any:
            _check_origin(request)
            return endpoint(request, **arguments)

        guarded.__name__ = endpoint.__name__
        app.route(path, methods=[method])(guarded)

    def _dependencies(self, request: Request, service: str) -> Any:
        return _answers(request, self._api.dependencies(service))

    def _resolve(self, request: Request, name: str) -> bytes:
        return _answer(request, self._api.resolve(name))

    def _status(self, request: Request) -> bytes:
        return _answer(request, self._api.status())

    def _openapi(self, request: Request) -> bytes:
        _prepare(request, 200)
        return self._document

    def _deregister(self, request: Request) -> Any:
        return _answers(request, self._api.deregister(_body(request, LocalDeregister)))

    def _load(self, request: Request) -> Any:
        return _answers(request, self._api.report_load(_body(request, LocalLoad)))

    def _drain(self, request: Request) -> Any:
        return _answers(request, self._api.drain(_body(request, LocalDrain)))

    def _report(self, request: Request) -> Any:
        return _answers(request, self._api.report(_body(request, LocalReport)))

    def _register(self, request: Request) -> Any:
        wish = _body(request, LocalRegister)
        asked = self._api.register(wish)
        if not wish.hold:
            return _answers(request, asked)
        return self._hold(request, asked)

    def _hold(self, request: Request, asked: Deferred[Outcome | Refusal]) -> Any:
        """Answer, and keep the response open: when the connection is closed, the registration is over."""
        held: list[Outcome] = []
        closed: list[object] = []

        def gone(reason: object) -> None:
            closed.append(reason)
            for outcome in held:
                self._api.released(outcome)

        request.notifyFinish().addBoth(gone)

        def answered(answer: Outcome | Refusal) -> Any:
            if isinstance(answer, Refusal):
                return b"" if closed else _answer(request, answer)
            held.append(answer)
            if closed:
                self._api.released(answer)
            else:
                request.write(_answer(request, answer) + b"\n")
            return None

        return _shielded(asked.addCallback(answered))

    def _watch(self, request: Request) -> Any:
        service = _argument(request, b"service")
        if not service:
            raise _Unusable(400, Refusal("malformed", "say whose dependencies: /v1/watch?service=NAME.CATEGORY"))
        since = _revision(request.getHeader("last-event-id") or _argument(request, b"since"))
        stream = EventStream(request, self._clock)

        def answered(result: Callable[[], None] | Refusal) -> Any:
            if isinstance(result, Refusal):
                return stream.refused(lambda: _answer(request, result))
            stream.goes_on(result)
            return None

        return _shielded(self._api.watch(service, since, stream.deliver).addCallback(answered))


def _answers(request: Request, asked: Deferred[Any]) -> Deferred[bytes]:
    """The daemon's answer, once there is one and somebody is still there to read it."""
    gone: list[object] = []
    request.notifyFinish().addBoth(gone.append)
    return _shielded(asked.addCallback(lambda answer: b"" if gone else _answer(request, answer)))


def _shielded(asked: Deferred[Any]) -> Deferred[Any]:
    """The result of `asked`, to be cancelled without harm; a result of None leaves the response open.

    Klein cancels what it waits for when a program closes its connection, but what the program asked for is under way.
    """
    shown: Deferred[Any] = Deferred()
    asked.addCallbacks(lambda result: None if result is None else shown.callback(result), shown.errback)
    return shown


def _answer(request: Request, answer: msgspec.Struct) -> bytes:
    """An answer of the daemon as JSON, with the status that its kind has."""
    status = 200
    if isinstance(answer, Refusal):
        status = status_of(answer.code)
        if answer.retry_after_seconds:
            request.setHeader("Retry-After", str(max(1, round(answer.retry_after_seconds))))
    elif isinstance(answer, Outcome) and answer.state == "pending":
        status = 202
    _prepare(request, status)
    return msgspec.json.encode(answer)


def _prepare(request: Request, status: int) -> None:
    request.setResponseCode(status)
    request.setHeader("Content-Type", "application/json")
    request.setHeader("Cache-Control", "no-store")


def _refused(request: Request, unusable: _Unusable) -> bytes:
    _prepare(request, unusable.status)
    return msgspec.json.encode(unusable.refusal)


def _not_here(request: Request, error: HTTPException) -> bytes:
    """Paths and methods that there are not."""
    headers = dict(error.get_headers(None))
    if "Allow" in headers:
        request.setHeader("Allow", headers["Allow"])
    path = request.path.decode("ascii", "replace")[:200]
    text = f"{request.method.decode('ascii', 'replace')[:20]} {path}: {error.name}; see /openapi.json for what there is"
    return _refused(request, _Unusable(error.code or 404, Refusal("unknown-message", text)))


def _body(request: Request, kind: type[B]) -> B:
    """The request's body, or what is wrong with it."""
    declared = (request.getHeader("content-type") or "").partition(";")[0].strip().lower()
    if declared != "application/json":
        text = f"the body must be application/json, not {declared[:80] or 'without a type'}"
        raise _Unusable(415, Refusal("malformed", text))
    try:
        return msgspec.json.decode(cast(Any, request.content).read(), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _Unusable(400, Refusal("malformed", f"{error}; see /openapi.json")) from None


def _argument(request: Request, name: bytes) -> str:
    values = (request.args or {}).get(name, [])
    return values[0].decode("utf-8", "replace") if values else ""


def _revision(text: str) -> int | None:
    """A revision to resume from; what is none means from the beginning, as for an unknown Last-Event-ID."""
    if text.isascii() and text.isdigit() and len(text) <= len(str(REVISION_MAX)):
        return int(text)
    return None


def _check_origin(request: Request) -> None:
    """Refuse what a web page made a browser send: cross-site requests and rebound names."""
    if request.getHeader("origin") is not None:
        raise _Unusable(403, Refusal("forbidden", "this API is for programs on this host, not for web pages"))
    channel = cast(HTTPChannel | None, request.channel)
    if channel is not None and isinstance(channel.getPeer(), UNIXAddress):
        return
    named = request.getHeader("host") or ""
    if named and not _is_loopback(named):
        text = f"this API is reached at the loopback, not at {named[:80]!r}"
        raise _Unusable(403, Refusal("forbidden", text))


def _is_loopback(named: str) -> bool:
    """Whether a Host header names this machine to itself: localhost, unix, or a loopback address."""
    name = named[1:].partition("]")[0] if named.startswith("[") else named.partition(":")[0].lower()
    if name in ("localhost", "unix"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
