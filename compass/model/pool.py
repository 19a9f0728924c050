"""Which listeners a user of a service is given, best first.

Usable listeners of the service; else those of the category's backup service; else what is draining, which still
works; else what is merely suspected. Never one that is down or offline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from immutables import Map

from compass.model.catalogue import Catalogue
from compass.model.names import category_of
from compass.model.rows import USABLE, Listener


class Choice(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to a lookup, best listener first."""

    listeners: tuple[Listener, ...]
    source: str
    """`service`, `backup`, `draining`, `suspect`, or `none` when nothing is left."""


def choose(catalogue: Catalogue, name: str, random: Callable[[], float]) -> Choice:
    """The listeners to use for a service id or for any service of a category, in weighted random order.

    `random` gives floats in [0, 1).
    """
    if "." in name:
        category, ids = category_of(name), [name]
    else:
        category, ids = name, sorted(catalogue.services.get(name, Map()))
    own = [peer for id in ids for peer in catalogue.listeners.get(id, Map()).values()]
    row = catalogue.categories.get(category)
    backup = catalogue.listeners.get(row.backup, Map()).values() if row and row.backup else ()
    for source, peers, states in (
        ("service", own, USABLE),
        ("backup", backup, USABLE),
        ("draining", own, {"draining"}),
        ("suspect", own, {"suspect"}),
    ):
        found = [peer for peer in peers if peer.state in states]
        if found:
            return Choice(shuffled(found, random), source)
    return Choice((), "none")


def shuffled(peers: Iterable[Listener], random: Callable[[], float]) -> tuple[Listener, ...]:
    """A weighted random permutation: each place is drawn in proportion to the weights left.

    The keys random^(1/weight) in descending order are such a draw (Efraimidis and Spirakis, 2006). Weight 0 comes
    after every other.
    """

    def place(peer: Listener) -> float:
        draw = random()
        return draw ** (1.0 / peer.weight) if peer.weight else draw - 1.0

    keyed = [(place(peer), peer.address, peer.port, peer) for peer in peers]
    return tuple(entry[3] for entry in sorted(keyed, key=lambda entry: entry[:3], reverse=True))
