"""Frames: a header of two unsigned 32-bit integers in network order, then the body (opengnsp.md, "Framing").

    +----------------+----------------+---------------------+
    | length of body | request number | body: one MessagePack map
    +----------------+----------------+---------------------+

The request number ties a reply to its request; it stands outside the body so that a body which cannot be read is
still refused by number. Messages that expect no answer have the number 0.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

_HEADER = struct.Struct("!II")
HEADER_LENGTH = _HEADER.size


class FrameTooLong(Exception):
    """The header announces more than the limit; what follows cannot be understood, so the session must end."""


header: Callable[[int, int], bytes] = _HEADER.pack
"""Return the header of a body: from its length and the request number."""


def frame(body: bytes, number: int = 0) -> bytes:
    """A whole frame."""
    return _HEADER.pack(len(body), number) + body


class FrameReader:
    """Cuts a stream of bytes into frames; holds at most one frame of `limit` octets and what came with it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the frames that `data` completes, as (request number, body), each cut off when it is asked for.

        Raises FrameTooLong, but only after the frames before it: what a stream means must not depend on the
        pieces it arrives in.
        """
        buffer = self._buffer
        buffer += data
        while len(buffer) >= HEADER_LENGTH:
            length, number = _HEADER.unpack_from(buffer)
            if length > self.limit:
                raise FrameTooLong(f"a frame of {length} octets; at most {self.limit} are taken here")
            end = HEADER_LENGTH + length
            if len(buffer) < end:
                return
            body = bytes(buffer[HEADER_LENGTH:end])
            del buffer[:end]
            yield number, body

    @property
    def held(self) -> int:
        """Octets of an unfinished frame; not 0 at the end of the stream means that it was cut."""
        return len(self._buffer)
