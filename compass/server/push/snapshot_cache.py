"""Snapshots as encoded: hosts with services of the same categories get the same octets, made once and kept once.

A large snapshot is not kept: it is encoded for each host, piece by piece while the host reads it. After a restart
thousands of hosts come for the same few snapshots. A kept snapshot is valid as long as no notice was sent to any of its
categories, whatever else was committed meanwhile: the hosts that come themselves commit a row each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.interest import interest, snapshot, view_octets
from compass.model.replies import Watching
from compass.server.push.publisher import Publisher
from compass.wire.frames import frame
from compass.wire.messages import Answer, EncodedReply, Resync, StreamedReply, encode
from compass.wire.streams import resync_pieces, watching_pieces

KEPT_OCTETS_MAX = 32 * 1024 * 1024
"""Kept for the next host: the snapshots of a hundred kinds of hosts, or of two very large ones."""

STREAMED_OCTETS_MIN = 4 * 1024 * 1024
"""Octets from which a snapshot is encoded while its host reads it: encoding less takes some 10 ms at once, and the
octets of a few such snapshots are worth keeping for the next hosts."""

Kind = Literal["watching", "resync"]


class _Kept(msgspec.Struct, frozen=True):
    revision: int
    encoded: bytes


class SnapshotCache:
    """Snapshots, made when asked for and kept until they are old or too many."""

    def __init__(self, store: str, publisher: Publisher) -> None:
        """`store` is the store's id."""
        self._store = store
        self._publisher = publisher
        self._kept: dict[tuple[Kind, frozenset[str], tuple[str, ...]], _Kept] = {}
        self._octets = 0
        self.made = 0
        """Snapshots encoded so far."""

    def octets(self, catalogue: Catalogue, categories: frozenset[str]) -> int:
        """Return the octets of a snapshot for hosts with services of these categories, as they are counted."""
        return view_octets(catalogue, _topics(catalogue, categories))

    def watching(self, catalogue: Catalogue, categories: frozenset[str], unknown: tuple[str, ...]) -> Answer:
        """Return the reply to a watch."""
        topics = _topics(catalogue, categories)
        if view_octets(catalogue, topics) >= STREAMED_OCTETS_MIN:
            self.made += 1
            pieces = watching_pieces(self._store, catalogue, topics, unknown)
            return StreamedReply(
                pieces, lambda: Watching(self._store, catalogue.revision, snapshot(catalogue, topics), unknown)
            )
        return EncodedReply(self._take("watching", catalogue, categories, unknown).encoded)

    def resync(self, catalogue: Catalogue, categories: frozenset[str]) -> tuple[bytes | Iterator[bytes], int]:
        """Return the frame for a host that has to start again, or the pieces of a large resync, and the revision that
        the host holds with it."""
        topics = _topics(catalogue, categories)
        if view_octets(catalogue, topics) >= STREAMED_OCTETS_MIN:
            self.made += 1
            return resync_pieces(catalogue, topics), catalogue.revision
        kept = self._take("resync", catalogue, categories, ())
        return kept.encoded, kept.revision

    def forget(self) -> None:
        """Drop all snapshots."""
        self._kept.clear()
        self._octets = 0

    def _take(self, kind: Kind, catalogue: Catalogue, categories: frozenset[str], unknown: tuple[str, ...]) -> _Kept:
        key = kind, categories, unknown
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._octets -= len(kept.encoded)
        if kept is None or self._publisher.last_notice(categories) > kept.revision:
            kept = self._make(kind, catalogue, categories, unknown)
        # The one used last is at the end; the first ones go when there is no room.
        self._kept[key] = kept
        self._octets += len(kept.encoded)
        while self._octets > KEPT_OCTETS_MAX:
            self._octets -= len(self._kept.pop(next(iter(self._kept))).encoded)
        return kept

    def _make(self, kind: Kind, catalogue: Catalogue, categories: frozenset[str], unknown: tuple[str, ...]) -> _Kept:
        self.made += 1
        part = snapshot(catalogue, _topics(catalogue, categories))
        if kind == "resync":
            return _Kept(catalogue.revision, frame(encode(Resync(part))))
        return _Kept(catalogue.revision, encode(Watching(self._store, catalogue.revision, part, unknown)))


def _topics(catalogue: Catalogue, categories: frozenset[str]) -> frozenset[str]:
    """Return what services of these categories need to know: their interest depends on their categories alone."""
    return interest(catalogue, (f"any.{category}" for category in categories))
