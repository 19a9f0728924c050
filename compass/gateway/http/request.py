"""Request of both HTTP APIs: its octets are bounded, its path and headers are text, and its answer has safe headers."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import msgspec
from twisted.web.server import Request

from compass.gateway.http.openapi import JSON
from compass.model.replies import Refusal
from compass.model.text import is_printable_line

BODY_MAX = 64 * 1024
"""Longest body in octets of a request whose sender has not proven a right to more: a registration with the most
metadata has 12 kB."""
DISCARDED_MAX = 16 * 1024 * 1024
"""Octets of a refused body that are read and discarded, so that its sender reaches the answer."""
NO_OPERATION = "none"
"""Name under which requests for unknown paths are counted, so that they create no new series of metrics."""
SAFE_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every answer, also of refusals and streams: no cache keeps it, no page of another origin can load it, and
no browser guesses its type."""


class RequestRejected(Exception):
    """Request that the gateway itself refuses, with a status and a refusal."""

    def __init__(self, status: int, refusal: Refusal, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(refusal.message)
        self.status = status
        self.refusal = refusal
        self.headers = headers or {}


class BoundedRequest(Request):
    """Request with a bounded body: a longer body is refused before it is stored.

    Path and headers that are not text are refused here, too: the layers above would fail on them. So is what the site
    does not admit, whatever its path.
    """

    operation = NO_OPERATION
    """Path of its operation, as the table of operations has it."""
    declared = ""
    """Media type of the body that the request declares."""
    _received = 0
    _body_max = BODY_MAX
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
        self._answer(400, Refusal("malformed", "path and headers must be printable UTF-8 in one line each"))

    def process(self) -> None:
        """Route the request, unless the site does not admit it."""
        for name, value in SAFE_HEADERS.items():
            cast(Any, self).setHeader(name, value)
        try:
            cast(Any, self.channel).site.guard(self)
        except RequestRejected as rejected:
            self._answer(rejected.status, rejected.refusal)
        else:
            cast(Any, super()).process()

    def getRequestHostname(self) -> bytes:  # noqa: N802
        """Return a constant: the paths are the same for every host name, and access is decided elsewhere."""
        return b"localhost"

    def gotLength(self, length: int | None) -> None:  # noqa: N802
        """Refuse the request if its announced length exceeds the limit."""
        if length is None or self._may_have(length):
            cast(Any, super()).gotLength(length)

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802
        """Store a part of the body; a chunked body announces no length. Parts after a refusal are discarded."""
        self._received += len(data)
        if self._is_refused:
            if self._received > self._body_max + DISCARDED_MAX:
                self._hang_up()
        elif self._may_have(self._received):
            cast(Any, super()).handleContentChunk(data)

    def _may_have(self, octets: int) -> bool:
        """Return whether the body may have this length; the site decides once which sender may send more than others.

        A refused request is answered at once and read on: a peer that is still sending would get a reset instead of
        the answer.
        """
        if octets <= self._body_max:
            return True
        channel: Any = self.channel
        if self._body_max == BODY_MAX and channel is not None:
            try:
                channel.site.guard(self)
                self._body_max = channel.site.body_max(self, channel.command, channel.target)
            except RequestRejected as rejected:
                self._refuse(rejected)
                return False
        if octets <= self._body_max:
            return True
        text = f"the body has more than {self._body_max} octets; send less at once"
        self._refuse(RequestRejected(413, Refusal("too-large", text)))
        return False

    def _refuse(self, rejected: RequestRejected) -> None:
        self._is_refused = True
        # Without this header Twisted would invite the body after the answer.
        self.requestHeaders.removeHeader("expect")
        channel = self.channel
        if channel is not None and channel.transport is not None:
            cast(Any, channel).site.requests.add((self.operation, str(rejected.status)))
            cast(Any, channel.transport).write(last_answer(rejected))

    def _answer(self, status: int, refusal: Refusal) -> None:
        set_headers(self, status)
        cast(Any, self).write(msgspec.json.encode(refusal))
        cast(Any, self).finish()

    def _hang_up(self) -> None:
        if self.channel is not None:
            self.channel.loseConnection()


def last_answer(rejected: RequestRejected) -> bytes:
    """Return an answer, head and body, to a request that has not arrived completely: the connection ends with it."""
    body = msgspec.json.encode(rejected.refusal)
    headers = {
        **SAFE_HEADERS,
        **rejected.headers,
        "Content-Type": JSON,
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {rejected.status} {HTTPStatus(rejected.status).phrase}\r\n{lines}\r\n".encode() + body


def set_headers(request: Request, status: int) -> None:
    """Set status and headers of an answer in JSON."""
    request.setResponseCode(status)
    for name, value in SAFE_HEADERS.items():
        request.setHeader(name, value)
    request.setHeader("Content-Type", JSON)


def _is_text(octets: bytes) -> bool:
    """Return whether the octets are UTF-8 in one line; libraries split lines at more than CR and LF."""
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        return False
    return is_printable_line(text.replace("\t", " "))
