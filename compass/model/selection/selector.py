"""Selection of the listeners for a user of a service, best first: the one implementation for all kinds of lookup.

The candidates are the usable listeners of the service; without any, those of the category's backup service; without
any, the draining ones, which still work; without any, the suspect ones. A listener that is down or offline is never
selected. `policies` orders them.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from immutables import Map

from compass.model.catalogue.catalogue import Catalogue
from compass.model.names import category_of
from compass.model.rows import USABLE, Listener
from compass.model.selection.policies import Location, PoolState, Random, SelectionRule

POOLS_MAX = 10_000
"""Most pools whose state is stored: one for each name that the programs of a host look up, which are few."""


class Selection(msgspec.Struct, frozen=True, omit_defaults=True):
    """Result of a lookup, best listener first."""

    listeners: tuple[Listener, ...]
    source: str
    """`service`, `backup`, `draining`, `suspect`, or `none`: there is no candidate."""
    policy: str = ""
    """The pool policy that ordered them."""


class Selector:
    """Selector for the lookups of one program: its location, and the state of each pool that it uses."""

    def __init__(self, random: Random, place: Location | None = None) -> None:
        self._random = random
        self.place = place or Location()
        self._turns: dict[str, PoolState] = {}

    def moved(self, place: Location) -> None:
        """Set the location of the program after it has become known."""
        self.place = place

    def choose(self, catalogue: Catalogue, name: str) -> Selection:
        """Select the listeners for a service id or for any service of a category. `name` is parsed."""
        found, source = candidates(catalogue, name)
        rule = rule_of(catalogue, name)
        return Selection(self.order(name, found, rule), source, rule.policy)

    def order(self, pool: str, found: Sequence[Listener], rule: SelectionRule) -> tuple[Listener, ...]:
        """Return the candidates in the order of a rule, with the state of `pool`."""
        return self._remembered(pool).ordered(found, rule, self.place, self._random) if found else ()

    def _remembered(self, name: str) -> PoolState:
        turns = self._turns.pop(name, None) or PoolState()
        while len(self._turns) >= POOLS_MAX:
            # The least recently used pool.
            del self._turns[next(iter(self._turns))]
        self._turns[name] = turns
        return turns


def candidates(catalogue: Catalogue, name: str) -> tuple[list[Listener], str]:
    """Return the candidates for a service id or a category, in no order, and their source (`Selection.source`)."""
    if "." in name:
        category, ids = category_of(name), [name]
    else:
        category, ids = name, list(catalogue.services.get(name, Map()))
    own = [peer for id in ids for peer in catalogue.listeners.get(id, Map()).values()]
    if found := [peer for peer in own if peer.state in USABLE]:
        return found, "service"
    row = catalogue.categories.get(category)
    backup = catalogue.listeners.get(row.backup, Map()).values() if row and row.backup else ()
    if found := [peer for peer in backup if peer.state in USABLE]:
        return found, "backup"
    for state in ("draining", "suspect"):
        if found := [peer for peer in own if peer.state == state]:
            return found, state
    return [], "none"


def rule_of(catalogue: Catalogue, name: str) -> SelectionRule:
    """Return the rule for a name: that of its service, of its category, or the default."""
    row = catalogue.categories.get(category_of(name) or name)
    if row is None:
        return SelectionRule()
    label = name.partition(".")[0] if "." in name else ""
    return SelectionRule(row.policy.pools.get(label, row.policy.pool), row.policy.locality)
