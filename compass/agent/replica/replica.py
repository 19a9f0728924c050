"""The host's part of the catalogue: what its services depend on, kept in step by snapshots and notices.

Every change names the one before it on its topic, so the replica knows from what it received whether something is
missing (P4). A name that is not covered, a name that does not exist and a service without listeners are three
different answers (P5), and a view that has content is only replaced by a numbered statement of the server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import msgspec
from immutables import Map

from compass.model.catalogue.catalogue import Catalogue, catalogue_of, topic_of
from compass.model.catalogue.interest import category_view, dependencies_of, interest, listed, snapshot
from compass.model.catalogue.lookup_scope import LookupScope, parse_name
from compass.model.host_api import Resolved
from compass.model.names import InvalidName, category_of, parse_label
from compass.model.replies import CategoryView, Dependencies, Refusal, ServiceView, Watching
from compass.model.rows import Change, Listener, Service, Snapshot
from compass.model.selection.selector import Selector
from compass.wire.messages import Notice, Resync

Taken = Literal["kept", "replaced", "held-back", "behind"]
"""Result of a watch's reply. kept: the local view is good. held-back: another store without these services says nothing
about them, least of all that they are empty (P5). behind: the server lags behind the local view."""
Applied = Literal["applied", "duplicate", "gap"]
Overlay = Callable[[Catalogue], Catalogue]
"""Function that applies this host's own knowledge to the catalogue for an answer."""


def no_overlay(catalogue: Catalogue) -> Catalogue:
    """The catalogue as it is."""
    return catalogue


