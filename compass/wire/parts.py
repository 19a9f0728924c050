"""Parts: messages that are longer than a frame (opengnsp.md, "Messages in parts").

`PartWriter` makes the frames of one message, one at a time; `PartReader` puts the messages of a session together.
"""

from __future__ import annotations

from collections.abc import Iterator

from compass.wire import limits
from compass.wire.frames import frame
from compass.wire.messages import Part, encode


class PartWriter:
    """Writer of the parts of one message; it holds one part and one piece of the message at most."""

    octets = b""
    """Octets that the message occupies while it waits."""

    def __init__(self, pieces: Iterator[bytes], number: int, complete_to: int = -1) -> None:
        """`pieces`: octets of the message in order, each of any length. `number`: the frames' request number.
        `complete_to`: of a push, the revision up to which the host is complete before it; -1: not a push."""
        self.number = number
        self.complete_to = complete_to
        self._pieces = pieces
        self._rest = bytearray()
        self.written = 0
        """Octets of the message in the frames so far."""
        self.done = False
        """The last part was made."""

    def next_frame(self) -> bytes:
        """Return the frame of the next part."""
        rest = self._rest
        ended = False
        # One octet more than a part shows that this part is not the last.
        while len(rest) <= limits.PART_OCTETS_MAX and not ended:
            piece = next(self._pieces, None)
            if piece is None:
                ended = True
            else:
                rest += piece
        octets = bytes(rest[: limits.PART_OCTETS_MAX])
        del rest[: limits.PART_OCTETS_MAX]
        self.written += len(octets)
        self.done = ended and not rest
        return frame(encode(Part(octets, self.done)), self.number)


class PartsTooLong(Exception):
    """Error of parts with more octets than the client accepts."""


class PartReader:
    """Reader of the parts of a session's messages, together at most `limit` octets."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._octets = 0
        self.unfinished: dict[int, bytearray] = {}
        """Octets of the unfinished messages by number."""

    def add(self, number: int, part: Part) -> bytearray | None:
        """Return the body that is complete with this part, or None. Raises PartsTooLong."""
        self._octets += len(part.octets)
        if self._octets > self._limit:
            raise PartsTooLong(f"parts of more than {self._limit} octets")
        whole = self.unfinished.setdefault(number, bytearray())
        whole += part.octets
        if not part.last:
            return None
        self.drop(number)
        return whole

    def drop(self, number: int) -> None:
        """Drop the parts of a message that will not be completed, if there are any."""
        dropped = self.unfinished.pop(number, None)
        if dropped is not None:
            self._octets -= len(dropped)


def pieces_of(body: bytes) -> Iterator[bytes]:
    """Yield an encoded message in pieces of one part."""
    view = memoryview(body)
    for at in range(0, len(body), limits.PART_OCTETS_MAX):
        yield bytes(view[at : at + limits.PART_OCTETS_MAX])
