"""HTTP server of both APIs: bounded requests, typed input, answers and refusals in JSON.

The server translates and decides nothing. A request is decoded into a struct of the model, from a JSON body or from
path and query, and the answer is another struct. Invalid requests are refused with the place of the mistake.
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

from compass.gateway.http.json_input import decode_json
from compass.gateway.http.json_pieces import is_large, send_pieces
from compass.gateway.http.openapi import EVENTS, JSON, Operation
from compass.gateway.http.status_codes import status_of
from compass.model.interfaces import Clock
from compass.model.metrics import Counter
from compass.model.replies import Refusal
from compass.model.rules.draft import text_problem
from compass.model.text import is_printable_line

BODY_MAX = 64 * 1024
"""Longest body of a request in octets: a registration with the most metadata has 12 kB."""
DISCARDED_MAX = 16 * 1024 * 1024
"""Octets of a refused body that are read and discarded, so that its sender reaches the answer."""
UNREAD_ANSWERS_MAX = 16
"""Requests of one connection that are answered while the peer reads none: clients that pipeline send a handful. One
more closes the connection: otherwise each request of 30 octets would hold an answer of 60 kB in memory."""
NO_OPERATION = "none"
"""Name under which requests for unknown paths are counted, so that they create no new series of metrics."""
QUERY_FIELDS_MAX = 64
"""Most fields in one query: more than any operation has."""

_log = Logger()
Endpoint = Callable[[Request, Any], Any]
"""Handler of an operation: gets the request and its decoded input (None if it has none); returns octets, or a Deferred
of them."""


class RequestRejected(Exception):
    """Request that the gateway itself refuses, with a status and a refusal."""

    def __init__(self, status: int, refusal: Refusal, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(refusal.message)
        self.status = status
        self.refusal = refusal
        self.headers = headers or {}


class BoundedRequest(Request):
    """Request with a bounded body: a longer body is refused before it is stored.

    Path and headers that are not text are refused here, too: the layers above would fail on them.
    """

    operation = NO_OPERATION
    """Path of its operation, as the table of operations has it."""
    declared = ""
    """Media type of the body that the request declares."""
    _received = 0
    _is_refused = False

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Process the complete request, if path and headers are text in one line."""
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
            # With a media type, Twisted would look for forms, of which there are none here, and its parser of media
            # types raises whatever the package email raises.
            self.declared = self.getHeader("content-type") or ""
            self.requestHeaders.removeHeader("content-type")
            cast(Any, super()).requestReceived(command, path, version)
            return
        self.method, self.uri, self.clientproto = command, path, version
        set_headers(self, 400)
        refusal = Refusal("malformed", "path and headers must be printable UTF-8 in one line each")
        cast(Any, self).write(msgspec.json.encode(refusal))
        cast(Any, self).finish()

    def getRequestHostname(self) -> bytes:  # noqa: N802
        """Return a constant: the paths are the same for every host name, and access is decided elsewhere."""
        return b"localhost"

    def gotLength(self, length: int | None) -> None:  # noqa: N802
        """Refuse the request if its announced length exceeds the limit."""
        if length is not None and length > self.body_max:
            self._refuse()
        else:
            cast(Any, super()).gotLength(length)

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802
        """Store a part of the body; a chunked body announces no length. Parts after a refusal are discarded."""
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
        """Longest body in octets."""
        return BODY_MAX

    def _refuse(self) -> None:
        """Answer at once and continue to read: a peer that is still sending would get a reset instead of an answer."""
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
    """Return whether the octets are UTF-8 in one line; libraries split lines at more than CR and LF."""
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        return False
    return is_printable_line(text.replace("\t", " "))


def site(
    resource: Any, clock: Clock, request: type[BoundedRequest] = BoundedRequest, requests: Counter | None = None
) -> Site:
    """Return the factory to listen with; `requests` counts by the operation's path and the status."""
    made = cast(Any, _Site)(resource, requestFactory=request, reactor=cast(Any, clock))
    made.requests = requests if requests is not None else Counter()
    return cast(Site, made)


class _Channel(HTTPChannel):
    """Connection that stops a peer that does not read: Twisted would continue to read and answer its requests."""

    _is_full = False
    _unread = 0

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
    _log = Logger()

    def log(self, request: Any) -> None:
        """Count and log an answered request."""
        self.requests.add((request.operation, str(request.code)))
        method, path = (part.decode("ascii", "replace") for part in (request.method, request.uri.partition(b"?")[0]))
        self._log.debug("{method} {path}: {status}", method=method, path=path, status=request.code)


