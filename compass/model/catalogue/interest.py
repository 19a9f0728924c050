"""Audience of a change and interest of a host: the push filter, computed from the declared dependencies.

A *member* category of a host is a category of one of its services. The host's interest is the topics of its member
categories and of the categories on which they depend, each with its backup service, before it is needed (P7).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from immutables import Map

from compass.model.catalogue.catalogue import Catalogue, topic_of
from compass.model.names import category_of
from compass.model.replies import CategoryView, Dependencies, ServiceView
from compass.model.rows import Category, Change, Dependency, Listener, Policy, Row, Snapshot, key_of

SERVICE_OCTETS = 128
"""Octets of a service in a snapshot: its row and its topic."""


def audience(catalogue: Catalogue, row: Row) -> frozenset[str]:
    """Return the member categories whose hosts receive a change of `row`; empty if there are none.

    `catalogue` is the one after the change. The dependants of a listener's category receive its changes, and so do the
    dependants of each category that it backs; a change of a category itself goes to its members as well.
    """
    topic = topic_of(row)
    if not topic:
        return frozenset()
    members = catalogue.dependants.get(category_of(topic) or topic, frozenset())
    if not isinstance(row, Listener):
        return members | {topic}
    backed = catalogue.backed.get(topic)
    if backed:
        return members.union(*(catalogue.dependants.get(category, frozenset()) for category in backed))
    return members


def interest(catalogue: Catalogue, services: Iterable[str]) -> frozenset[str]:
    """Return the topics that a host with these services must hold."""
    members = {category_of(service) for service in services}
    topics = set(members)
    for member in members:
        for needed in catalogue.needs.get(member, frozenset()):
            topics |= _topics_of(catalogue, needed)
    return frozenset(topics)


def snapshot(catalogue: Catalogue, topics: Iterable[str]) -> Snapshot:
    """Return the rows of these topics, each topic with its last revision."""
    rows: dict[object, Row] = {}
    covered: dict[str, int] = {}
    for topic in sorted(topics):
        covered[topic] = catalogue.topics.get(topic, 0)
        for row in catalogue.rows_of(topic):
            rows[type(row), key_of(row)] = row
    return Snapshot(catalogue.revision, covered, list(rows.values()))


def added_topics(catalogue: Catalogue, change: Change) -> tuple[set[str], frozenset[str]] | None:
    """Return the topics that a change adds to the interest of some of its audience, and for which member categories.

    They are sent with the change, so that no host has to request them. `catalogue` is the one after the change.
    """
    match change.row:
        case Dependency(category=category, on=on) if not change.removed:
            return _topics_of(catalogue, on), frozenset({category})
        case Category(name=name, backup=backup) if backup and not change.removed:
            return {backup}, catalogue.dependants.get(name, frozenset())
    return None


def dependencies_of(catalogue: Catalogue, service: str) -> Dependencies:
    """Return the dependencies of `service` in this catalogue (function 2.3)."""
    needed = sorted(catalogue.needs.get(category_of(service), frozenset()))
    return Dependencies(service, catalogue.revision, tuple(category_view(catalogue, name) for name in needed))


def category_view(catalogue: Catalogue, name: str) -> CategoryView:
    """Return a category's services with their listeners, and its backup with its listeners."""
    head = category_head(catalogue, name)
    return msgspec.structs.replace(
        head,
        services=tuple(ServiceView(id, listed(catalogue, id)) for id in sorted(catalogue.services.get(name, Map()))),
        backup_listeners=listed(catalogue, head.backup) if head.backup else (),
    )


def category_head(catalogue: Catalogue, name: str) -> CategoryView:
    """Return the view of a category without its services and listeners."""
    category = catalogue.categories.get(name)
    policy = category.policy if category else Policy()
    return CategoryView(
        category=name,
        backup=category.backup if category else "",
        pool=policy.pool,
        pools=policy.pools,
        locality=policy.locality,
    )


def listed(catalogue: Catalogue, service: str) -> tuple[Listener, ...]:
    """Return the listeners of a service in a pull: all except the offline ones, in a stable order."""
    peers = catalogue.listeners.get(service, Map()).values()
    shown = [peer for peer in peers if peer.state != "offline"]
    return tuple(sorted(shown, key=lambda peer: (peer.address, peer.port)))


def view_octets(catalogue: Catalogue, topics: Iterable[str]) -> int:
    """Return the octets of the listeners of these topics, and something for each service."""
    octets = catalogue.octets
    return sum(octets.get(topic, 0) + SERVICE_OCTETS for topic in topics if "." in topic)


def needed_octets(catalogue: Catalogue, member: str) -> int:
    """Return the octets of the listeners that the services of one category depend on."""
    octets = catalogue.octets
    needed = catalogue.needs.get(member, frozenset())
    rows = [catalogue.categories.get(category) for category in needed]
    backups = {row.backup for row in rows if row is not None and row.backup and category_of(row.backup) not in needed}
    return sum(octets.get(holder, 0) for holder in (*needed, *backups))


def _topics_of(catalogue: Catalogue, category: str) -> set[str]:
    """Return the topics of a category: itself, its services and its backup service."""
    topics = {category, *catalogue.services.get(category, Map())}
    row = catalogue.categories.get(category)
    if row is not None and row.backup:
        topics.add(row.backup)
    return topics
