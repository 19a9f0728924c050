"""Renaming of a category or a service: rows under the new name are added, then those under the old one removed (2.6).

Both are ordinary rows, committed together, so that servers and hosts of every version follow. What is known under the
old name goes over: policy, backup relations, dependencies both ways, credentials (the same tokens), and the offline
listeners with their epochs, which guard the new name against late messages of old processes (P6).

A renaming loses no listener that is in use and takes nothing from a host that it gets today. Where it would, it is
refused with what to do; between two steps, while both names exist, listeners and hosts can move without a pause.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec
from immutables import Map

from compass.model.catalogue.octets import LISTENER_OCTETS, change_octets
from compass.model.limits import DETAIL_MAX, LISTENERS_PER_SERVICE_MAX, RENAME_OCTETS_MAX
from compass.model.names import RESERVED_PREFIX, category_of, format_endpoint, parse_pool_name
from compass.model.replies import Done
from compass.model.requests import Rename
from compass.model.rows import Category, Change, Dependency, Host, Listener, Row, Service
from compass.model.rules.draft import Draft, alert_id, refuse
from compass.model.rules.listeners import cap_id, existing_service
from compass.model.rules.shares import check_registration
from compass.model.rules.validation import check_host_lists, check_pools
from compass.model.text import escape_line

ADDED = "rename-add"
"""Operation of a change that adds a row under the new name."""
REMOVED = "rename-remove"
"""Operation of a change that removes a row under the old name."""
_NAMED_MAX = 3
"""Listeners, services or hosts that a refusal names; it counts the others."""
_SHOWN_MAX = 80
"""Characters of each of these: the refusal is one sentence."""

V = TypeVar("V")


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


def decide_rename(draft: Draft, request: Rename) -> Done:
    """Give a category or service another name, with all that is known under the old one; or one step of that."""
    names = parse_names(draft, request)
    if request.step != "begin":
        check_unused(draft, names, force=request.force)
    renaming = _Renaming(draft, names)
    if request.step != "end":
        renaming.add(keeps_old=request.step == "begin")
    if not names.of_category:
        renaming.move_policy(copies=request.step != "end", drops=request.step != "begin")
    if request.step != "begin":
        renaming.remove()
    return Done(draft.catalogue.revision, draft.shown_changes())


class _Renaming:
    """Changes of one renaming, up to `RENAME_OCTETS_MAX`."""

    def __init__(self, draft: Draft, names: Names) -> None:
        self._draft = draft
        self._names = names
        self._octets = 0
        self._counted = 0
        """Changes of the draft whose octets are counted."""

    def add(self, *, keeps_old: bool) -> None:
        """Add the new name. `keeps_old`: the old one stays, so what depends on it depends on both."""
        catalogue, names = self._draft.catalogue, self._names
        category = catalogue.categories[names.old] if names.of_category else None
        backup = names.renamed(category.backup) if category is not None else ""
        if category is not None:
            # A backup service within the category is added after it.
            first = "" if category_of(backup) == names.new else backup
            self._set(ADDED, msgspec.structs.replace(category, name=names.new, backup=first))
        for id in services_of(self._draft, names):
            self._set(ADDED, Service(names.renamed(id)))
            for credential in _sorted(catalogue.credentials.get(id, Map())):
                self._set(ADDED, msgspec.structs.replace(credential, service=names.renamed(id)))
        if category is not None:
            row = msgspec.structs.replace(category, name=names.new, backup=backup)
            if self._draft.catalogue.categories[names.new] != row:
                self._set("category-set", row)
            for pair in self._dependencies():
                self._add_dependencies(pair, keeps_old=keeps_old)

    def move_policy(self, *, copies: bool, drops: bool) -> None:
        """Change what the policy of the category says about the service."""
        names = self._names
        row = self._draft.catalogue.categories[category_of(names.old)]
        old, new = names.old.partition(".")[0], names.new.partition(".")[0]
        pools, hosts = dict(row.policy.pools), dict(row.policy.hosts)
        if copies and old in pools:
            pools[new] = pools[old]
        if copies and old in hosts:
            hosts[new] = hosts[old]
        if drops:
            pools.pop(old, None)
            hosts.pop(old, None)
        policy = msgspec.structs.replace(row.policy, pools=pools, hosts=hosts)
        if policy != row.policy:
            check_pools(policy)
            check_host_lists(hosts)
            self._set("category-set", msgspec.structs.replace(row, policy=policy))

    def remove(self) -> None:
        """Remove the old name, and let what refers to it refer to the new one."""
        draft, names = self._draft, self._names
        for id in services_of(draft, names):
            self._remove_service(id, names.renamed(id))
        if names.of_category:
            for pair in self._dependencies():
                self._remove(pair)
            self._remove(draft.catalogue.categories[names.old])
            draft.close_incident(cap_id(names.old))
        for host in _sorted(draft.catalogue.hosts):
            services = tuple(sorted({names.renamed(service) for service in host.services}))
            if services != host.services:
                self._set("host-set", msgspec.structs.replace(host, services=services))

    def _remove_service(self, old: str, new: str) -> None:
        draft, catalogue = self._draft, self._draft.catalogue
        for category in sorted(catalogue.backed.get(old, frozenset()) - {self._names.old}):
            self._set("category-set", msgspec.structs.replace(draft.catalogue.categories[category], backup=new))
        for peer in sorted(catalogue.listeners.get(old, Map()).values(), key=lambda peer: (peer.address, peer.port)):
            self._remove(peer)
            row = self._move_listener(peer, new)
            self._move_alerts(peer, row)
        for credential in _sorted(catalogue.credentials.get(old, Map())):
            self._remove(credential)
        self._remove(Service(old))

    def _move_listener(self, peer: Listener, new: str) -> Listener | None:
        """Add an offline listener under the new name. Returns its row; None: the new name has the address and port
        already."""
        catalogue = self._draft.catalogue
        if catalogue.listener(new, peer.address, peer.port) is not None:
            return None
        if len(catalogue.listeners.get(new, {})) >= LISTENERS_PER_SERVICE_MAX:
            most = f"{LISTENERS_PER_SERVICE_MAX}, the most there can be"
            refuse("too-large", f"{new} would have more listeners than {most}; purge offline ones first")
        cause = escape_line(f"renamed from {peer.service}; {peer.cause}", DETAIL_MAX)
        row = msgspec.structs.replace(peer, service=new, cause=cause)
        check_registration(catalogue, None, row)
        self._set(ADDED, row)
        return row

    def _move_alerts(self, peer: Listener, row: Listener | None) -> None:
        """Close the incidents of a listener; what is open about one that died stays open under its new name."""
        for kind in ("failure", "slow") if row is not None else ():
            alert = self._draft.catalogue.alerts.get(alert_id(kind, peer))
            if alert is not None and row is not None:
                text = alert.text
                if text.startswith(peer.service):
                    text = row.service + text.removeprefix(peer.service)
                self._set("alert", msgspec.structs.replace(alert, id=alert_id(kind, row), text=text))
        self._draft.close_alerts(peer)

    def _dependencies(self) -> list[Dependency]:
        """Return the dependencies of and on the old category."""
        catalogue, old = self._draft.catalogue, self._names.old
        pairs = {(old, on) for on in catalogue.needs.get(old, frozenset())}
        pairs |= {(category, old) for category in catalogue.dependants.get(old, frozenset())}
        return [Dependency(*pair) for pair in sorted(pairs)]

    def _add_dependencies(self, pair: Dependency, *, keeps_old: bool) -> None:
        """Add a dependency of the old category under the new name. `keeps_old`: if the category depends on itself, its
        services find those of both names."""
        new = self._names.renamed
        wanted = {(new(pair.category), new(pair.on))}
        if keeps_old:
            wanted |= {(new(pair.category), pair.on), (pair.category, new(pair.on))}
        for category, on in sorted(wanted):
            if on not in self._draft.catalogue.needs.get(category, frozenset()):
                self._set(ADDED, Dependency(category, on))

    def _set(self, operation: str, row: Row) -> None:
        self._draft.set(operation, row)
        self._count()

    def _remove(self, row: Row) -> None:
        self._draft.remove(REMOVED, row)
        self._count()

    def _count(self) -> None:
        """Count the octets of the changes. Raises Refused if there are too many."""
        for change in self._draft.changes[self._counted :]:
            self._octets += octets_of(change)
        self._counted = len(self._draft.changes)
        if self._octets > RENAME_OCTETS_MAX:
            refuse(
                "too-large",
                f"renaming {self._names.old} changes rows of more than {RENAME_OCTETS_MAX} octets, the most of one "
                "request; purge its offline listeners first, or rename in two steps, --begin and --end",
            )


def octets_of(change: Change) -> int:
    """Return the octets of a change; names in lists and policies count."""
    match change.row:
        case Host(services=services):
            return LISTENER_OCTETS + sum(map(len, services))
        case Category(policy=policy):
            labels = sum(map(len, (*policy.pools, *policy.pools.values(), *policy.hosts)))
            return LISTENER_OCTETS + labels + sum(len(name) for hosts in policy.hosts.values() for name in hosts)
    return change_octets(change)


def _sorted(table: Mapping[str, V]) -> list[V]:
    return [row for _, row in sorted(table.items())]


# What is refused.


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
    more = f" and {len(every) - _NAMED_MAX} more" if len(every) > _NAMED_MAX else ""
    return ", ".join(name[:_SHOWN_MAX] for name in every[:_NAMED_MAX]) + more