class Replica:
    """Mutable holder of one immutable catalogue; does no input or output and knows no time."""

    def __init__(self) -> None:
        self.store = ""
        self.catalogue = Catalogue()
        self.services: frozenset[str] = frozenset()
        """The services whose interest the catalogue is complete for."""
        self.loaded = False
        self._sight: tuple[frozenset[str], LookupScope] | None = None

    @property
    def revision(self) -> int:
        """Everything up to here is held."""
        return self.catalogue.revision

    def restore(self, store: str, services: Iterable[str], held: Snapshot) -> None:
        """Go on from what the disk had."""
        self._replace(store, services, held)

    def held(self) -> Snapshot:
        """All that is held, as a snapshot: what the disk gets."""
        return msgspec.structs.replace(snapshot(self.catalogue, self.catalogue.topics), revision=self.revision)

    def resume_point(self, services: Iterable[str]) -> tuple[str, int]:
        """Store and revision to watch from: 0 unless what is held is complete for just these services' categories."""
        if not self.loaded or _members(services) != _members(self.services):
            return self.store, 0
        return self.store, self.revision

    def watching(self, reply: Watching, services: Iterable[str]) -> Taken:
        """Take a watch's answer for these services."""
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
        """Take what the server sends in place of the notices that this host was too slow to read."""
        return self.watching(Watching(self.store, resync.snapshot.revision, resync.snapshot), self.services)

    def notice(self, notice: Notice) -> Applied:
        """Apply a pushed change, unless it is here already or one before it is missing."""
        change = notice.change
        known = self.catalogue.topics.get(topic_of(change.row), 0)
        if known < change.previous:
            return "gap"
        if known >= change.revision:
            return "duplicate"
        after = self.catalogue.with_change(_as_host(change))
        if notice.snapshot is not None:
            after = after.merge(notice.snapshot)
        # A widening may have been made later than its change; changes on other topics in between are still to come.
        after = msgspec.structs.replace(after, revision=max(self.revision, change.revision))
        self.catalogue = after if isinstance(change.row, Listener) else pruned(after, self.services)
        return "applied"

    def bookmark(self, revision: int) -> None:
        """The server has sent everything up to here."""
        if revision > self.revision:
            self.catalogue = msgspec.structs.replace(self.catalogue, revision=revision)

    def covers(self, category: str) -> bool:
        """Return whether everything that services of this category depend on is held."""
        return self.loaded and category in _members(self.services)

    def dependencies(self, service: str, overlay: Overlay = no_overlay) -> Dependencies | Refusal:
        """Function 2.3 from memory; `not-ready` when the service's category is not covered. `service` is parsed."""
        category = category_of(service)
        if not self.covers(category):
            return Refusal(
                "not-ready",
                f"what {service} depends on has not been loaded from a server yet; try again when one is reachable",
                retry_after_seconds=1.0,
            )
        if category not in self.catalogue.categories:
            return Refusal("unknown-category", f"there is no category {category!r}; an administrator can add it")
        if self.catalogue.service(service) is None:
            return Refusal("unknown-service", f"there is no service {service!r}; an administrator can add it")
        return dependencies_of(overlay(self.catalogue), service)

    def sight(self, overlay: Overlay = no_overlay) -> LookupScope | None:
        """Return the scope of lookups, the same object until a change, or None if no view is loaded."""
        if not self.loaded:
            return None
        catalogue = overlay(self.catalogue)
        if self._sight is None or self._sight[0] is not self.services or self._sight[1].catalogue is not catalogue:
            needed = self._needed()
            self._sight = (self.services, LookupScope(catalogue, needed, frozenset(self._backups(needed))))
        return self._sight[1]

    def resolve(self, text: str, pools: Selector, overlay: Overlay = no_overlay) -> Resolved | Refusal:
        """The listeners to use for a service or category that this host's services depend on."""
        name = parse_name(text)
        if isinstance(name, Refusal):
            return name
        seen = self._seen(name, overlay)
        if isinstance(seen, Refusal):
            return seen
        chosen = pools.choose(seen, name)
        return Resolved(name, self.revision, chosen.source, chosen.listeners, chosen.policy)

    def category(self, text: str, overlay: Overlay = no_overlay) -> CategoryView | Refusal:
        """All registered listeners of a category that this host's services depend on, whatever their state."""
        try:
            name = parse_label(text, "category")
        except InvalidName as problem:
            return Refusal(problem.code, str(problem))
        seen = self._seen(name, overlay)
        return seen if isinstance(seen, Refusal) else category_view(seen, name)

    def service(self, id: str, overlay: Overlay = no_overlay) -> ServiceView | Refusal:
        """All registered listeners of a service that this host's services may use. The id is parsed."""
        seen = self._seen(id, overlay)
        return seen if isinstance(seen, Refusal) else ServiceView(id, listed(seen, id))

    def _seen(self, name: str, overlay: Overlay) -> Catalogue | Refusal:
        """The catalogue to look a parsed name up in, or why nothing can be said about it (P5)."""
        sight = self.sight(overlay)
        if sight is None:
            return Refusal("not-ready", f"{name}: no view has been loaded from a server yet", retry_after_seconds=1.0)
        return sight.problem(name) or sight.catalogue

    def _needed(self) -> frozenset[str]:
        needs = self.catalogue.needs
        return frozenset().union(*(needs.get(member, frozenset()) for member in _members(self.services)))

    def _backups(self, needed: Iterable[str]) -> set[str]:
        rows = (self.catalogue.categories.get(category) for category in needed)
        return {row.backup for row in rows if row is not None and row.backup}

    def _is_newer(self, snapshot: Snapshot) -> bool:
        """Return whether this host holds something of the snapshot's topics that is newer than the snapshot."""
        return any(self.catalogue.topics.get(topic, 0) > snapshot.revision for topic in snapshot.topics)

    def _replace(self, store: str, services: Iterable[str], held: Snapshot) -> None:
        rows = [row for row in held.rows if not (isinstance(row, Listener) and row.state == "offline")]
        self.catalogue = catalogue_of(rows, held.topics, held.revision)
        self.store, self.services, self.loaded = store, frozenset(services), True


def pruned(catalogue: Catalogue, services: Iterable[str]) -> Catalogue:
    """The catalogue without the topics that these services do not depend on any more."""
    wanted = interest(catalogue, services)
    after = catalogue
    for topic in catalogue.topics:
        if topic in wanted:
            continue
        for row in list(after.rows_of(topic)):
            # A backup service's row hangs on its own topic, which may be wanted when its category is not.
            keeps = isinstance(row, Service) and (row.id in wanted or category_of(row.id) in wanted)
            if not keeps:
                after = after.without(row)
    topics = {topic: at for topic, at in after.topics.items() if topic in wanted}
    return after if len(topics) == len(after.topics) else msgspec.structs.replace(after, topics=Map(topics))


def _as_host(change: Change) -> Change:
    """A host keeps no offline listeners: what it holds equals what a pull would give."""
    if isinstance(change.row, Listener) and change.row.state == "offline":
        return msgspec.structs.replace(change, removed=True)
    return change


def _members(services: Iterable[str]) -> frozenset[str]:
    return frozenset(category_of(service) for service in services)
