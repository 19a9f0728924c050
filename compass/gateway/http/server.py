"""HTTP as every API here speaks it: bounded requests, typed questions, answers and refusals in JSON.

It translates and decides nothing. What a request asks is a struct of the model, read from a JSON body or from path and
query; what comes of it is another. Everything that cannot be used is refused in words that say where it is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, cast
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request, Site
from werkzeug.exceptions import HTTPException

from compass.gateway.http.openapi import EVENTS, JSON, Operation
from compass.gateway.http.status_codes import status_of
from compass.model.interfaces import Clock
from compass.model.metrics import Counter
from compass.model.replies import Refusal

BODY_MAX = 64 * 1024
"""Octets of a request's body: a registration with all the metadata there can be is 12 kB."""
DISCARDED_MAX = 16 * 1024 * 1024
"""Octets of a refused body that are read and thrown away, so that its sender comes to read the answer."""
UNREAD_ANSWERS_MAX = 16
"""Requests of one connection that are answered while it reads nothing of the answers before: clients that pipeline send
a handful. Who sends more is cut, or a request of 30 octets would have us hold an answer of 60 kB for each of them."""
NO_OPERATION = "none"
"""What is counted in place of a path that there is not: whoever asks for nonsense makes no new series."""
QUERY_FIELDS_MAX = 64
"""Fields in one query: more than any operation has."""

_log = Logger()
Endpoint = Callable[[Request, Any], Any]
"""Takes the request and what it asks (None where nothing is asked); gives octets, or a Deferred of them."""


