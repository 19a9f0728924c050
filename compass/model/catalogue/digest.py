"""Digests of catalogues: one number for a set of rows, independent of their order (opengnsp.md, "Digests").

The digest of a row is BLAKE2b over its canonical octets, that of several rows is the sum modulo 2**256. So a change
updates a digest by one subtraction and one addition, and replicas with the same rows have the same digest, independent
of their history. A digest detects errors, not attacks: a party that may write rows can also write the digest.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from operator import attrgetter
from typing import Any

import msgspec

from compass.model.catalogue.catalogue import Catalogue, topic_of
from compass.model.catalogue.interest import interest
from compass.model.rows import (
    Alert,
    Category,
    Change,
    Credential,
    Dependency,
    Host,
    Listener,
    ListenerKey,
    Policy,
    Row,
    Service,
    key_of,
)

DIGEST_VERSION = 1
"""Version of the list of fields in a digest. A later field is not part of this version, so that old and new servers
compute the same digest."""
DIGEST_OCTETS = 32
"""Size of a digest: two different catalogues never have the same digest by chance."""
COUNT_ROWS = 1_000
"""Rows hashed in one step: some 2 ms, during which the server processes nothing else."""
_MODULUS = 1 << (8 * DIGEST_OCTETS)

_COUNTS: dict[type[msgspec.Struct], int] = {
    Category: 3,
    Policy: 15,
    Service: 1,
    Listener: 14,
    Dependency: 2,
    Credential: 5,
    Host: 5,
    Alert: 4,
}
FIELDS = {kind: kind.__struct_fields__[:count] for kind, count in _COUNTS.items()}
"""Fields of version 1, in their order: the first ones of each struct, because later fields are added behind them."""

_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_policy = attrgetter(*FIELDS[Policy])


def _values_of(kind: type[msgspec.Struct]) -> Callable[[Any], Sequence[Any]]:
    names = FIELDS[kind]
    if kind is Category:
        return lambda row: (row.name, row.backup, _policy(row.policy))
    return attrgetter(*names) if len(names) > 1 else lambda row: (getattr(row, names[0]),)


_VALUES = {kind: (str(kind.__struct_config__.tag), _values_of(kind)) for kind in FIELDS if kind is not Policy}


def canonical(row: Row) -> bytes:
    """Return the octets of a row: a MessagePack array of its kind and the values of `FIELDS`."""
    tag, values = _VALUES[type(row)]
    return _encode((tag, *values(row)))


def row_digest(row: Row) -> int:
    """Return the digest of one row."""
    return int.from_bytes(blake2b(canonical(row), digest_size=DIGEST_OCTETS).digest(), "big")


def digest_of_rows(rows: Iterable[Row]) -> int:
    """Return the digest of rows; 0 for no row."""
    return sum(map(row_digest, rows)) % _MODULUS


def instance_digest(key: ListenerKey, epoch: int) -> int:
    """Return the digest of one instance, for the comparison of what a host holds and what is recorded for it."""
    return int.from_bytes(blake2b(_encode((*key, epoch)), digest_size=DIGEST_OCTETS).digest(), "big")


def to_hex(digest: int) -> str:
    """Return the digest as it is sent and stored: 64 hexadecimal digits."""
    return f"{digest % _MODULUS:0{2 * DIGEST_OCTETS}x}"


def is_host_visible(row: Row) -> bool:
    """Return whether hosts hold such a row: it belongs to a topic and is not an offline listener."""
    return bool(topic_of(row)) and not (isinstance(row, Listener) and row.state == "offline")


def part_of(catalogue: Catalogue, services: Iterable[str]) -> Iterator[Row]:
    """Return the rows in the digest of a host with these services: those of its topics."""
    for topic in interest(catalogue, services):
        # A service's row belongs to the topic of its category, although its own topic also contains it.
        yield from (row for row in catalogue.rows_of(topic) if topic_of(row) == topic)


class IncrementalDigest:
    """Digest that is computed in steps, because a large catalogue takes long. `rows` must not change meanwhile."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = iter(rows)
        self.digest = 0

    def advance(self) -> bool:
        """Add the next `COUNT_ROWS` rows. Returns whether these were the last."""
        rows = list(islice(self._rows, COUNT_ROWS))
        self.digest = (self.digest + digest_of_rows(rows)) % _MODULUS
        return len(rows) < COUNT_ROWS


class DigestDelta(msgspec.Struct, frozen=True):
    """Effect of one change on the digests: of all rows, and of the host-visible rows of its topic."""

    revision: int
    total: int
    topic: str
    part: int
    before: Row | None = None
    after: Row | None = None
    """Row before and after the change; None: it did not exist, or was removed."""


def steps_of(catalogue: Catalogue, changes: Iterable[Change]) -> list[DigestDelta]:
    """Return the effects of consecutive changes that follow a full catalogue."""
    latest: dict[Hashable, Row | None] = {}
    steps = []
    for change in changes:
        row = change.row
        key = type(row), row.service if isinstance(row, Credential) else "", key_of(row)
        before = latest[key] if key in latest else row_like(catalogue, row)
        after = latest[key] = None if change.removed else row
        lost = row_digest(before) if before is not None else 0
        gained = row_digest(after) if after is not None else 0
        part = (gained if after is not None and is_host_visible(after) else 0) - (
            lost if before is not None and is_host_visible(before) else 0
        )
        steps.append(DigestDelta(change.revision, gained - lost, topic_of(row), part, before, after))
    return steps


def row_like(catalogue: Catalogue, row: Row) -> Row | None:
    """Return the catalogue's row with the key of `row`, or None if there is none."""
    match row:
        case Listener():
            return catalogue.listener(row.service, row.address, row.port)
        case Service():
            return catalogue.service(row.id)
        case Category():
            return catalogue.categories.get(row.name)
        case Dependency():
            return row if row.on in catalogue.needs.get(row.category, frozenset()) else None
        case Credential():
            own = catalogue.credentials.get(row.service)
            return own.get(row.id) if own is not None else None
        case Host():
            return catalogue.hosts.get(row.name)
        case Alert():
            return catalogue.alerts.get(row.id)