def resource(routes: list[tuple[Operation, Endpoint]], admit: Callable[[Request, Operation], None]) -> Any:
    """Return the root resource of an API. `admit` raises RequestRejected for requests that must not be answered."""
    app = Klein()
    # Two slashes are not one: clients of an API have no use for werkzeug's redirect.
    app.url_map.merge_slashes = False
    for number, (operation, endpoint) in enumerate(routes):
        _route(app, number, operation, endpoint, admit)
    app.handle_errors(RequestRejected)(lambda request, failure: _refused(request, failure.value))
    app.handle_errors(HTTPException)(lambda request, failure: _not_found(request, failure.value))
    app.handle_errors(Exception)(_failed)
    return app.resource()


def _route(
    app: Klein, number: int, operation: Operation, endpoint: Endpoint, admit: Callable[[Request, Operation], None]
) -> None:
    def routed(request: Request, **placed: str) -> Any:
        cast(Any, request).operation = operation.path
        admit(request, operation)
        asked = (
            _read_body(request, operation) if operation.method == "POST" else _read_query(request, operation, placed)
        )
        if operation.media == EVENTS and request.method == b"HEAD":
            # HEAD gets the headers of a stream, and no stream.
            request.setHeader("Content-Type", EVENTS)
            return b""
        answered = endpoint(request, asked)
        # None: the answer is sent piece by piece.
        return Deferred() if answered is None else answered

    routed.__name__ = f"{number} {operation.method} {operation.path}"
    app.route(operation.path.replace("{", "<").replace("}", ">"), methods=[operation.method])(routed)


def answers(
    request: Request, asked: Deferred[Any], status_of_reply: Callable[[Any], int] = lambda reply: 200
) -> Deferred[bytes]:
    """Return a Deferred of the encoded answer; empty if the client has closed the connection meanwhile."""
    closed: list[object] = []
    request.notifyFinish().addBoth(closed.append)

    def answered(reply: Any) -> bytes | None:
        if closed:
            return b""
        return answer_view(request, reply, 200 if isinstance(reply, Refusal) else status_of_reply(reply))

    return ignore_cancellation(asked.addCallback(answered))


def ignore_cancellation(asked: Deferred[Any]) -> Deferred[Any]:
    """Return a Deferred of the result of `asked` that may be cancelled without cancelling `asked`.

    Klein cancels its Deferred when the client closes the connection, but the request itself must continue. A result of
    None leaves the response open.
    """
    shown: Deferred[Any] = Deferred()
    asked.addCallbacks(lambda result: None if result is None else shown.callback(result), shown.errback)
    return shown


def answer_view(request: Request, reply: Any, status: int = 200) -> bytes | None:
    """Return an answer that may be as large as a view. None: it is large, and encoded and sent while the client reads
    it."""
    if is_large(reply):
        return send_pieces(request, reply, status)
    return answer(request, reply, status)


def answer(request: Request, reply: Any, status: int = 200) -> bytes:
    """Return an answer as JSON; a refusal sets the status of its code."""
    if isinstance(reply, Refusal):
        status = status_of(reply.code)
        for name, value in retry(reply).items():
            request.setHeader(name, value)
    return octets(request, msgspec.json.encode(reply), status)


def retry(refusal: Refusal) -> dict[str, str]:
    """Return the header with the time after which a retry makes sense."""
    seconds = refusal.retry_after_seconds
    return {"Retry-After": str(max(1, round(seconds)))} if seconds else {}


def octets(request: Request, body: bytes, status: int = 200) -> bytes:
    """Return encoded JSON, after setting the headers. The answer to a GET has an entity tag, for If-None-Match.

    The tag is a digest of the octets (RFC 9110, section 8.8.3), so it is right for every kind of answer.
    """
    set_headers(request, status)
    if status == 200 and request.method in (b"GET", b"HEAD"):
        tag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
        request.setHeader("ETag", tag)
        request.setHeader("Cache-Control", "private, no-cache")
        if _names_tag(request.getHeader("if-none-match") or "", tag):
            request.setResponseCode(304)
            return b""
    request.setHeader("Content-Length", str(len(body)))
    return body


