"""Catalogue: the state of the name service as one immutable value.

`apply` returns the next catalogue and leaves this one unchanged (persistent maps share the unchanged parts). So a batch
of requests is decided on a draft while readers use the committed catalogue, and a failed commit is undone by dropping
the draft. A server holds the whole catalogue; a host holds the topics that its services depend on, in the same class. A
*topic* is the subject of a chain of changes: a service id (its listeners) or a category name (its services,
dependencies, backup and policy).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec
from immutables import Map

from compass.model.catalogue.octets import ALL, moved, octets_of, without_service
from compass.model.names import category_of
from compass.model.rows import (
    Alert,
    Category,
    Change,
    Credential,
    Dependency,
    Host,
    Listener,
    Row,
    Service,
    Snapshot,
)

Endpoint = tuple[str, int]
K = TypeVar("K")
V = TypeVar("V")


class OutOfOrder(Exception):
    """Error of a change that does not follow the revision of a full replica: a defect, never caused by input."""


class Catalogue(msgspec.Struct, frozen=True):
    """Catalogue: all rows, and the indexes for decisions and pushes. Equal catalogues have all of these equal."""

    revision: int = 0
    categories: Map[str, Category] = Map()
    services: Map[str, Map[str, Service]] = Map()
    """Services: category -> service id -> row."""
    listeners: Map[str, Map[Endpoint, Listener]] = Map()
    """Listeners: service id -> (address, port) -> row."""
    needs: Map[str, frozenset[str]] = Map()
    """Dependencies: category -> the categories on which it depends."""
    dependants: Map[str, frozenset[str]] = Map()
    """Dependants: category -> the categories that depend on it."""
    backed: Map[str, frozenset[str]] = Map()
    """Backups: service id -> the categories whose backup it is."""
    credentials: Map[str, Map[str, Credential]] = Map()
    """Credentials: service id -> credential id -> row."""
    hosts: Map[str, Host] = Map()
    alerts: Map[str, Alert] = Map()
    topics: Map[str, int] = Map()
    """Topics: topic -> revision of its last change."""
    octets: Map[str, int] = Map()
    """Octets of the listeners: service id, category, or `octets.ALL` -> sum."""

    def apply(self, change: Change) -> Catalogue:
        """Return the full replica after the next change of the log. Raises OutOfOrder for any other change."""
        if change.revision != self.revision + 1:
            raise OutOfOrder(f"revision {change.revision} applied to a catalogue at {self.revision}")
        return self.with_change(change)

    def with_change(self, change: Change) -> Catalogue:
        """Return the catalogue after a change: with its row set or removed, and with its revision and topic."""
        row = change.row
        if isinstance(row, Listener) and not change.removed:
            # Nearly all changes are of this kind, so they are made in one step.
            peers = self.listeners.get(row.service, Map())
            key = row.address, row.port
            return msgspec.structs.replace(
                self,
                listeners=self.listeners.set(row.service, peers.set(key, row)),
                octets=moved(self.octets, peers.get(key), row),
                topics=self.topics.set(row.service, change.revision),
                revision=max(self.revision, change.revision),
            )
        after = self.without(row) if change.removed else self.with_row(row)
        topics = after.topics
        topic = topic_of(row)
        if topic and not (change.removed and isinstance(row, Category)):
            topics = topics.set(topic, change.revision)
        if isinstance(row, Service):
            topics = _dropped(topics, row.id) if change.removed else topics.set(row.id, change.revision)
            # A service begins and ends without listeners. A host that missed changes may hold old ones.
            sums = without_service(after.octets, row.id)
            after = msgspec.structs.replace(after, listeners=_dropped(after.listeners, row.id), octets=sums)
        return msgspec.structs.replace(after, topics=topics, revision=max(self.revision, change.revision))

    def with_row(self, row: Row) -> Catalogue:
        """Return the catalogue with `row` in place of the row with the same key."""
        match row:
            case Listener():
                peers = self.listeners.get(row.service, Map())
                key = row.address, row.port
                sums = moved(self.octets, peers.get(key), row)
                table = self.listeners.set(row.service, peers.set(key, row))
                return msgspec.structs.replace(self, listeners=table, octets=sums)
            case Service():
                ids = self.services.get(category_of(row.id), Map()).set(row.id, row)
                return msgspec.structs.replace(self, services=self.services.set(category_of(row.id), ids))
            case Category():
                before = self.without(row) if row.name in self.categories else self
                backed = _joined(before.backed, row.backup, row.name) if row.backup else before.backed
                return msgspec.structs.replace(before, categories=before.categories.set(row.name, row), backed=backed)
            case Dependency():
                return msgspec.structs.replace(
                    self,
                    needs=_joined(self.needs, row.category, row.on),
                    dependants=_joined(self.dependants, row.on, row.category),
                )
            case Credential():
                own = self.credentials.get(row.service, Map()).set(row.id, row)
                return msgspec.structs.replace(self, credentials=self.credentials.set(row.service, own))
            case Host():
                return msgspec.structs.replace(self, hosts=self.hosts.set(row.name, row))
            case Alert():
                return msgspec.structs.replace(self, alerts=self.alerts.set(row.id, row))

    def without(self, row: Row) -> Catalogue:
        """Return the catalogue without the row that has the key of `row`; unchanged if there is none."""
        match row:
            case Listener():
                held = self.listener(row.service, row.address, row.port)
                peers = _dropped(self.listeners.get(row.service, Map()), (row.address, row.port))
                sums = moved(self.octets, held, None)
                return msgspec.structs.replace(self, listeners=_kept(self.listeners, row.service, peers), octets=sums)
            case Service():
                category = category_of(row.id)
                ids = _dropped(self.services.get(category, Map()), row.id)
                return msgspec.structs.replace(self, services=_kept(self.services, category, ids))
            case Category():
                old = self.categories.get(row.name)
                backed = _parted(self.backed, old.backup, row.name) if old and old.backup else self.backed
                return msgspec.structs.replace(
                    self,
                    categories=_dropped(self.categories, row.name),
                    backed=backed,
                    topics=_dropped(self.topics, row.name),
                )
            case Dependency():
                return msgspec.structs.replace(
                    self,
                    needs=_parted(self.needs, row.category, row.on),
                    dependants=_parted(self.dependants, row.on, row.category),
                )
            case Credential():
                own = _dropped(self.credentials.get(row.service, Map()), row.id)
                return msgspec.structs.replace(self, credentials=_kept(self.credentials, row.service, own))
            case Host():
                return msgspec.structs.replace(self, hosts=_dropped(self.hosts, row.name))
            case Alert():
                return msgspec.structs.replace(self, alerts=_dropped(self.alerts, row.id))

    def merge(self, snapshot: Snapshot) -> Catalogue:
        """Return a host's catalogue with the topics of the snapshot replaced, except those that are newer here."""
        newer = {topic for topic, at in snapshot.topics.items() if at >= self.topics.get(topic, 0)}
        after = self
        for topic in newer:
            for row in list(self.rows_of(topic)):
                after = after.without(row)
        for row in snapshot.rows:
            if topic_of(row) in newer or (isinstance(row, Service) and row.id in newer):
                after = after.with_row(row)
        topics = after.topics.update({topic: snapshot.topics[topic] for topic in newer})
        return msgspec.structs.replace(after, topics=topics, revision=max(self.revision, snapshot.revision))

    def rows_of(self, topic: str) -> Iterator[Row]:
        """Return the rows of a topic. Offline listeners are history, not content, and omitted."""
        if "." in topic:
            service = self.service(topic)
            if service is not None:
                yield service
            for listener in self.listeners.get(topic, Map()).values():
                if listener.state != "offline":
                    yield listener
        else:
            category = self.categories.get(topic)
            if category is not None:
                yield category
            yield from self.services.get(topic, Map()).values()
            for on in self.needs.get(topic, frozenset()):
                yield Dependency(topic, on)

    def all_rows(self) -> Iterator[Row]:
        """Return all rows, in no particular order."""
        yield from self.categories.values()
        for ids in self.services.values():
            yield from ids.values()
        for category, needs in self.needs.items():
            yield from (Dependency(category, on) for on in needs)
        for peers in self.listeners.values():
            yield from peers.values()
        for own in self.credentials.values():
            yield from own.values()
        yield from self.hosts.values()
        yield from self.alerts.values()

    def service(self, service_id: str) -> Service | None:
        """Return a service, or None if it does not exist."""
        ids = self.services.get(category_of(service_id))
        return ids.get(service_id) if ids is not None else None

    def listener(self, service_id: str, address: str, port: int) -> Listener | None:
        """Return a listener, which may be offline, or None if it does not exist."""
        peers = self.listeners.get(service_id)
        return peers.get((address, port)) if peers is not None else None

    def listeners_within(self, category: str) -> Iterator[Listener]:
        """Yield all listeners of a category, whatever their state."""
        for service in self.services.get(category, ()):
            peers = self.listeners.get(service)
            yield from peers.values() if peers is not None else ()


