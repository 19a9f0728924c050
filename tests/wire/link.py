"""Two real ends and a fake link between them; and helpers to bring one end into a state by octets alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from compass.model.replies import Done
from compass.model.requests import Pull
from compass.wire import limits
from compass.wire.client_connection import ClientConnection
from compass.wire.connection import Connection
from compass.wire.events import Event
from compass.wire.frames import FrameReader, frame
from compass.wire.messages import (
    ClientMessage,
    Hello,
    ServerMessage,
    Welcome,
    decode_from_client,
    decode_from_server,
    encode,
)
from compass.wire.server_connection import ServerConnection
from compass.wire.states import End, SessionState

NOW = 1000.0
HELLO = frame(encode(Hello((1,))))
WELCOME = frame(encode(Welcome(1, "gns1", "store", 0, limits.FRAME_MAX_FROM_HOST)))
PULL = Pull("portal.web")
DONE = Done(1)


class Pair:
    """A client and a server, and the octets on their way, which are delivered in pieces of `piece` octets."""

    def __init__(self, piece: int = 1 << 30, message_max: int = limits.MESSAGE_MAX) -> None:
        self.now = NOW
        self.piece = piece
        self.client = ClientConnection(self.now, "test", message_max=message_max)
        self.server = ServerConnection(self.now, limits.FRAME_MAX_FROM_HOST)

    def to_server(self) -> list[Event]:
        """Deliver what the client wants to send."""
        return deliver(self.server, self.client.bytes_to_send(), self.piece, self.now)

    def to_client(self) -> list[Event]:
        """Deliver what the server wants to send."""
        return deliver(self.client, self.server.bytes_to_send(), self.piece, self.now)

    def all_to_client(self) -> list[Event]:
        """Deliver everything that the server wants to send, messages in parts included."""
        events = []
        while self.server.octets_to_send:
            events += self.to_client()
        return events

    def greet(self) -> None:
        """Bring both ends into the state open."""
        self.to_server()
        self.server.welcome("gns1", "store", 41, "test", 1)
        self.to_client()
        assert self.client.state == self.server.state == "open"


def deliver(end: Connection, data: bytes, piece: int, now: float = NOW) -> list[Event]:
    """Feed `data` to `end` in pieces of `piece` octets. Returns the events."""
    return [event for part in pieces(data, piece) for event in end.receive(part, now)]


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """`data` in order, `size` octets at a time."""
    return (data[at : at + size] for at in range(0, len(data), size))


def end_of(end: End) -> Connection:
    """A fresh end; what a client says first is taken off it."""
    if end == "server":
        return ServerConnection(NOW, limits.FRAME_MAX_FROM_HOST)
    client = ClientConnection(NOW, "test")
    client.bytes_to_send()
    return client


def end_in(end: End, state: SessionState) -> Connection:
    """An end that octets from its peer have brought into `state`."""
    connection = end_of(end)
    if state == "open":
        connection.receive(HELLO if end == "server" else WELCOME, NOW)
    elif state == "ended":
        connection.receive(b"\xff" * 8, NOW)
        connection.bytes_to_send()
    assert connection.state == state
    return connection


def asked(connection: Connection, count: int) -> None:
    """Let a client ask `count` requests, numbered from 1."""
    assert isinstance(connection, ClientConnection)
    for _ in range(count):
        connection.ask(PULL, NOW)
    connection.bytes_to_send()


def sent_by(connection: Connection) -> list[tuple[int, ClientMessage | ServerMessage]]:
    """Return the messages that an end wants to send, decoded by the other end's decoder."""
    decode = decode_from_server if isinstance(connection, ServerConnection) else decode_from_client
    frames: Iterable[tuple[int, bytes]] = FrameReader(1 << 30).feed(connection.bytes_to_send())
    return [(number, decode(body)) for number, body in frames]


def plain(message: object) -> object:
    """A message as JSON has it."""
    return msgspec.json.decode(msgspec.json.encode(message))
