"""Messages and their encoding: MessagePack maps, one tag `type` (opengnsp.md, "Messages").

Requests and replies are structs of the model. The structs in this module belong to sessions: greeting, push,
acknowledgement. Unknown fields are skipped, unknown types are refused without ending the session (P13).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias, Union

import msgspec

from compass.model.replies import CategoryView, Refusal, Reply
from compass.model.requests import Request
from compass.model.rows import Change, Instance, Snapshot
from compass.model.text import escape_line
from compass.wire import limits

Held = Literal["ok", "gap", "differs"]
"""State of a host at the revision that it acknowledges."""


class Hello(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="hello"):
    """Client to server, the first message: the versions that it speaks."""

    versions: tuple[int, ...]
    software: str = ""
    parts: int = 0
    """Octets of the longest message that the client puts together from parts; 0: it accepts no parts."""


class Welcome(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="welcome"):
    """Server to client, the reply to hello. Revisions of another `store` are not valid in this session."""

    version: int
    server: str
    store: str
    revision: int
    frame_max: int
    """Octets of the largest body that the server accepts from this client."""
    software: str = ""
    renews: str = ""
    """SHA-256 of the authority whose certificates hosts can renew in this session (`renew`); empty: none."""


class Notice(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="notice"):
    """Server to host, 2.4 and 2.5: a committed change. `snapshot`: the topics that it adds to the host's interest."""

    change: Change
    snapshot: Snapshot | None = None


class Bookmark(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="bookmark"):
    """Server to host: everything up to `revision` has been sent; resume from there."""

    revision: int
    digest: str = ""
    """Digest of the rows that the host should hold then, if its watch requested digests."""


class Resync(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="resync"):
    """Server to host that has read too slowly: the snapshot replaces the host's replica and all missed notices."""

    snapshot: Snapshot


class Inquiry(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="inquiry"):
    """Server to host: probe this listener, on which the host depends, and send the result (`findings` with this id).

    An older host skips this message, and the server decides without the result.
    """

    id: int
    service: str
    address: str
    port: int


class Suspicion(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="suspicion"):
    """Server to host: evidence against an instance, which the store cannot write now.

    A suspicion is not a change and has no revision; it is valid for `seconds` unless it is repeated; 0 withdraws it.
    """

    service: str
    address: str
    port: int
    epoch: int
    seconds: float
    cause: str = ""


class Recorded(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="recorded"):
    """Server to host that compares: instances that the store has for this host, or has in place of this host's.

    The host disowns those of its own that it does not hold (`disown`), and registers again what it holds and another
    host has. A server sends this only after a watch with `holds`.
    """

    instances: tuple[Instance, ...]


class Part(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="part"):
    """Server to client that accepts parts: octets of the body of a message that is longer than a frame.

    The frame has the number of that message.
    """

    octets: bytes
    last: bool = False
    """True if the message is complete with these octets."""


class Goodbye(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="goodbye"):
    """Server to client: the session ends; reconnect after `retry_after_seconds`, or at once to one of `instead`."""

    reason: str
    retry_after_seconds: float = 0.0
    instead: tuple[str, ...] = ()


class Acknowledge(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="acknowledge"):
    """Host to server: the host holds everything up to `revision`. `gap`: an earlier change is missing.

    `differs`: the digest of its rows is not that of the bookmark.
    """

    revision: int
    status: Held = "ok"


Pushed: TypeAlias = Union[Notice, Bookmark, Resync, Inquiry, Suspicion, Recorded, Goodbye]  # noqa: UP007
ClientMessage: TypeAlias = Union[Hello, Acknowledge, Request]  # noqa: UP007
ServerMessage: TypeAlias = Union[Welcome, Pushed, Part, Reply]  # noqa: UP007
Message: TypeAlias = Union[ClientMessage, ServerMessage]  # noqa: UP007

_encoder = msgspec.msgpack.Encoder()
_from_client: msgspec.msgpack.Decoder[ClientMessage] = msgspec.msgpack.Decoder(ClientMessage)
_reply: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
_from_server: msgspec.msgpack.Decoder[ServerMessage] = msgspec.msgpack.Decoder(ServerMessage)


class InvalidMessage(Exception):
    """Error of a body that is not a message, with the refusal for the peer. The frame was complete, so the session
    continues."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


encode: Callable[[Message], bytes] = _encoder.encode
"""Encode a message as the body of a frame."""


class _Listed(msgspec.Struct, frozen=True, tag_field="type", tag="dependencies"):
    """Message `Dependencies` with an encoded list of categories."""

    service: str
    revision: int
    categories: msgspec.Raw


class EncodedReply(msgspec.Struct, frozen=True):
    """Encoded reply, of which several peers get the same octets."""

    body: bytes

    def decode(self) -> Reply:
        """Return the reply itself."""
        return _reply.decode(self.body)


class StreamedReply(msgspec.Struct, frozen=True, eq=False):
    """Reply that is encoded while the peer reads it, because it is large."""

    pieces: Iterator[bytes]
    """Octets of the encoded reply, in order; they are made once."""
    make: Callable[[], Reply]
    """Makes the reply itself, for callers that do not read MessagePack."""

    def decode(self) -> Reply:
        """Return the reply itself."""
        return self.make()


Answer: TypeAlias = Reply | EncodedReply | StreamedReply
"""Reply, encoded or not."""


def encode_views(views: tuple[CategoryView, ...]) -> bytes:
    """Encode the views of a pull, to be put into many replies by `encode_dependencies`."""
    return _encoder.encode(views)


def encode_dependencies(service: str, revision: int, views: bytes) -> EncodedReply:
    """Return the reply to a pull: the same octets as `encode(Dependencies(...))`, except for an empty list."""
    return EncodedReply(_encoder.encode(_Listed(service, revision, msgspec.Raw(views))))


def decode_from_client(body: bytes) -> ClientMessage:
    """Return the message in a body that a client sent. Raises InvalidMessage."""
    try:
        return _from_client.decode(body)
    except _UNREADABLE as error:
        raise _invalid(error) from None


def decode_from_server(body: bytes | bytearray) -> ServerMessage:
    """Return the message in a body that a server sent. Raises InvalidMessage."""
    try:
        return _from_server.decode(body)
    except _UNREADABLE as error:
        raise _invalid(error) from None


_UNREADABLE = (msgspec.DecodeError, RecursionError, ValueError, OverflowError)


def _invalid(error: Exception) -> InvalidMessage:
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        text = f"not MessagePack of a message: {text}"
    unknown = text.endswith("`$.type`") and text.startswith("Invalid value")
    return InvalidMessage(
        Refusal("unknown-message" if unknown else "malformed", escape_line(text, limits.UNREADABLE_MAX))
    )