def _names_tag(header: str, tag: str) -> bool:
    """Return whether If-None-Match names the tag (RFC 9110, section 13.1.2); weak tags count, as defined there."""
    held = {one.strip().removeprefix("W/") for one in header.split(",")}
    return tag in held or "*" in held


def set_headers(request: Request, status: int) -> None:
    """Set status and headers of an answer in JSON."""
    request.setResponseCode(status)
    request.setHeader("Content-Type", JSON)
    request.setHeader("Cache-Control", "no-store")


def _refused(request: Request, rejected: RequestRejected) -> bytes:
    for name, value in rejected.headers.items():
        request.setHeader(name, value)
    return octets(request, msgspec.json.encode(rejected.refusal), rejected.status)


def _not_found(request: Request, error: HTTPException) -> bytes:
    """Return the refusal of an unknown path or method."""
    headers = dict(error.get_headers(None))
    if "Allow" in headers:
        request.setHeader("Allow", headers["Allow"])
    path = request.path.decode("ascii", "replace")[:200]
    text = f"{request.method.decode('ascii', 'replace')[:20]} {path}: {error.name}; /openapi.json lists all operations"
    return _refused(request, RequestRejected(error.code or 404, Refusal("unknown-message", text)))


def _failed(request: Request, failure: Failure) -> bytes:
    """Return the refusal of a request on which the daemon failed; the failure is in the log."""
    _log.failure("a request failed", failure)
    refusal = Refusal("store-unavailable", "the daemon failed; its log has the details")
    return octets(request, msgspec.json.encode(refusal), 500)


def _read_body(request: Request, operation: Operation) -> msgspec.Struct:
    """Return the input in the request's body. Raises RequestRejected."""
    declared = cast(BoundedRequest, request).declared.partition(";")[0].strip().lower()
    if declared != JSON:
        text = f"the body must be {JSON}, not {declared[:80] or 'without a type'}"
        raise RequestRejected(415, Refusal("malformed", text))
    kind = operation.asks
    assert kind is not None
    content: bytes = cast(Any, request.content).read()
    try:
        raw = _with_integers(decode_json(content))
        asked = msgspec.convert(raw, kind)
        # The protocol skips unknown fields; for JSON written by hand, a slip should be reported.
        _check_known(raw, asked, "$")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestRejected(400, Refusal("malformed", f"{error}; see /openapi.json")) from None
    if problem := text_problem(asked):
        raise RequestRejected(400, Refusal("bad-value", problem))
    return asked


def _with_integers(raw: Any) -> Any:
    """Return JSON with 80.0 as 80: for JSON Schema both are the same integer."""
    match raw:
        case float():
            return int(raw) if raw.is_integer() else raw
        case dict():
            return {name: _with_integers(part) for name, part in raw.items()}
        case list():
            return [_with_integers(part) for part in raw]
    return raw


def _check_known(raw: Any, value: Any, path: str) -> None:
    """Raise ValidationError for a field that no struct has."""
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


def _read_query(request: Request, operation: Operation, placed: dict[str, str]) -> msgspec.Struct | None:
    """Return the input in path and query. Raises RequestRejected."""
    fields: dict[str, Any] = {**placed, **operation.fixed}
    for name, value in _query_pairs(request):
        if name not in operation.query_fields:
            known = ", ".join(operation.query_fields)
            hint = f"known fields: {known}" if known else "this path has no query"
            raise RequestRejected(400, Refusal("malformed", f"the query has no field {name[:80]!r}; {hint}"))
        if name in fields:
            raise RequestRejected(400, Refusal("malformed", f"the query has {name!r} twice"))
        fields[name] = value
    if operation.asks is None:
        return None
    try:
        return msgspec.convert(fields, operation.asks, strict=False)
    except msgspec.ValidationError as error:
        raise RequestRejected(400, Refusal("malformed", f"{error}; see /openapi.json")) from None


def _query_pairs(request: Request) -> list[tuple[str, str]]:
    query = request.uri.partition(b"?")[2].decode("ascii", "replace")
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS_MAX)
    except ValueError:
        text = f"the query must be percent-encoded UTF-8 with at most {QUERY_FIELDS_MAX} fields"
        raise RequestRejected(400, Refusal("malformed", text)) from None
