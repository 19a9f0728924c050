"""A pool as hooks and templates are given it: who may be used now, who may not, and where else to go.

Listeners stand in a fixed order, by service, address and port: who writes a configuration file of them wants the same
file for the same catalogue. What changes all the time is left out (a listener's load, and when it changed): who
balances by it asks at each lookup.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from immutables import Map

from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.interest import listed
from compass.model.catalogue.lookup_scope import LookupScope
from compass.model.names import category_of, format_endpoint
from compass.model.replies import Refusal
from compass.model.rows import Listener
from compass.model.selection.selector import candidates


class Peer(msgspec.Struct, frozen=True):
    """Listener of a pool."""

    service: str
    address: str
    port: int
    state: str
    weight: int
    zone: str
    metadata: dict[str, str]
    epoch: int
    endpoint: str
    """`address:port`, an IPv6 address in brackets."""
    label: str
    """A name of its own among all listeners, of letters, digits, `.`, `-` and `_`, as configuration files want it."""


class PoolView(msgspec.Struct, frozen=True):
    """Current listeners of a service id or of a category."""

    name: str
    source: str
    """Source of `listeners`: `service`, `backup`, `draining`, `suspect`, or `none`."""
    listeners: tuple[Peer, ...]
    """Listeners to use now, selected as for every lookup (`compass.model.selection.selector`)."""
    others: tuple[Peer, ...]
    """Registered listeners that are not in `listeners`: draining, suspect or down."""
    backup: str
    """The service to go to when none of its own is left; empty: there is none."""
    backups: tuple[Peer, ...]
    """The usable listeners of that one."""
    services: tuple[PoolView, ...] = ()
    """Views of each service, if the name is a category."""


def pools_of(sight: LookupScope, names: Iterable[str]) -> dict[str, PoolView] | Refusal:
    """Each of these parsed names as a pool; the first refusal when one of them is unknown here (P5)."""
    pools: dict[str, PoolView] = {}
    for name in names:
        problem = sight.problem(name)
        if problem is not None:
            return problem
        pools[name] = pool_view(sight.catalogue, name)
    return pools


def pool_view(catalogue: Catalogue, name: str) -> PoolView:
    """A service or a category of a catalogue that holds it."""
    is_category = "." not in name
    ids: Sequence[str] = sorted(catalogue.services.get(name, Map())) if is_category else (name,)
    found, source = candidates(catalogue, name)
    row = catalogue.categories.get(category_of(name) or name)
    backup = row.backup if row is not None else ""
    usable = candidates(catalogue, backup) if backup else ([], "none")
    chosen = frozenset((peer.service, peer.address, peer.port) for peer in found)
    own = [peer for id in ids for peer in listed(catalogue, id)]
    return PoolView(
        name=name,
        source=source,
        listeners=_peers(found),
        others=_peers(peer for peer in own if (peer.service, peer.address, peer.port) not in chosen),
        backup=backup,
        backups=_peers(usable[0]) if usable[1] == "service" else (),
        services=tuple(pool_view(catalogue, id) for id in ids) if is_category else (),
    )


def _peers(rows: Iterable[Listener]) -> tuple[Peer, ...]:
    ordered = sorted(rows, key=lambda row: (row.service, row.address, row.port))
    return tuple(
        Peer(
            service=row.service,
            address=row.address,
            port=row.port,
            state=row.state,
            weight=row.weight,
            zone=row.zone,
            metadata=row.metadata,
            epoch=row.epoch,
            endpoint=format_endpoint(row.address, row.port),
            label=f"{row.service}-{row.address.replace(':', '-')}-{row.port}",
        )
        for row in ordered
    )
