"""View of a service's dependencies, and lookups in it. Pure.

The view is updated by the daemon's events and answers without a round trip. It selects by the same rules as the daemon
(`compass.model.selection.selector`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import msgspec

from compass.model.catalogue.catalogue import Catalogue, catalogue_of
from compass.model.catalogue.interest import dependencies_of
from compass.model.host_api import LocalEvent, Resolved
from compass.model.names import InvalidName, category_of, parse_label, parse_service_id
from compass.model.replies import Dependencies, Refusal
from compass.model.rows import USABLE, Category, Change, Dependency, Listener, ListenerKey, Policy, Row, Service
from compass.model.selection.selector import Selector

AVOID_SECONDS = 60.0
"""Seconds that a failed listener is avoided unless its row changes: the same as in the daemon."""
AVOIDED_MAX = 1024
"""Listeners avoided at the same time; beyond this number the oldest is used again."""


class Views(Protocol):
    """Source of views that other code keeps up to date; a client tries it before it watches by itself."""

    def view(self, service: str) -> View | None:
        """Return the current view of a service's dependencies; None if there is none here."""


class View(msgspec.Struct, frozen=True):
    """Dependencies of one service at a revision."""

    service: str
    catalogue: Catalogue

    @property
    def revision(self) -> int:
        """Revision up to which the view is complete."""
        return self.catalogue.revision

    def after(self, event: LocalEvent) -> View:
        """Return the view after an event."""
        if not isinstance(event.data, Change):
            return view_of(event.data)
        change = event.data
        if isinstance(change.row, Listener):
            gone = change.removed or change.row.state == "offline"
            return View(self.service, self.catalogue.with_change(msgspec.structs.replace(change, removed=gone)))
        # Any other change is followed by a whole snapshot.
        return self

    def dependencies(self) -> Dependencies:
        """Return the answer to a pull (function 2.3)."""
        return dependencies_of(self.catalogue, self.service)

    def resolve(self, name: str, pools: Selector, shunned: FailedListeners, now: float) -> Resolved | Refusal:
        """Return the listeners to use, best first, failed ones last, or the refusal that the daemon would return."""
        try:
            name = parse_service_id(name) if "." in name else parse_label(name, "category")
        except InvalidName as problem:
            return Refusal("bad-name", str(problem))
        needed = self.catalogue.needs.get(category_of(self.service), frozenset())
        rows = (self.catalogue.categories.get(category) for category in needed)
        backups = {row.backup for row in rows if row is not None}
        if (category_of(name) or name) not in needed and name not in backups:
            return Refusal("unknown-dependency", f"{self.service} does not depend on {name}")
        if "." in name and name not in backups and self.catalogue.service(name) is None:
            return Refusal("unknown-service", f"there is no service {name!r}; an administrator can add it")
        chosen = pools.choose(shunned.apply_to(self.catalogue, now), name)
        return Resolved(name, self.revision, chosen.source, chosen.listeners, chosen.policy)


def view_of(told: Dependencies) -> View:
    """Return the view of a pull's answer or of a watch's snapshot."""
    member = category_of(told.service)
    rows: list[Row] = [Category(member), Service(told.service)]
    topics: dict[str, int] = {}
    for needed in told.categories:
        policy = Policy(pool=needed.pool, pools=needed.pools, locality=needed.locality)
        rows += [Category(needed.category, needed.backup, policy), Dependency(member, needed.category)]
        for service in needed.services:
            rows += [Service(service.id), *service.listeners]
        rows += needed.backup_listeners
    return View(told.service, catalogue_of(rows, topics, told.revision))


class FailedListeners:
    """Listeners that failed here, each until its row changes or AVOID_SECONDS have passed."""

    def __init__(self) -> None:
        self._rows: dict[ListenerKey, tuple[Listener, float]] = {}

    def add(self, row: Listener, now: float) -> None:
        """Add a listener that failed."""
        key = (row.service, row.address, row.port)
        self._rows.pop(key, None)
        self._rows[key] = (row, now + AVOID_SECONDS)
        if len(self._rows) > AVOIDED_MAX:
            del self._rows[next(iter(self._rows))]

    def remove(self, row: Listener) -> None:
        """Remove a listener that works."""
        self._rows.pop((row.service, row.address, row.port), None)

    def last(self, peers: tuple[Listener, ...], now: float) -> tuple[Listener, ...]:
        """Return listeners that the daemon has ordered, with the failed ones last: their reports may be on the way."""
        rows = ((peer, self._rows.get((peer.service, peer.address, peer.port))) for peer in peers)
        failed = [peer for peer, kept in rows if kept is not None and kept[0] == peer and now < kept[1]]
        return (*(peer for peer in peers if peer not in failed), *failed) if failed else peers

    def apply_to(self, catalogue: Catalogue, now: float) -> Catalogue:
        """Return the catalogue with the failed listeners as `suspect`."""
        for row in list(self._current(catalogue, now)):
            catalogue = catalogue.with_row(msgspec.structs.replace(row, state="suspect", cause="failed here"))
        return catalogue

    def _current(self, catalogue: Catalogue, now: float) -> Iterator[Listener]:
        for key, (row, until) in list(self._rows.items()):
            if now >= until or catalogue.listener(*key) != row:
                self._rows.pop(key, None)
            elif row.state in USABLE:
                yield row
