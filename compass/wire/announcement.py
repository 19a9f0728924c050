"""Announcements: a server says by multicast where it is (opengnsp.md, "Announcements"). One datagram, no answer.

Nothing in it is believed: a host takes it as a proposal of a place to dial, where TLS shows who is there.
"""

from __future__ import annotations

import math

import msgspec

from compass.model.names import InvalidName, parse_address, parse_host_name, parse_port
from compass.wire import limits

MAGIC = b"OpenGNS\x01"
"""Prefix of every datagram: a name, and the version of the format."""


class Announcement(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="announcement"):
    """Announcement of a server to all hosts of its network: an address to dial."""

    server: str
    """The name that its certificate proves."""
    port: int
    addresses: tuple[str, ...] = ()
    """Addresses of the server; empty: the one that the datagram came from."""
    next_seconds: float = 10.0
    """Seconds until the next announcement at the latest."""


class NotAnnouncement(Exception):
    """A datagram that proposes nothing; the text says why."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Announcement)


def encode(announcement: Announcement) -> bytes:
    """The datagram."""
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
        said = _decoder.decode(memoryview(datagram)[len(MAGIC) :])
        if len(said.addresses) > limits.ANNOUNCED_ADDRESSES_MAX:
            raise NotAnnouncement(f"it has {len(said.addresses)} addresses; at most {limits.ANNOUNCED_ADDRESSES_MAX}")
        if math.isnan(said.next_seconds):
            raise NotAnnouncement("its next_seconds are no number")
        return Announcement(
            parse_host_name(said.server),
            parse_port(said.port),
            tuple(dict.fromkeys(map(parse_address, said.addresses))),
            min(max(said.next_seconds, limits.ANNOUNCE_SECONDS_MIN), limits.ANNOUNCE_SECONDS_MAX),
        )
    except (msgspec.MsgspecError, RecursionError, ValueError, OverflowError) as error:
        kind = "it names what cannot be dialled" if isinstance(error, InvalidName) else "it cannot be read"
        raise NotAnnouncement(f"{kind}: {error}") from None