class RequestRejected(Exception):
    """A request that is answered without asking anybody."""

    def __init__(self, status: int, refusal: Refusal, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(refusal.message)
        self.status = status
        self.refusal = refusal
        self.headers = headers or {}


class BoundedRequest(Request):
    """A request whose body is refused as soon as it is longer than may be, before it is stored.

    What cannot be read as text is refused here, too: the layers above would call it a failure of their own.
    """

    operation = NO_OPERATION
    """The path of what it asks for, as the table of operations has it."""
    declared = ""
    """The media type of the body, as the request says."""
    _received = 0
    _is_refused = False

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """All of it is here: hand it on, if path and headers are text in one line."""
        channel: Any = self.channel
        if channel.has_unread():
            channel.forceAbortClient()
            return
        if self._is_refused:
            self._hang_up()
            return
        headers = (value for _, values in self.requestHeaders.getAllRawHeaders() for value in values)
        place, _, query = path.partition(b"?")
        if all(_is_text(part) for part in (unquote_to_bytes(place), query, *headers)):
            # Twisted looks for forms, of which there are none here, and its reader of media types raises whatever
            # the package email raises.
            self.declared = self.getHeader("content-type") or ""
            self.requestHeaders.removeHeader("content-type")
            cast(Any, super()).requestReceived(command, path, version)
            return
        self.method, self.uri, self.clientproto = command, path, version
        prepare(self, 400)
        refusal = Refusal("malformed", "path and headers must be UTF-8 without control characters")
        cast(Any, self).write(msgspec.json.encode(refusal))
        cast(Any, self).finish()

    def getRequestHostname(self) -> bytes:  # noqa: N802
        """Whatever the request says: the paths are the same for all, and who may ask is judged apart."""
        return b"localhost"

    def gotLength(self, length: int | None) -> None:  # noqa: N802
        """The length that was announced."""
        if length is not None and length > self.body_max:
            self._refuse()
        else:
            cast(Any, super()).gotLength(length)

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802
        """Part of the body; a chunked one announces no length. What comes after a refusal is thrown away."""
        self._received += len(data)
        if self._received > self.body_max + DISCARDED_MAX:
            self._hang_up()
        elif self._is_refused:
            return
        elif self._received > self.body_max:
            self._refuse()
        else:
            cast(Any, super()).handleContentChunk(data)

    @property
    def body_max(self) -> int:
        """Octets that the body may have."""
        return BODY_MAX

    def _refuse(self) -> None:
        """Answer at once, and read on: who is still sending would find a closed connection and no answer."""
        self._is_refused = True
        body = msgspec.json.encode(Refusal("too-large", f"the body has more than {self.body_max} octets"))
        channel = self.channel
        if channel is not None and channel.transport is not None:
            head = f"HTTP/1.1 413 Content Too Large\r\nContent-Type: {JSON}\r\nContent-Length: {len(body)}"
            cast(Any, channel).site.requests.add((self.operation, "413"))
            cast(Any, channel.transport).write(f"{head}\r\nConnection: close\r\n\r\n".encode() + body)

    def _hang_up(self) -> None:
        if self.channel is not None:
            self.channel.loseConnection()


def _is_text(octets: bytes) -> bool:
    """Whether it is UTF-8 in one line; libraries split lines at more than CR and LF."""
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        return False
    return text.replace("\t", " ").isprintable()


def site(
    resource: Any, clock: Clock, request: type[BoundedRequest] = BoundedRequest, requests: Counter | None = None
) -> Site:
    """Return the factory to listen with; `requests` counts by the operation's path and the status."""
    made = cast(Any, _Site)(resource, requestFactory=request, reactor=cast(Any, clock))
    made.requests = requests if requests is not None else Counter()
    return cast(Site, made)


class _Channel(HTTPChannel):
    """A connection. Twisted itself reads and answers on while the transport has more than the peer reads."""

    _is_full = False
    _unread = 0

    def pauseProducing(self) -> None:
        """The peer does not read what was written."""
        self._is_full = True
        cast(Any, super()).pauseProducing()

    def resumeProducing(self) -> None:
        """It has read."""
        self._is_full, self._unread = False, 0
        cast(Any, super()).resumeProducing()

    def has_unread(self) -> bool:
        """Count a request; whether too many came while the peer reads nothing."""
        self._unread += self._is_full
        return self._unread > UNREAD_ANSWERS_MAX


class _Site(Site):
    """One that counts each request, and tells of it only to who wants to hear everything."""

    noisy = False
    protocol = cast(Any, _Channel)
    requests: Counter
    _log = Logger()

    def log(self, request: Any) -> None:
        """The request is answered."""
        self.requests.add((request.operation, str(request.code)))
        method, path = (part.decode("ascii", "replace") for part in (request.method, request.uri.partition(b"?")[0]))
        self._log.debug("{method} {path}: {status}", method=method, path=path, status=request.code)


def resource(routes: list[tuple[Operation, Endpoint]], admit: Callable[[Request, Operation], None]) -> Any:
    """The root of an API. `admit` raises Unusable for requests that may not be answered at all."""
    app = Klein()
    # Two slashes are not one: the redirect that werkzeug would have made of them is no use to anybody.
    app.url_map.merge_slashes = False
    for number, (operation, endpoint) in enumerate(routes):
        _route(app, number, operation, endpoint, admit)
    app.handle_errors(RequestRejected)(lambda request, failure: _refused(request, failure.value))
    app.handle_errors(HTTPException)(lambda request, failure: _not_here(request, failure.value))
    app.handle_errors(Exception)(_failed)
    return app.resource()


def _route(
    app: Klein, number: int, operation: Operation, endpoint: Endpoint, admit: Callable[[Request, Operation], None]
) -> None:
    def routed(request: Request, **placed: str) -> Any:
        cast(Any, request).operation = operation.path
        admit(request, operation)
        asked = _body(request, operation) if operation.method == "POST" else _question(request, operation, placed)
        if operation.media == EVENTS and request.method == b"HEAD":
            # What a stream would begin with; there is none behind it.
            request.setHeader("Content-Type", EVENTS)
            return b""
        return endpoint(request, asked)

    routed.__name__ = f"{number} {operation.method} {operation.path}"
    app.route(operation.path.replace("{", "<").replace("}", ">"), methods=[operation.method])(routed)


def answers(
    request: Request, asked: Deferred[Any], status_of_reply: Callable[[Any], int] = lambda reply: 200
) -> Deferred[bytes]:
    """The answer, once there is one and somebody is still there to read it."""
    gone: list[object] = []
    request.notifyFinish().addBoth(gone.append)

    def answered(reply: Any) -> bytes:
        if gone:
            return b""
        return answer(request, reply, 200 if isinstance(reply, Refusal) else status_of_reply(reply))

    return ignore_cancellation(asked.addCallback(answered))


def ignore_cancellation(asked: Deferred[Any]) -> Deferred[Any]:
    """The result of `asked`, to be cancelled without harm; a result of None leaves the response open.

    Klein cancels what it waits for when a program closes its connection, but what the program asked for is under way.
    """
    shown: Deferred[Any] = Deferred()
    asked.addCallbacks(lambda result: None if result is None else shown.callback(result), shown.errback)
    return shown


def answer(request: Request, reply: Any, status: int = 200) -> bytes:
    """An answer as JSON; a refusal with the status that its code has."""
    if isinstance(reply, Refusal):
        status = status_of(reply.code)
        for name, value in retry(reply).items():
            request.setHeader(name, value)
    return octets(request, msgspec.json.encode(reply), status)


def retry(refusal: Refusal) -> dict[str, str]:
    """The header that says when it is worth trying again."""
    seconds = refusal.retry_after_seconds
    return {"Retry-After": str(max(1, round(seconds)))} if seconds else {}


def octets(request: Request, body: bytes, status: int = 200) -> bytes:
    """JSON that is encoded already. What a GET gives has an entity tag: who has just that is not sent it again.

    The tag is of the octets themselves (RFC 9110, section 8.8.3): whatever an answer is made of, it is never wrong.
    """
    prepare(request, status)
    if status == 200 and request.method in (b"GET", b"HEAD"):
        tag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
        request.setHeader("ETag", tag)
        request.setHeader("Cache-Control", "private, no-cache")
        if _has(request.getHeader("if-none-match") or "", tag):
            request.setResponseCode(304)
            return b""
    request.setHeader("Content-Length", str(len(body)))
    return body


def _has(header: str, tag: str) -> bool:
    """Whether If-None-Match names the tag (RFC 9110, section 13.1.2); weak ones count, as said there."""
    held = {one.strip().removeprefix("W/") for one in header.split(",")}
    return tag in held or "*" in held


def prepare(request: Request, status: int) -> None:
    """The head of an answer in JSON."""
    request.setResponseCode(status)
    request.setHeader("Content-Type", JSON)
    request.setHeader("Cache-Control", "no-store")


def _refused(request: Request, unusable: RequestRejected) -> bytes:
    for name, value in unusable.headers.items():
        request.setHeader(name, value)
    return octets(request, msgspec.json.encode(unusable.refusal), unusable.status)


def _not_here(request: Request, error: HTTPException) -> bytes:
    """Paths and methods that there are not."""
    headers = dict(error.get_headers(None))
    if "Allow" in headers:
        request.setHeader("Allow", headers["Allow"])
    path = request.path.decode("ascii", "replace")[:200]
    text = f"{request.method.decode('ascii', 'replace')[:20]} {path}: {error.name}; see /openapi.json for what there is"
    return _refused(request, RequestRejected(error.code or 404, Refusal("unknown-message", text)))


def _failed(request: Request, failure: Failure) -> bytes:
    """A fault of ours: the log has it, who asked is told in JSON like everything else."""
    _log.failure("a request failed", failure)
    refusal = Refusal("store-unavailable", "the daemon failed; its log says how")
    return octets(request, msgspec.json.encode(refusal), 500)


def _body(request: Request, operation: Operation) -> msgspec.Struct:
    """What the request's body asks, or what is wrong with it."""
    declared = cast(BoundedRequest, request).declared.partition(";")[0].strip().lower()
    if declared != JSON:
        text = f"the body must be {JSON}, not {declared[:80] or 'without a type'}"
        raise RequestRejected(415, Refusal("malformed", text))
    kind = operation.asks
    assert kind is not None
    content: bytes = cast(Any, request.content).read()
    try:
        raw = _whole(msgspec.json.decode(content))
        asked = msgspec.convert(raw, kind)
        # A message of the protocol skips fields that it does not know; who writes JSON wants to hear of a slip.
        _check_known(raw, asked, "$")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestRejected(400, Refusal("malformed", f"{error}; see /openapi.json")) from None
    return asked


def _whole(raw: Any) -> Any:
    """JSON with 80.0 as 80: to JSON Schema both are the same integer."""
    match raw:
        case float():
            return int(raw) if raw.is_integer() else raw
        case dict():
            return {name: _whole(part) for name, part in raw.items()}
        case list():
            return [_whole(part) for part in raw]
    return raw


def _check_known(raw: Any, value: Any, path: str) -> None:
    """Raises ValidationError for a field that no struct has."""
    if isinstance(value, msgspec.Struct) and isinstance(raw, dict):
        config = value.__struct_config__
        for name, part in raw.items():
            if name in value.__struct_fields__:
                _check_known(part, getattr(value, name), f"{path}.{name}")
            elif name != config.tag_field:
                raise msgspec.ValidationError(f"Object contains unknown field `{name[:80]}` - at `{path}`")
    elif isinstance(value, tuple | list):
        for number, (part, held) in enumerate(zip(raw, value, strict=True)):
            _check_known(part, held, f"{path}[{number}]")


def _question(request: Request, operation: Operation, placed: dict[str, str]) -> msgspec.Struct | None:
    """What path and query ask, or what is wrong with them."""
    fields: dict[str, Any] = {**placed, **operation.fixed}
    for name, value in _query(request):
        if name not in operation.asked:
            there = f"there are {', '.join(operation.asked)}" if operation.asked else "there are none here"
            raise RequestRejected(400, Refusal("malformed", f"the query has no field {name[:80]!r}; {there}"))
        if name in fields:
            raise RequestRejected(400, Refusal("malformed", f"the query has {name!r} twice"))
        fields[name] = value
    if operation.asks is None:
        return None
    try:
        return msgspec.convert(fields, operation.asks, strict=False)
    except msgspec.ValidationError as error:
        raise RequestRejected(400, Refusal("malformed", f"{error}; see /openapi.json")) from None


def _query(request: Request) -> list[tuple[str, str]]:
    query = request.uri.partition(b"?")[2].decode("ascii", "replace")
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS_MAX)
    except ValueError:
        text = f"the query must be UTF-8 in percent signs, with at most {QUERY_FIELDS_MAX} fields"
        raise RequestRejected(400, Refusal("malformed", text)) from None
