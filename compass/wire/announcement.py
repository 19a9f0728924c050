"""Announcements: a server sends its address by multicast (opengnsp.md, "Announcements"). One datagram, no reply.

An announcement is not trusted: for a host it is only a candidate to connect to, where TLS authenticates the server.
"""

from __future__ import annotations

import math

import msgspec

from compass.model.names import InvalidName, parse_address, parse_host_name, parse_port
from compass.wire import limits

MAGIC = b"OpenGNS\x01"
"""Prefix of every datagram: a name and the version of the format."""


class Announcement(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="announcement"):
    """Announcement of a server to all hosts of its network: an address to dial."""

    server: str
    """Name that its certificate must prove."""
    port: int
    addresses: tuple[str, ...] = ()
    """Addresses of the server; empty: the source of the datagram."""
    next_seconds: float = 10.0
    """Longest time to the next announcement, in seconds."""


class NotAnnouncement(Exception):
    """Error of a datagram that is not a valid announcement; the text is the reason."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Announcement)


def encode(announcement: Announcement) -> bytes:
    """Encode an announcement as a datagram. Raises ValueError if it is too long."""
    datagram = MAGIC + _encoder.encode(announcement)
    if len(datagram) > limits.ANNOUNCEMENT_OCTETS_MAX:
        raise ValueError(
            f"an announcement of {len(datagram)} octets; at most {limits.ANNOUNCEMENT_OCTETS_MAX} are sent"
        )
    return datagram


def decode(datagram: bytes) -> Announcement:
    """Return the content of a datagram in canonical form. Raises NotAnnouncement."""
    if len(datagram) > limits.ANNOUNCEMENT_OCTETS_MAX:
        raise NotAnnouncement(f"it has {len(datagram)} octets; at most {limits.ANNOUNCEMENT_OCTETS_MAX} are read")
    if not datagram.startswith(MAGIC):
        raise NotAnnouncement("it does not begin as an announcement of version 1")
    try:
        content = _decoder.decode(memoryview(datagram)[len(MAGIC) :])
        if len(content.addresses) > limits.ANNOUNCED_ADDRESSES_MAX:
            raise NotAnnouncement(
                f"it has {len(content.addresses)} addresses; at most {limits.ANNOUNCED_ADDRESSES_MAX}"
            )
        if math.isnan(content.next_seconds):
            raise NotAnnouncement("its next_seconds are no number")
        return Announcement(
            parse_host_name(content.server),
            parse_port(content.port),
            tuple(dict.fromkeys(map(parse_address, content.addresses))),
            min(max(content.next_seconds, limits.ANNOUNCE_SECONDS_MIN), limits.ANNOUNCE_SECONDS_MAX),
        )
    except (msgspec.MsgspecError, RecursionError, ValueError, OverflowError) as error:
        kind = "it names what cannot be dialled" if isinstance(error, InvalidName) else "it cannot be read"
        raise NotAnnouncement(f"{kind}: {error}") from None
