"""Checks of a renaming: the two names, and what still uses the old one (opengnsp, "Renaming").

A renaming loses no listener that is in use and takes nothing from a host that it gets today. Where it would, it is
refused with what to do; between two steps, while both names exist, listeners and hosts can move without a pause.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from immutables import Map

from compass.model.names import RESERVED_PREFIX, category_of, format_endpoint, parse_pool_name
from compass.model.requests import Rename
from compass.model.rows import Host
from compass.model.rules.draft import Draft, refuse
from compass.model.rules.listeners import existing_service

NAMED_MAX = 3
"""Listeners, services or hosts that a refusal names; it counts the others."""
SHOWN_MAX = 80
"""Characters of each of these: the refusal is one sentence."""


class Names(msgspec.Struct, frozen=True):
    """Old and new name of a category or of a service, in canonical form."""

    old: str
    new: str

    @property
    def of_category(self) -> bool:
        """True if a category is renamed."""
        return "." not in self.old

    def renamed(self, name: str) -> str:
        """Return the new name of a category or service; any other name is returned unchanged."""
        if name == self.old:
            return self.new
        label, _, category = name.partition(".")
        return f"{label}.{self.new}" if category and category == self.old else name


def parse_names(draft: Draft, request: Rename) -> Names:
    """Return the names of a request for which the catalogue is ready. Raises Refused, InvalidName."""
    names = Names(parse_pool_name(request.name), parse_pool_name(request.to))
    _check_pair(names)
    _check_exists(draft, names.old)
    if request.step == "end":
        _check_exists(draft, names.new)
        _check_counterparts(draft, names)
    elif _exists(draft, names.new):
        refuse(
            "exists",
            f"{names.new} exists already; if it is there since the first step of this renaming, 'opengnsadmin "
            f"{_kind(names)} rename {names.old} {names.new} --end' removes {names.old}",
        )
    return names


def check_unused(draft: Draft, names: Names, *, force: bool) -> None:
    """Check that the old name can be removed: no listener is registered under it, and no host gets less. `force`: hosts
    may. Raises Refused."""
    kind, first = _kind(names), f"opengnsadmin {_kind(names)} rename {names.old} {names.new} --begin"
    living = [
        f"{peer.service} at {format_endpoint(peer.address, peer.port)}"
        for id in services_of(draft, names)
        for peer in draft.catalogue.listeners.get(id, Map()).values()
        if peer.state != "offline"
    ]
    if living:
        refuse(
            "in-use",
            f"{kind} {names.old} has registered listeners ({_few(living)}); stop or remove them first, or let both "
            f"names exist while each listener moves: '{first}'",
        )
    losing = [] if force else [host.name for host in draft.catalogue.hosts.values() if _loses(draft, names, host)]
    if losing:
        target = category_of(names.new) or names.new
        refuse(
            "in-use",
            f"hosts get what category {category_of(names.old) or names.old} depends on only because of services that "
            f"would no longer exist ({_few(losing)}); let both names exist until they have a service of {target} "
            f"('{first}'), remove hosts that are no longer there ('opengnsadmin host remove NAME'), "
            "or use --force",
        )


def services_of(draft: Draft, names: Names) -> list[str]:
    """Return the ids of the services that are renamed, sorted."""
    return sorted(draft.catalogue.services.get(names.old, Map())) if names.of_category else [names.old]


def _check_pair(names: Names) -> None:
    old, new = names.old, names.new
    if names.of_category != ("." not in new):
        refuse("bad-name", f"{old} and {new}: a category stays a category, and a service is written SERVICE.CATEGORY")
    if old == new:
        refuse("bad-value", f"{old} has this name already; use another new name")
    if names.of_category:
        if any(name.startswith(RESERVED_PREFIX) for name in (old, new)):
            refuse("bad-name", f"{old} and {new}: categories that begin with {RESERVED_PREFIX} are those of compass")
    elif category_of(old) != category_of(new):
        refuse(
            "bad-value",
            f"{old} and {new} are of two categories, and what depends on {category_of(old)} does not see "
            f"{category_of(new)}: add {new}, register its listeners there, then remove {old}",
        )


def _check_exists(draft: Draft, name: str) -> None:
    if "." in name:
        existing_service(draft, name)
    elif name not in draft.catalogue.categories:
        refuse("unknown-category", f"there is no category {name!r}; 'opengnsadmin category list' shows all")


def _check_counterparts(draft: Draft, names: Names) -> None:
    """Check that each service of the old category exists in the new one."""
    lacking = [id for id in services_of(draft, names) if draft.catalogue.service(names.renamed(id)) is None]
    if lacking:
        refuse(
            "in-use",
            f"category {names.new} does not have all services of {names.old} ({_few(lacking)}); add them to "
            f"{names.new}, or remove them from {names.old}",
        )


def _exists(draft: Draft, name: str) -> bool:
    return draft.catalogue.service(name) is not None if "." in name else name in draft.catalogue.categories


def _loses(draft: Draft, names: Names, host: Host) -> bool:
    """Return whether a host gets the dependencies of the old category now, and not those of the new one then."""
    category, target = (names.old, names.new) if names.of_category else (category_of(names.old),) * 2
    kept = [service for service in host.services if names.renamed(service) == service]
    return (
        len(kept) < len(host.services)
        and bool(draft.catalogue.needs.get(category))
        and all(category_of(service) != target for service in kept)
    )


def _kind(names: Names) -> str:
    return "category" if names.of_category else "service"


def _few(names: Iterable[str]) -> str:
    every = sorted(names)
    more = f" and {len(every) - NAMED_MAX} more" if len(every) > NAMED_MAX else ""
    return ", ".join(name[:SHOWN_MAX] for name in every[:NAMED_MAX]) + more
