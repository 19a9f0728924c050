"""Shared view: the host's part of the catalogue in two files, for every program of the host (shared-view.md).

`content` is replaced as a whole, by renaming. The agent and every reader map `index` into memory, and it is never
replaced: its generation increases after `content` was replaced, so a reader that finds the same generation has the
newest content without a request. This module does not access files.
"""

from __future__ import annotations

import hashlib
import struct

import msgspec

from compass.model.rows import Snapshot

FORMAT = 1
INDEX_MAGIC = b"OGNSINDX"
CONTENT_MAGIC = b"OGNSVIEW"
INDEX_OCTETS = 4096
"""Size of the index: a page of memory, the smallest unit of a mapping."""
INDEX_HEADER = struct.Struct("<8sII")
GENERATION_WORD = 2
"""Position of the generation in the index, in words of 8 octets: aligned, so that reads and writes are atomic."""
CONTENT_HEADER = struct.Struct("<8sIIQQ32s")
CONTENT_OCTETS_MAX = 2 * 1024 * 1024 * 1024
"""Largest content that a reader accepts: twice the largest view that a server sends."""


class Shared(msgspec.Struct, frozen=True):
    """Content of the view: services on whose behalf it is complete, location of the host, rows."""

    host: str
    zone: str
    store: str
    services: tuple[str, ...]
    """Services whose dependencies are complete."""
    held: Snapshot


class NotShared(Exception):
    """Error of octets that are not a shared view of this format; the text is the reason."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Shared)


def empty_index() -> bytes:
    """Return the index of a view that was never published: generation 0."""
    return INDEX_HEADER.pack(INDEX_MAGIC, FORMAT, 0).ljust(INDEX_OCTETS, b"\0")


def check_index(octets: bytes) -> None:
    """Check that the octets are an index of this format. Raises NotShared."""
    if len(octets) != INDEX_OCTETS:
        raise NotShared(f"the index has {len(octets)} octets, not {INDEX_OCTETS}")
    magic, version, _ = INDEX_HEADER.unpack_from(octets)
    if magic != INDEX_MAGIC:
        raise NotShared("the index does not begin as one")
    if version != FORMAT:
        raise NotShared(f"the index has format {version}, this program reads {FORMAT}")


def pack(shared: Shared, generation: int) -> bytes:
    """Encode the content of a generation."""
    body = _encoder.encode(shared)
    digest = hashlib.sha256(body).digest()
    return CONTENT_HEADER.pack(CONTENT_MAGIC, FORMAT, 0, generation, len(body), digest) + body


def unpack(octets: bytes) -> tuple[Shared, int]:
    """Decode the content. Returns it with its generation. Raises NotShared."""
    if len(octets) < CONTENT_HEADER.size:
        raise NotShared(f"{len(octets)} octets are less than the header")
    magic, version, _, generation, length, digest = CONTENT_HEADER.unpack_from(octets)
    body = memoryview(octets)[CONTENT_HEADER.size :]
    if magic != CONTENT_MAGIC:
        raise NotShared("it does not begin as a shared view")
    if version != FORMAT:
        raise NotShared(f"its format is {version}, this program reads {FORMAT}")
    if length != len(body) or hashlib.sha256(body).digest() != digest:
        raise NotShared("its length or its checksum is wrong")
    try:
        return _decoder.decode(body), generation
    except (ValueError, RecursionError) as error:
        raise NotShared(str(error)) from None
