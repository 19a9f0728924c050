"""DNS zone: queries by name and type, answered from the catalogue as DNS records. No input or output.

    gns.                                 SOA, NS
    openuss.gns.                         A, AAAA, SRV, TXT    any service of the category
    chinaserver.openuss.gns.             A, AAAA, SRV, TXT    the service; its backup if no listener is left
    _chinaserver._tcp.openuss.gns.       SRV                  the same (RFC 2782)
    _chinaserver._udp.openuss.gns.       SRV                  those of its listeners with the metadata protocol=udp
    192-0-2-17.chinaserver.openuss.gns.  A or AAAA            one address of the service: the target of SRV records
    17.2.0.192.in-addr.arpa.             PTR                  that name, for each service with a listener there

"Not loaded yet" is SERVFAIL, "no such name" NXDOMAIN, "none registered" an answer without records (P5).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
from immutables import Map
from twisted.names import dns

from compass.gateway.dns.messages import NOT_READY, OTHER_ERROR, Answer, Query, record
from compass.gateway.dns.rcodes import rcode_of
from compass.gateway.dns.reverse import ReverseIndex
from compass.model.catalogue.lookup_scope import LookupScope
from compass.model.names import format_endpoint, parse_host_name
from compass.model.rows import Listener, ListenerKey
from compass.model.selection.policies import Location, SelectionRule, preference, subset_ranks
from compass.model.selection.selector import Selector, candidates, rule_of

STRING_OCTETS_MAX = 255
"""Longest string of a TXT record (RFC 1035 section 3.3.14); a longer text is split."""
KEPT_MAX = 1_000
"""Most names whose records are kept between two changes of the catalogue."""
REFRESH_SECONDS, RETRY_SECONDS, EXPIRE_SECONDS = 60, 10, 3600
"""Timers of the SOA for secondaries; there are none, but the numbers must make sense."""
PROTOCOL_KEY = "protocol"
"""Key of the metadata that names the transport of a listener which is not TCP."""
_UDP = f"{PROTOCOL_KEY}=udp"
_ADDRESSES = {dns.A: 4, dns.AAAA: 6}
_POOL_TYPES = (dns.SRV, dns.A, dns.AAAA, dns.TXT)
_ANY_OF = 255
_META_TYPES = range(128, 255)
"""Types that do not ask for records: transfers, signatures and the like (RFC 6895 section 3.1)."""
_SRV_TARGET_AT = 10 + 6
"""Offset of the target in an SRV record without owner: after type, class, time to live, length and numbers."""


class DnsSource(Protocol):
    """Source of the catalogue: a host's daemon or a server."""

    pools: Selector

    def sight(self) -> LookupScope | None:
        """Return the scope of lookups; the same object as long as nothing changes. None: not loaded yet."""

    def found_none(self, name: str) -> None:
        """Note that a lookup of an existing service or category has found no listener."""


class _Pool(msgspec.Struct):
    """Candidates for one name and type, with their records; valid until the catalogue changes."""

    sight: LookupScope | None
    """Scope in which the candidates were found. None: the pool is outdated."""
    key: str
    kind: int
    rule: SelectionRule
    found: list[Listener]
    records: dict[ListenerKey, bytes]
    missing: str = ""
    """Name that has no listener of any kind; empty: it has one, perhaps of another type."""
    ranks: dict[ListenerKey, int] = {}
    """Ranks of the candidates for an answer without room for all; made when the first one is."""

    def ranks_of(self, order: Sequence[Listener], place: Location) -> Sequence[int]:
        """Return the ranks of the candidates in an order."""
        if not self.ranks:
            self.ranks = subset_ranks(self.found, self.rule, place)
        return [self.ranks[peer.service, peer.address, peer.port] for peer in order]

    def retire(self) -> None:
        """Mark the pool as outdated and release its data: kept queries may still refer to the pool."""
        self.sight, self.found, self.records, self.ranks = None, [], {}, {}


