"""Answers to pulls as encoded: services of one category depend on the same, and ask again and again.

What an answer lists is encoded once for a category and kept until its members are sent a notice; each answer is that
list after the service's name and the present revision, so that it is as new as one made from the catalogue.
"""

from __future__ import annotations

import msgspec

from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.interest import needed_octets
from compass.model.names import category_of
from compass.model.replies import Dependencies
from compass.server.push.publisher import Publisher
from compass.wire.messages import EncodedReply, encode_dependencies, encode_views

KEPT_OCTETS_MAX = 32 * 1024 * 1024
"""Kept for the next pull: the lists of some thousand categories with thirty listeners each, or of a few large ones."""


STREAMED_OCTETS_MIN = 4 * 1024 * 1024
"""Octets from which an answer is encoded while its client reads it, as for snapshots."""


class _Kept(msgspec.Struct, frozen=True):
    revision: int
    views: bytes


class PullCache:
    """Lists of pulls by category, made when first asked for and kept until they are old or too many."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._kept: dict[str, _Kept] = {}
        """Lists by category of the services that ask."""
        self._octets = 0

    def kept(self, catalogue: Catalogue, service: str) -> EncodedReply | None:
        """Return the answer to a service as it is spelled in the catalogue, or None if its list is not kept."""
        category = category_of(service)
        kept = self._kept.get(category)
        if kept is None or catalogue.service(service) is None:
            return None
        if self._publisher.last_notice(frozenset((category,))) > kept.revision:
            self._forget(category)
            return None
        return encode_dependencies(service, catalogue.revision, kept.views)

    def keep(self, answer: Dependencies) -> EncodedReply:
        """Keep the list of an answer made from the catalogue; the oldest lists make room. Returns it encoded."""
        category = category_of(answer.service)
        self._forget(category)
        views = encode_views(answer.categories)
        self._kept[category] = _Kept(answer.revision, views)
        self._octets += len(views)
        while self._octets > KEPT_OCTETS_MAX:
            self._forget(next(iter(self._kept)))
        return encode_dependencies(answer.service, answer.revision, views)

    def _forget(self, category: str) -> None:
        kept = self._kept.pop(category, None)
        if kept is not None:
            self._octets -= len(kept.views)


def is_large(catalogue: Catalogue, service: str) -> bool:
    """Return whether the answer to a service, as it is spelled in the catalogue, is not kept but streamed."""
    category = category_of(service)
    return needed_octets(catalogue, category) >= STREAMED_OCTETS_MIN and catalogue.service(service) is not None
