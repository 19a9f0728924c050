"""Expected state at each revision: the update log, replayed."""

from __future__ import annotations

from collections.abc import Iterable

from immutables import Map

from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.interest import audience
from compass.model.rows import Change
from tests.histories.events import Instance, instance_of


class Truth:
    """A catalogue for each revision; they share what did not change."""

    def __init__(self, changes: Iterable[Change]) -> None:
        """`changes`: the log from revision 1 on. Raises OutOfOrder when one is missing."""
        self.changes: list[Change] = []
        self.catalogues = [Catalogue()]
        self.told: list[frozenset[str]] = [frozenset()]
        """Categories whose hosts had to be notified of each change."""
        for change in changes:
            after = self.catalogues[-1].apply(change)
            self.changes.append(change)
            self.catalogues.append(after)
            self.told.append(audience(after, change.row))

    @property
    def revision(self) -> int:
        """The last one."""
        return len(self.changes)

    def at(self, revision: int) -> Catalogue:
        """The catalogue at a revision."""
        return self.catalogues[revision]

    def change(self, revision: int) -> Change | None:
        """The change of that revision, if there is one."""
        return self.changes[revision - 1] if 1 <= revision <= self.revision else None

    def instances(self, service: str, revision: int) -> frozenset[Instance]:
        """The listeners of a service at a revision, as anybody should see them."""
        rows = self.catalogues[revision].listeners.get(service, Map()).values()
        return frozenset(instance_of(row) for row in rows if row.state != "offline")
