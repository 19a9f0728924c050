"""Frames: a header of two unsigned 32-bit integers in network order, then the body (opengnsp.md, "Framing").

    +----------------+----------------+---------------------+
    | length of body | request number | body: one MessagePack map
    +----------------+----------------+---------------------+

The request number relates a reply to its request; it is not part of the body, so that the refusal of an unreadable body
also has a number. Messages that expect no reply have the number 0.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

_HEADER = struct.Struct("!II")
HEADER_LENGTH = _HEADER.size


class FrameTooLong(Exception):
    """Error of a header that announces more than the limit: the following octets have no known frame, so the session
    must end."""


header: Callable[[int, int], bytes] = _HEADER.pack
"""Encode the header of a body, from its length and the request number."""


def frame(body: bytes, number: int = 0) -> bytes:
    """Return a frame with its header."""
    return _HEADER.pack(len(body), number) + body


class FrameReader:
    """Reader that divides a stream of bytes into frames; it holds at most one frame of `limit` octets and the bytes
    received with it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the frames that `data` completes, as (request number, body).

        Raises FrameTooLong, but only after the frames before it: the meaning of a stream must not depend on the pieces
        in which it arrives.
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
        """Octets of an unfinished frame; if not 0 at the end of the stream, the stream was cut."""
        return len(self._buffer)
