"""Which listeners a user of a service is given, best first: the one implementation for all kinds of lookup.

Usable listeners of the service; else those of the category's backup service; else what is draining, which still
works; else what is merely suspected. Never one that is down or offline. `policies` puts them in order.
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
"""Pools whose turns are remembered: each name that programs of one host look up, which are a few."""


class Selection(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to a lookup, best listener first."""

    listeners: tuple[Listener, ...]
    source: str
    """`service`, `backup`, `draining`, `suspect`, or `none` when nothing is left."""
    policy: str = ""
    """The pool policy that ordered them."""


class Selector:
    """The lookups of one program: where it is, and whose turn it is in each pool that it has asked for."""

    def __init__(self, random: Random, place: Location | None = None) -> None:
        self._random = random
        self.place = place or Location()
        self._turns: dict[str, PoolState] = {}

    def moved(self, place: Location) -> None:
        """Set the location of the program, once it is known."""
        self.place = place

    def choose(self, catalogue: Catalogue, name: str) -> Selection:
        """The listeners to use for a service id or for any service of a category. `name` is parsed."""
        found, source = candidates(catalogue, name)
        rule = rule_of(catalogue, name)
        return Selection(self.order(name, found, rule), source, rule.policy)

    def order(self, pool: str, found: Sequence[Listener], rule: SelectionRule) -> tuple[Listener, ...]:
        """The candidates of a pool in the order of its rule. `pool` says whose turns they take."""
        return self._remembered(pool).ordered(found, rule, self.place, self._random) if found else ()

    def _remembered(self, name: str) -> PoolState:
        turns = self._turns.pop(name, None) or PoolState()
        while len(self._turns) >= POOLS_MAX:
            # The one that was not asked for for the longest time.
            del self._turns[next(iter(self._turns))]
        self._turns[name] = turns
        return turns


def candidates(catalogue: Catalogue, name: str) -> tuple[list[Listener], str]:
    """The listeners that may be given for a service id or a category, in no order, and where they come from."""
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
    """Return the rule for a name: that of its service, else of its category, else the default."""
    row = catalogue.categories.get(category_of(name) or name)
    if row is None:
        return SelectionRule()
    label = name.partition(".")[0] if "." in name else ""
    return SelectionRule(row.policy.pools.get(label, row.policy.pool), row.policy.locality)
