"""HTTP server of both APIs: bounded requests, typed input, answers and refusals in JSON.

The server translates and decides nothing. A request is decoded into a struct of the model, from a JSON body or from
path and query, and the answer is another struct. Invalid requests are refused with the place of the mistake.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, cast

import msgspec
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException

from compass.gateway.http.json_pieces import is_large, send_pieces
from compass.gateway.http.openapi import EVENTS, Operation
from compass.gateway.http.request import RequestRejected, set_headers
from compass.gateway.http.request_input import read_body, read_query
from compass.gateway.http.status_codes import status_of
from compass.model.replies import Refusal

_log = Logger()
Endpoint = Callable[[Request, Any], Any]
"""Handler of an operation: gets the request and its decoded input (None if it has none); returns octets, or a Deferred
of them."""


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
        asked: msgspec.Struct | None
        if operation.method == "POST":
            assert operation.asks is not None
            asked = read_body(request, operation.asks)
        else:
            asked = read_query(request, operation, placed)
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
        if _names_tag(request.getHeader("if-none-match") or "", tag):
            request.setResponseCode(304)
            return b""
    request.setHeader("Content-Length", str(len(body)))
    return body


def _names_tag(header: str, tag: str) -> bool:
    """Return whether If-None-Match names the tag (RFC 9110, section 13.1.2); weak tags count, as defined there."""
    held = {one.strip().removeprefix("W/") for one in header.split(",")}
    return tag in held or "*" in held


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