class Zone:
    """Zone below one name, answered from the catalogue of `source`."""

    def __init__(self, source: DnsSource, name: str, nameserver: str, ttl: int = 0, addresses_max: int = 0) -> None:
        """`nameserver`: this machine's own name, for SOA and NS. `ttl`: seconds that resolvers may keep an answer.
        `addresses_max`: most address records in an answer; 0: as many as fit."""
        self._source = source
        self._labels = tuple(label.encode() for label in parse_host_name(name).split("."))
        self._name = name
        self._nameserver = nameserver
        self._ttl = ttl
        self._sight: LookupScope | None = None
        self._addresses_max = addresses_max
        self._reverse = ReverseIndex()
        self._kept: dict[tuple[str, int], _Pool] = {}

    def answer(self, query: Query) -> Answer:
        """Return the answer to a query. Never raises."""
        sight, pool = self._source.sight(), query.known
        if isinstance(pool, _Pool) and pool.sight is sight is not None:
            return self._given(pool)
        if query.rcode:
            return Answer(query.rcode, is_authoritative=False)
        if query.klass not in (dns.IN, dns.ANY) or query.type in _META_TYPES:
            return Answer(dns.EREFUSED, is_authoritative=False)
        depth = len(query.labels) - len(self._labels)
        if depth < 0 or query.labels[depth:] != self._labels:
            known = self._names_of_address(sight, query) if sight is not None else None
            if known is not None:
                return known
            text = f"this server answers for {self._name} only and forwards nothing"
            return Answer(dns.EREFUSED, is_authoritative=False, error=(OTHER_ERROR, text))
        if sight is None:
            return Answer(dns.ESERVER, is_authoritative=False, error=(NOT_READY, "not loaded from a server yet"))
        return self._inside(sight, query, query.labels[:depth])

    def _inside(self, sight: LookupScope, query: Query, octets: Sequence[bytes]) -> Answer:
        """Return the answer for a name within the zone; `octets`: its labels before the zone's own."""
        found: _Pool | Answer = Answer(dns.ENAME)
        # A dot within a label would make one label look like two.
        if all(label.isascii() and b"." not in label for label in octets):
            found = self._found(sight, [label.decode("ascii") for label in octets], query.type)
        if isinstance(found, _Pool) and found.found:
            query.known = found
            return self._given(found)
        if isinstance(found, _Pool) and found.missing:
            self._source.found_none(found.missing)
        answer = Answer() if isinstance(found, _Pool) else found
        if not answer.records:
            answer.authority = self._soa(sight)
            answer.zone_at = sum(1 + len(label) for label in octets)
        return answer

    def _found(self, sight: LookupScope, labels: list[str], kind: int) -> _Pool | Answer:
        match labels:
            case []:
                return self._apex(sight, kind)
            case [name]:
                return self._pool(sight, name, _POOL_TYPES, kind)
            case ["_tcp" | "_udp", category]:
                # Only names below have records, but this name exists (RFC 8020).
                return self._pool(sight, category, (), kind)
            case [service, category]:
                return self._pool(sight, f"{service}.{category}", _POOL_TYPES, kind)
            case [service, "_tcp" | "_udp" as transport, category] if service.startswith("_"):
                wanted = _UDP if transport == "_udp" else ""
                return self._pool(sight, f"{service[1:]}.{category}", (dns.SRV,), kind, wanted)
            case [address, service, category]:
                return self._address(sight, address, f"{service}.{category}", kind)
        return Answer(dns.ENAME)

    def _apex(self, sight: LookupScope, kind: int) -> Answer:
        if kind in (dns.SOA, _ANY_OF):
            return Answer(records=[self._soa(sight)])
        return Answer(records=[record(dns.Record_NS(self._nameserver), self._ttl)] if kind == dns.NS else [])

    def _soa(self, sight: LookupScope) -> bytes:
        """Return the SOA record; its serial is the lower 32 bits of the revision (RFC 1982)."""
        numbers = (sight.catalogue.revision & 0xFFFFFFFF, REFRESH_SECONDS, RETRY_SECONDS, EXPIRE_SECONDS, self._ttl)
        return record(dns.Record_SOA(self._nameserver, f"hostmaster.{self._name}", *numbers), self._ttl)

    def _pool(self, sight: LookupScope, name: str, types: Sequence[int], kind: int, wanted: str = "") -> _Pool | Answer:
        """Return the candidates of a type for a service or category, or an answer without candidates. `wanted`: an
        entry of the metadata that they must have."""
        if sight is not self._sight or len(self._kept) >= KEPT_MAX:
            for old in self._kept.values():
                old.retire()
            self._kept.clear()
            self._sight = sight
        kept_as = f"{name} {wanted}" if wanted else name
        pool = self._kept.get((kept_as, kind)) if kind in types else None
        if pool is not None:
            return pool
        problem = sight.problem(name)
        if problem is not None:
            return Answer(rcode_of(problem.code), error=(OTHER_ERROR, problem.message))
        if kind == _ANY_OF:
            # An answer to ANY needs only one of the existing types (RFC 8482).
            each = (self._pool(sight, name, types, one, wanted) for one in types)
            return next((pool for pool in each if isinstance(pool, _Pool) and pool.found), Answer())
        if kind not in types:
            return Answer()
        found, _ = candidates(sight.catalogue, name)
        missing = "" if found else name
        family = _ADDRESSES.get(kind)
        if family is not None:
            # Turns are counted for each type: a program asks for A and AAAA at once and uses one of the answers.
            found = [peer for peer in found if (":" in peer.address) == (family == 6)]
        if wanted:
            label, _, value = wanted.partition("=")
            found = [peer for peer in found if peer.metadata.get(label) == value]
        key = f"{kept_as} {dns.QUERY_TYPES[kind]}"
        self._kept[kept_as, kind] = pool = _Pool(sight, key, kind, rule_of(sight.catalogue, name), found, {}, missing)
        return pool

    def _given(self, pool: _Pool) -> Answer:
        """Return the records of a pool, best listener first."""
        order = self._source.pools.order(pool.key, pool.found, pool.rule)
        if pool.kind == dns.SRV:
            return self._services(order, pool)
        make = self._text if pool.kind == dns.TXT else _address_record
        # Two ports at one address are two listeners and one address record.
        first = {self._kept_record(pool, peer, make): peer for peer in reversed(order)}
        peers = [peer for peer in order if first[self._kept_record(pool, peer, make)] is peer]
        if pool.kind in _ADDRESSES and 0 < self._addresses_max < len(peers):
            ranks = sorted(zip(pool.ranks_of(peers, self._source.pools.place), range(len(peers)), strict=True))
            peers = [peers[at] for at in sorted(at for _, at in ranks[: self._addresses_max])]
        records = [self._kept_record(pool, peer, make) for peer in peers]
        return Answer(records=records, ranks=lambda: pool.ranks_of(peers, self._source.pools.place))

    def _kept_record(self, pool: _Pool, peer: Listener, make: Callable[[Listener, int], bytes]) -> bytes:
        key = (peer.service, peer.address, peer.port)
        made = pool.records.get(key)
        if made is None:
            made = pool.records[key] = make(peer, self._ttl)
        return made

    def _services(self, order: Sequence[Listener], pool: _Pool) -> Answer:
        """Return SRV records, with the addresses of their targets as additional records."""
        ranks = preference(order, pool.rule, self._source.pools.place)
        records = [self._service(peer, *rank) for peer, rank in zip(order, ranks, strict=True)]
        first: dict[tuple[str, str], int] = {}
        for place, peer in enumerate(order):
            first.setdefault((peer.service, peer.address), place)
        return Answer(
            records=records,
            ranks=lambda: pool.ranks_of(order, self._source.pools.place),
            additional=[(at, _SRV_TARGET_AT, _address_record(order[at], self._ttl)) for at in first.values()],
        )

    def _service(self, peer: Listener, rank: int, share: int) -> bytes:
        target = f"{label_of(peer.address)}.{peer.service}.{self._name}"
        return record(dns.Record_SRV(rank, share, peer.port, target), self._ttl)

    def _text(self, peer: Listener, ttl: int) -> bytes:
        """Return a TXT record: `listener=` and its endpoint, `weight=`, then the metadata (RFC 6763 section 6.3)."""
        pairs = [("listener", format_endpoint(peer.address, peer.port)), ("weight", str(peer.weight))]
        pairs += sorted(peer.metadata.items())
        strings = [piece for key, value in pairs for piece in _strings(f"{key}={value}")]
        return record(dns.Record_TXT(*strings), ttl)

    def _names_of_address(self, sight: LookupScope, query: Query) -> Answer | None:
        """Return the answer for the reverse name of a listener's address; None: no such address is known, and the
        resolver that asks has other sources."""
        found = self._reverse.services(sight.catalogue, query.labels)
        if found is None:
            return None
        address, services = found
        visible = [service for service in services if sight.problem(service) is None]
        if services and not visible:
            return None
        if query.type not in (dns.PTR, _ANY_OF):
            return Answer()
        targets = (f"{label_of(address)}.{service}.{self._name}" for service in visible)
        return Answer(records=[record(dns.Record_PTR(target), self._ttl) for target in targets])

    def _address(self, sight: LookupScope, label: str, service: str, kind: int) -> Answer:
        """Return the address that a label spells, if the service has a listener there, whatever its state."""
        problem = sight.problem(service)
        if problem is not None:
            return Answer(rcode_of(problem.code), error=(OTHER_ERROR, problem.message))
        peers = sight.catalogue.listeners.get(service, Map()).values()
        peer = next((peer for peer in peers if peer.state != "offline" and label_of(peer.address) == label), None)
        if peer is None:
            return Answer(dns.ENAME)
        fits = kind == _ANY_OF or _ADDRESSES.get(kind) == (6 if ":" in peer.address else 4)
        return Answer(records=[_address_record(peer, self._ttl)] if fits else [])


def label_of(address: str) -> str:
    """Return an address as a DNS label: `192-0-2-17`, or 32 hexadecimal digits for IPv6."""
    parsed = ipaddress.ip_address(address)
    return address.replace(".", "-") if parsed.version == 4 else parsed.packed.hex()


def _address_record(peer: Listener, ttl: int) -> bytes:
    kind = dns.Record_AAAA if ":" in peer.address else dns.Record_A
    return record(kind(peer.address), ttl)


def _strings(text: str) -> list[bytes]:
    octets = text.encode()
    return [octets[at : at + STRING_OCTETS_MAX] for at in range(0, len(octets), STRING_OCTETS_MAX)]
