"""Replica of the catalogue's part that this host's services depend on, kept up to date by snapshots and notices.

Every change names the one before it on its topic, so the replica knows from what it received whether something is
missing (P4). A view that has content is only replaced by a numbered statement of the server (P5).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec
from immutables import Map

from compass.model.catalogue.catalogue import Catalogue, catalogue_of, topic_of
from compass.model.catalogue.interest import interest, snapshot
from compass.model.names import category_of
from compass.model.replies import Watching
from compass.model.rows import Change, Listener, Service, Snapshot
from compass.wire.messages import Notice, Resync

Taken = Literal["kept", "replaced", "held-back", "behind"]
"""Result of a watch's reply. kept: the local view is good. held-back: another store without these services says nothing
about them, least of all that they are empty (P5). behind: the server lags behind the local view."""
Applied = Literal["applied", "duplicate", "gap"]


class Replica:
    """Mutable holder of one immutable catalogue; does no input or output and knows no time."""

    def __init__(self) -> None:
        self.store = ""
        self.catalogue = Catalogue()
        self.services: frozenset[str] = frozenset()
        """Services for whose categories the catalogue is complete."""
        self.loaded = False

    def restore(self, store: str, services: Iterable[str], held: Snapshot) -> None:
        """Continue from what the disk had."""
        self._replace(store, services, held)

    def held(self) -> Snapshot:
        """Return the whole content as a snapshot, for the disk."""
        catalogue = self.catalogue
        return msgspec.structs.replace(snapshot(catalogue, catalogue.topics), revision=catalogue.revision)

    def resume_point(self, services: Iterable[str]) -> tuple[str, int]:
        """Return store and revision to watch from; 0 unless the content is complete for just these categories."""
        if not self.loaded or categories_of(services) != categories_of(self.services):
            return self.store, 0
        return self.store, self.catalogue.revision

    def watching(self, reply: Watching, services: Iterable[str]) -> Taken:
        """Apply the reply to a watch for these services."""
        if reply.snapshot is None:
            self.services = frozenset(services)
            return "kept"
        foreign = reply.store != self.store or not reply.snapshot.revision
        if self.loaded and foreign and not reply.snapshot.rows and any(self.catalogue.all_rows()):
            return "held-back"
        if reply.store == self.store and self._is_newer(reply.snapshot):
            return "behind"
        self._replace(reply.store, services, reply.snapshot)
        return "replaced"

    def resync(self, resync: Resync) -> Taken:
        """Apply what the server sends in place of the notices that this host was too slow to read."""
        return self.watching(Watching(self.store, resync.snapshot.revision, resync.snapshot), self.services)

    def notice(self, notice: Notice) -> Applied:
        """Apply a pushed change, unless it is here already or one before it is missing."""
        change = notice.change
        known = self.catalogue.topics.get(topic_of(change.row), 0)
        if known < change.previous:
            return "gap"
        if known >= change.revision:
            self.bookmark(change.revision)
            return "duplicate"
        after = self.catalogue.with_change(_as_host(change))
        if notice.snapshot is not None:
            after = after.merge(notice.snapshot)
        # A widening may have been made later than its change; changes on other topics in between are still to come.
        after = msgspec.structs.replace(after, revision=max(self.catalogue.revision, change.revision))
        self.catalogue = after if isinstance(change.row, Listener) else pruned(after, self.services)
        return "applied"

    def bookmark(self, revision: int) -> None:
        """Record that the host holds everything up to this revision."""
        if revision > self.catalogue.revision:
            self.catalogue = msgspec.structs.replace(self.catalogue, revision=revision)

    def covers(self, category: str) -> bool:
        """Return whether everything that services of this category depend on is held."""
        return self.loaded and category in categories_of(self.services)

    def _is_newer(self, snapshot: Snapshot) -> bool:
        """Return whether this host holds something of the snapshot's topics that is newer than the snapshot."""
        return any(self.catalogue.topics.get(topic, 0) > snapshot.revision for topic in snapshot.topics)

    def _replace(self, store: str, services: Iterable[str], held: Snapshot) -> None:
        rows = [row for row in held.rows if not (isinstance(row, Listener) and row.state == "offline")]
        self.catalogue = catalogue_of(rows, held.topics, held.revision)
        self.store, self.services, self.loaded = store, frozenset(services), True


def pruned(catalogue: Catalogue, services: Iterable[str]) -> Catalogue:
    """Return the catalogue without the topics that these services no longer depend on."""
    wanted = interest(catalogue, services)
    after = catalogue
    for topic in catalogue.topics:
        if topic in wanted:
            continue
        for row in list(after.rows_of(topic)):
            # The topic of a backup service may be wanted although its category is not.
            keeps = isinstance(row, Service) and (row.id in wanted or category_of(row.id) in wanted)
            if not keeps:
                after = after.without(row)
    topics = {topic: at for topic, at in after.topics.items() if topic in wanted}
    return after if len(topics) == len(after.topics) else msgspec.structs.replace(after, topics=Map(topics))


def _as_host(change: Change) -> Change:
    """Return the change without an offline listener, so that the replica equals what a pull would return."""
    if isinstance(change.row, Listener) and change.row.state == "offline":
        return msgspec.structs.replace(change, removed=True)
    return change


def categories_of(services: Iterable[str]) -> frozenset[str]:
    """Return the categories that the services are members of."""
    return frozenset(category_of(service) for service in services)