def catalogue_of(rows: Iterable[Row], topics: dict[str, int], revision: int) -> Catalogue:
    """Build the full catalogue at a server's start, from all rows, the topics' revisions and the log's revision."""
    services: dict[str, dict[str, Service]] = {}
    listeners: dict[str, dict[Endpoint, Listener]] = {}
    catalogue = Catalogue()
    for row in rows:
        match row:
            case Listener():
                listeners.setdefault(row.service, {})[(row.address, row.port)] = row
            case Service():
                services.setdefault(category_of(row.id), {})[row.id] = row
            case _:
                catalogue = catalogue.with_row(row)
    octets = Counter[str]()
    for service, peers in listeners.items():
        held = sum(map(octets_of, peers.values()))
        octets.update({service: held, category_of(service): held, ALL: held})
    return msgspec.structs.replace(
        catalogue,
        revision=revision,
        topics=Map(topics),
        services=Map({category: Map(ids) for category, ids in services.items()}),
        listeners=Map({service: _map(peers) for service, peers in listeners.items()}),
        octets=Map(octets),
    )


def topic_of(row: Row) -> str:
    """Return the topic of a change of `row`, or an empty text for rows that no host receives."""
    match row:
        case Listener():
            return row.service
        case Service():
            return category_of(row.id)
        case Category():
            return row.name
        case Dependency():
            return row.category
        case Credential() | Host() | Alert():
            return ""


def _joined(index: Map[str, frozenset[str]], key: str, member: str) -> Map[str, frozenset[str]]:
    return index.set(key, index.get(key, frozenset()) | {member})


def _parted(index: Map[str, frozenset[str]], key: str, member: str) -> Map[str, frozenset[str]]:
    left = index.get(key, frozenset()) - {member}
    return index.set(key, left) if left else _dropped(index, key)


def _map(table: dict[K, V]) -> Map[K, V]:
    return Map(table.items())


def _dropped(table: Map[K, V], key: K) -> Map[K, V]:
    return table.delete(key) if key in table else table


def _kept(table: Map[str, Map[K, V]], key: str, part: Map[K, V]) -> Map[str, Map[K, V]]:
    return table.set(key, part) if part else _dropped(table, key)
