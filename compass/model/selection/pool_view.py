"""View of a pool for hooks and templates: its usable listeners, the others, and the backup.

Listeners have a fixed order, by service, address and port, so that a template renders the same file for the same
catalogue. Values that change all the time are omitted (a listener's load, and the time of its last change): a program
that balances by load uses lookups.
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
    """Unique name of the listener for configuration files, of letters, digits, `.`, `-` and `_`."""


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
    """Service to use if none of its own is usable; empty: there is none."""
    backups: tuple[Peer, ...]
    """Usable listeners of the backup."""
    services: tuple[PoolView, ...] = ()
    """Views of each service, if the name is a category."""


def pools_of(scope: LookupScope, names: Iterable[str]) -> dict[str, PoolView] | Refusal:
    """Return the views of these parsed names, or the first refusal if one of them is outside the scope (P5)."""
    pools: dict[str, PoolView] = {}
    for name in names:
        problem = scope.problem(name)
        if problem is not None:
            return problem
        pools[name] = pool_view(scope.catalogue, name)
    return pools


def pool_view(catalogue: Catalogue, name: str) -> PoolView:
    """Return the view of a service or category that the catalogue holds."""
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
