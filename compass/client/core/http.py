"""HTTP request to the daemon and its response, as bytes, without I/O (RFC 9112, by h11).

    exchange = HttpExchange("GET", "/v1/status", "unix")
    send(exchange.request)
    while not exchange.ended:
        pieces = exchange.receive(received())

`Events` parses server-sent events from the same pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import h11
import msgspec

from compass.client.core.errors import ApiProblem
from compass.model.host_api import LocalEvent
from compass.model.replies import Dependencies
from compass.model.rows import Change

HEAD_OCTETS_MAX = 64 * 1024
"""Greatest size of a response's status line and headers; those of the daemon have some hundred octets."""
ANSWER_OCTETS_MAX = 64 * 1024 * 1024
"""Greatest size of one answer: four times the largest view that a server's frame can carry, as JSON."""
LINE_OCTETS_MAX = ANSWER_OCTETS_MAX
"""Greatest size of one line of a watch, which contains a whole answer."""


class ConnectionBroken(Exception):
    """The connection ended before the response."""


class InvalidResponse(Exception):
    """The received bytes are not a response of an opengnscd."""


class HttpExchange:
    """A request, and the received part of its response."""

    def __init__(
        self, method: str, path: str, host: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> None:
        self._wire = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_OCTETS_MAX)
        sent = {"Host": host, "Accept-Encoding": "identity", **(headers or {})}
        if body is not None:
            sent |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        head = h11.Request(method=method, target=path, headers=list(sent.items()))
        self.request = self._wire.send(head) or b""
        if body is not None:
            self.request += self._wire.send(h11.Data(data=body)) or b""
        self.request += self._wire.send(h11.EndOfMessage()) or b""
        self.status = 0
        """Status of the response; 0 until it is received."""
        self.ended = False

    def receive(self, data: bytes) -> list[bytes]:
        """Return the pieces of the response's body in `data`; empty `data` means that the connection has ended.

        Raises ConnectionBroken and InvalidResponse.
        """
        pieces: list[bytes] = []
        try:
            self._wire.receive_data(data)
            while not self.ended:
                event = self._wire.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    break
                if isinstance(event, h11.Response):
                    self.status = event.status_code
                elif isinstance(event, h11.Data):
                    pieces.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    self.ended = True
                elif isinstance(event, h11.ConnectionClosed):
                    raise ConnectionBroken
        except h11.RemoteProtocolError as error:
            if not data:
                raise ConnectionBroken from None
            raise InvalidResponse(str(error)) from None
        return pieces


class Lines:
    """Splitter of a stream into lines."""

    def __init__(self) -> None:
        self._held = bytearray()

    def split(self, piece: bytes) -> list[bytes]:
        """Return the lines that are complete now, without line ends. Raises InvalidResponse if a line is too long."""
        first, *more = piece.split(b"\n")
        self._held += first
        whole = []
        for line in more:
            whole.append(bytes(self._held).removesuffix(b"\r"))
            self._held[:] = line
        if len(self._held) > LINE_OCTETS_MAX:
            raise InvalidResponse(f"a line has more than {LINE_OCTETS_MAX} octets")
        return whole


class Events:
    """Parser of the events in a watch."""

    def __init__(self) -> None:
        self._lines = Lines()
        self._block: list[str] = []

    def split(self, piece: bytes) -> Iterator[LocalEvent]:
        """Yield the events that are complete now. Raises InvalidResponse, and ApiProblem for an invalid event."""
        for line in self._lines.split(piece):
            if line:
                self._block.append(line.decode("utf-8", "replace"))
                continue
            block, self._block = self._block, []
            event = event_of(block)
            if event is not None:
                yield event


_EVENTS: dict[str, tuple[Literal["snapshot", "change"], msgspec.json.Decoder[Any]]] = {
    "snapshot": ("snapshot", msgspec.json.Decoder(Dependencies)),
    "change": ("change", msgspec.json.Decoder(Change)),
}
"""Decoders of the events. msgspec examines a type at its first use, which two threads must not do at the same time: the
process would end by a segmentation fault. A decoder that is made at the import has examined it."""


def event_of(lines: list[str]) -> LocalEvent | None:
    """Parse the lines of a block (HTML Living Standard, section 9.2.6). Returns None for a block without an event or
    with one of an unknown kind. Raises ApiProblem if the event is invalid."""
    fields = {"event": "", "id": "", "data": ""}
    for line in lines:
        name, _, value = line.partition(":")
        if name in fields:
            fields[name] += value.removeprefix(" ")
    if fields["event"] not in _EVENTS:
        return None
    kind, decoder = _EVENTS[fields["event"]]
    try:
        return LocalEvent(kind, int(fields["id"]), decoder.decode(fields["data"]))
    except (ValueError, msgspec.MsgspecError) as error:
        text = f"the daemon sent an event that this library does not understand ({error})"
        raise ApiProblem("malformed", text) from None
