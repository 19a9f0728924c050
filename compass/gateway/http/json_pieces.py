"""Large answers as pieces of JSON, encoded while the client reads them: a view has hundreds of megabytes at most.

The pieces together are the JSON of the whole value, except for the order of the fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import msgspec
from twisted.internet.interfaces import IPullProducer
from twisted.web.server import Request
from zope.interface import implementer

from compass.gateway.http.openapi import JSON
from compass.model.host_api import Resolved
from compass.model.replies import Dependencies
from compass.model.rows import Listener

PIECE_OCTETS_MIN = 64 * 1024
"""Octets of a piece, which ends with the row that reaches them."""
LARGE_COUNT = 200
"""Structs in a value from which it is encoded in pieces: 2 MB with full metadata."""


LARGE_KINDS = (Dependencies, Resolved, tuple)


def is_large(value: Any) -> bool:
    """Return whether a value may be as large as a view, and contains many structs."""
    return isinstance(value, LARGE_KINDS) and _count(value, LARGE_COUNT) >= LARGE_COUNT


def json_pieces(value: Any) -> Iterator[bytes]:
    """Yield the JSON of a value."""
    gathered = bytearray()
    for part in _parts(value):
        gathered += part
        if len(gathered) >= PIECE_OCTETS_MIN:
            yield bytes(gathered)
            gathered.clear()
    yield bytes(gathered)


def _count(value: Any, most: int) -> int:
    """Return the number of structs in lists of a value, counted up to `most`."""
    count = 0
    for items in _lists(value).values():
        count += len(items)
        for item in () if isinstance(items[0], Listener) else items:
            if count >= most:
                break
            count += _count(item, most - count)
    return count


def _lists(value: Any) -> dict[str, tuple[Any, ...]]:
    """Return the fields of a struct that are lists of structs; of a list, itself under an empty name."""
    if isinstance(value, tuple):
        return {"": value} if value and isinstance(value[0], msgspec.Struct) else {}
    if not isinstance(value, msgspec.Struct):
        return {}
    fields = ((name, getattr(value, name)) for name in value.__struct_fields__)
    return {name: held for name, held in fields if _lists(held) and isinstance(held, tuple)}


def _parts(value: Any) -> Iterator[bytes]:
    lists = {} if isinstance(value, Listener) else _lists(value)
    if not lists:
        yield msgspec.json.encode(value)
        return
    if isinstance(value, tuple):
        yield from _items(value)
        return
    rest = msgspec.to_builtins(msgspec.structs.replace(value, **dict.fromkeys(lists, ())))
    head = msgspec.json.encode({name: held for name, held in rest.items() if name not in lists})
    yield head[:-1]
    comma = b"," if len(head) > 2 else b""
    for name, items in lists.items():
        yield comma + msgspec.json.encode(name) + b":"
        yield from _items(items)
        comma = b","
    yield b"}"


def _items(items: tuple[Any, ...]) -> Iterator[bytes]:
    comma = b"["
    for item in items:
        yield comma
        yield from _parts(item)
        comma = b","
    yield b"]"


def send_pieces(request: Request, value: Any, status: int) -> bytes | None:
    """Send a value as JSON, each piece when the client has read the one before it. Returns the body of an answer to
    HEAD, which is empty; None: the response is open until all is sent."""
    request.setResponseCode(status)
    request.setHeader("Content-Type", JSON)
    request.setHeader("Cache-Control", "no-store")
    if request.method == b"HEAD":
        return b""
    request.registerProducer(_Sender(request, json_pieces(value)), False)
    return None


@implementer(IPullProducer)
class _Sender:
    """Producer of an answer in pieces."""

    def __init__(self, request: Request, pieces: Iterator[bytes]) -> None:
        self._request = request
        self._pieces = pieces

    def resumeProducing(self) -> None:
        """Write the next piece, or end the response."""
        piece = next(self._pieces, None)
        if piece is not None:
            self._request.write(piece)
            return
        self._request.unregisterProducer()
        cast(Any, self._request).finish()

    def stopProducing(self) -> None:
        """Stop: the client has closed the connection."""
        self._pieces = iter(())
