"""What a program holds of its service's dependencies, and what it makes of a lookup. Pure.

The view is fed by the daemon's events and answers without a round trip. It chooses by the same rules as the daemon
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
"""How long a listener is avoided that failed here when nobody says anything about it: the daemon's own bound."""
AVOIDED_MAX = 1024
"""Listeners avoided at the same time; beyond that the oldest is used again."""


class Views(Protocol):
    """Where a core finds views before it watches by itself: a place that somebody else keeps up to date."""

    def view(self, service: str) -> View | None:
        """What `service` depends on, as it is now; None when it is not kept there."""


class View(msgspec.Struct, frozen=True):
    """What one service depends on, as of a revision."""

    service: str
    catalogue: Catalogue

    @property
    def revision(self) -> int:
        """Everything up to here is in it."""
        return self.catalogue.revision

    def after(self, event: LocalEvent) -> View:
        """The view once the event has happened."""
        if not isinstance(event.data, Change):
            return view_of(event.data)
        change = event.data
        if isinstance(change.row, Listener):
            gone = change.removed or change.row.state == "offline"
            return View(self.service, self.catalogue.with_change(msgspec.structs.replace(change, removed=gone)))
        # A change of shape is followed by a whole snapshot.
        return self

    def dependencies(self) -> Dependencies:
        """Function 2.3."""
        return dependencies_of(self.catalogue, self.service)

    def resolve(self, name: str, pools: Selector, shunned: FailedListeners, now: float) -> Resolved | Refusal:
        """The listeners to use, best first, those that failed here last; refused as the daemon would."""
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
    """A view that holds just what a pull, or a snapshot of a watch, has told."""
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
    """The listeners that failed here, until something is said about them, or for a while."""

    def __init__(self) -> None:
        self._rows: dict[ListenerKey, tuple[Listener, float]] = {}

    def add(self, row: Listener, now: float) -> None:
        """It failed."""
        key = (row.service, row.address, row.port)
        self._rows.pop(key, None)
        self._rows[key] = (row, now + AVOID_SECONDS)
        if len(self._rows) > AVOIDED_MAX:
            del self._rows[next(iter(self._rows))]

    def remove(self, row: Listener) -> None:
        """It works."""
        self._rows.pop((row.service, row.address, row.port), None)

    def apply_to(self, catalogue: Catalogue, now: float) -> Catalogue:
        """The catalogue with these as suspect."""
        for row in list(self._current(catalogue, now)):
            catalogue = catalogue.with_row(msgspec.structs.replace(row, state="suspect", cause="failed here"))
        return catalogue

    def _current(self, catalogue: Catalogue, now: float) -> Iterator[Listener]:
        for key, (row, until) in list(self._rows.items()):
            if now >= until or catalogue.listener(*key) != row:
                self._rows.pop(key, None)
            elif row.state in USABLE:
                yield row
