"""Decision of a renaming: rows under the new name are added, then those under the old one removed (function 2.6).

Both are ordinary rows, committed together, so that servers and hosts of every version follow. What is known under the
old name goes over: policy, backup relations, dependencies both ways, credentials (the same tokens), and the offline
listeners with their epochs, which guard the new name against late messages of old processes (P6).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec
from immutables import Map

from compass.model.catalogue.octets import LISTENER_OCTETS, change_octets
from compass.model.limits import DETAIL_MAX, LISTENERS_PER_SERVICE_MAX, RENAME_OCTETS_MAX
from compass.model.names import category_of
from compass.model.replies import Done
from compass.model.requests import Rename
from compass.model.rows import Category, Change, Dependency, Host, Listener, Row, Service
from compass.model.rules.draft import Draft, refuse
from compass.model.rules.listeners import cap_id
from compass.model.rules.renaming.checks import Names, check_unused, parse_names, services_of
from compass.model.rules.shares import check_registration
from compass.model.rules.validation import check_host_lists, check_pools
from compass.model.text import escape_line

ADDED = "rename-add"
REMOVED = "rename-remove"

V = TypeVar("V")


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
    return Done(draft.catalogue.revision, tuple(draft.changes))


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
            draft.close_alerts(peer)
            self._remove(peer)
            self._move_listener(peer, new)
        for credential in _sorted(catalogue.credentials.get(old, Map())):
            self._remove(credential)
        self._remove(Service(old))

    def _move_listener(self, peer: Listener, new: str) -> None:
        """Add an offline listener under the new name, unless that one has the address and port already."""
        catalogue = self._draft.catalogue
        if catalogue.listener(new, peer.address, peer.port) is not None:
            return
        if len(catalogue.listeners.get(new, {})) >= LISTENERS_PER_SERVICE_MAX:
            most = f"{LISTENERS_PER_SERVICE_MAX}, the most there can be"
            refuse("too-large", f"{new} would have more listeners than {most}; purge offline ones first")
        cause = escape_line(f"renamed from {peer.service}; {peer.cause}", DETAIL_MAX)
        row = msgspec.structs.replace(peer, service=new, cause=cause)
        check_registration(catalogue, None, row)
        self._set(ADDED, row)

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
