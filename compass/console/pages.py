"""Files of the console on the server's HTTPS port, below `/console/`.

The files are the same for every caller and contain nothing about the installation, so they need no authentication; the
API authorizes the requests of the page. Every file is read once, at the start. The headers prevent a browser from
running, loading or sending anything that is not of this server, even if a name in the catalogue were a script.
"""

from __future__ import annotations

from hashlib import blake2b
from importlib.resources import files
from typing import Any

import msgspec
from twisted.web.http import CACHED
from twisted.web.server import Request

from compass.gateway.http.openapi import Operation
from compass.gateway.http.request import RequestRejected
from compass.gateway.http.server import Endpoint
from compass.model.replies import Refusal

INDEX = "index.html"
MEDIA = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
"""Media type by the ending of a file's name."""
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""The Content-Security-Policy: files of this server only, nothing inline, no text that becomes markup or script."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
"""Headers of every file, in addition to those of every answer."""


class FileAsked(msgspec.Struct, frozen=True):
    """Name of a file of the console."""

    name: str


def routes() -> tuple[tuple[Operation, Endpoint], ...]:
    """Return the operations of the console with their handlers, for the server's site."""
    console = Console()

    def redirect(request: Request, _: None) -> bytes:
        request.setResponseCode(308)
        request.setHeader("Location", "/console/")
        return b""

    def index(request: Request, _: None) -> bytes:
        return console.file(request, FileAsked(INDEX))

    return (
        (_operation("/", "Redirect to the console.", is_page=True), redirect),
        (_operation("/console", "Redirect to the console.", is_page=True), redirect),
        (_operation("/console/", "The console: a page for browsers.", is_page=True), index),
        (_operation("/console/{name}", "A file of the console.", FileAsked), console.file),
    )


def _operation(
    path: str, summary: str, asks: type[msgspec.Struct] | None = None, *, is_page: bool = False
) -> Operation:
    return Operation(method="GET", path=path, summary=summary, asks=asks, no_authentication=True, is_page=is_page)


class Console:
    """Files of the console in memory."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, bytes, str]] = {}
        for file in files("compass.console").joinpath("page").iterdir():
            media = MEDIA.get(file.name.rpartition(".")[2])
            if media is not None:
                octets = file.read_bytes()
                self._files[file.name] = (octets, blake2b(octets, digest_size=12).hexdigest().encode(), media)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all files."""
        return tuple(sorted(self._files))

    def file(self, request: Request, asked: FileAsked) -> bytes:
        """Return a file; empty if the browser has it already. Raises RequestRejected if there is no such file."""
        if asked.name not in self._files:
            text = f"the console has no file {asked.name[:80]!r}; it begins at /console/"
            raise RequestRejected(404, Refusal("unknown-message", text))
        octets, tag, media = self._files[asked.name]
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        request.setHeader("Content-Type", media)
        answer: Any = request.setETag(b'"' + tag + b'"')
        if answer is CACHED:
            return b""
        request.setHeader("Content-Length", str(len(octets)))
        return octets
