"""Servers from DNS: an SRV name that is asked again before its answer is stale (RFC 2782).

An answer of DNS is a proposal. The peer at a target must prove the target's name and have the role of a server, so a
forged answer leads nowhere; and since known targets stay until there is a better answer, a name server that is down or
has lost its zone removes no server.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IResolver
from twisted.logger import Logger
from twisted.names import dns
from twisted.python.failure import Failure

from compass.agent.upstream.server_selector import Candidate, CandidateSink, ServerAddress
from compass.model.backoff import Backoff
from compass.model.interfaces import Clock
from compass.model.names import InvalidName, parse_address, parse_host_name, parse_port
from compass.system.timers import Timers

LIFE_SECONDS_MIN = 30.0
"""Shortest time that an answer is kept, whatever its TTL: 10,000 hosts make 300 questions a second of it."""
LIFE_SECONDS_MAX = 3600.0
"""Longest time that an answer is kept, whatever its TTL: a server that was added should be used the same day."""
PAUSE_SECONDS_MIN = 2.0
"""After a question without an answer; it doubles each time."""
PAUSE_SECONDS_MAX = 300.0
"""Longest such pause: after a long outage of DNS."""
RECORDS_MAX = 16
"""Targets taken from one answer, the preferred ones; more servers than a deployment has are a mistake or an attack."""
ADDRESSES_MAX = 4
"""Addresses taken for one target: two networks, each with IPv4 and IPv6."""
QUESTION_SECONDS = (1, 2, 4)
"""Seconds that each attempt of one question waits for its answer."""


class SrvRecord(NamedTuple):
    """An SRV record, as it was received."""

    priority: int
    weight: int
    port: int
    target: str
    """Without the dot at the end; empty: there is no such service here."""
    life_seconds: float
    addresses: tuple[str, ...] = ()
    """Addresses of the target; empty: its name is looked up when it is dialled."""


class Lookup(Protocol):
    """Source of SRV records; `ResolverLookup`."""

    def records(self, name: str) -> Deferred[Sequence[SrvRecord]]:
        """Ask DNS for the SRV records of a name. Fails if there is no answer or no such name."""


class ResolverLookup:
    """Lookup by a resolver of twisted.names: of the SRV records, then of the addresses that the answer lacks."""

    def __init__(self, resolver: IResolver) -> None:
        self._resolver: Any = resolver

    def records(self, name: str) -> Deferred[Sequence[SrvRecord]]:
        """Ask DNS for the SRV records of a name. Fails if there is no answer or no such name."""
        return Deferred.fromCoroutine(self._lookup(name))

    async def _lookup(self, name: str) -> Sequence[SrvRecord]:
        asked = self._resolver
        answers, _, additional = await asked.lookupService(name, timeout=QUESTION_SECONDS)
        known = addresses_in(additional)
        records = records_of(answers, known)[:RECORDS_MAX]
        missing = list(dict.fromkeys(r.target for r in records if r.target and not r.addresses))
        questions = [ask(target) for ask in (asked.lookupAddress, asked.lookupIPV6Address) for target in missing]
        for found, outcome in await DeferredList(questions, consumeErrors=True):
            if found:
                for target, more in addresses_in(outcome[0]).items():
                    known[target] = (*known.get(target, ()), *more)
        return records_of(answers, known)


def addresses_in(section: Iterable[Any]) -> dict[str, tuple[str, ...]]:
    """The addresses of each name in a section of an answer (RRHeaders of twisted.names)."""
    addresses: dict[str, tuple[str, ...]] = {}
    for header in section:
        if isinstance(header.payload, dns.Record_A | dns.Record_AAAA) and header.payload.address:
            family = socket.AF_INET if header.type == dns.A else socket.AF_INET6
            name = _spelled(header.name)
            addresses[name] = (*addresses.get(name, ()), socket.inet_ntop(family, header.payload.address))
    return addresses


def records_of(answers: Iterable[Any], addresses: Mapping[str, tuple[str, ...]]) -> list[SrvRecord]:
    """The SRV records of an answer, the preferred first, with what is known of their targets' addresses."""
    records = []
    for header in answers:
        if isinstance(header.payload, dns.Record_SRV):
            srv, target = header.payload, _spelled(header.payload.target)
            known = addresses.get(target, ())
            records.append(SrvRecord(srv.priority, srv.weight, srv.port, target, float(header.ttl), known))
    return sorted(records, key=lambda record: (record.priority, -record.weight))


def _spelled(name: Any) -> str:
    return str(name.name.decode("ascii", "replace")).lower().removesuffix(".")


def candidates_of(records: Iterable[SrvRecord], rank: int) -> tuple[Candidate, ...]:
    """The ways in an answer: one for each known address, else one to the target's name.

    What cannot be connected to is left out, and so is the target `.`, which means that there is none (RFC 2782).
    """
    candidates: list[Candidate] = []
    preferred = sorted(records, key=lambda record: (record.priority, -record.weight))
    for record in preferred[:RECORDS_MAX]:
        try:
            name, port = parse_host_name(record.target), parse_port(record.port)
            places = [parse_address(text) for text in record.addresses[:ADDRESSES_MAX]] or [name]
        except InvalidName:
            continue
        # The weight is the target's, however many addresses it has.
        share = record.weight / len(places)
        candidates += [
            Candidate(ServerAddress(name, place, port), (rank, record.priority), share, "srv") for place in places
        ]
    return tuple(candidates)


class SrvLookup:
    """Keeps what one SRV name leads to. `offer` is called with each answer."""

    _log = Logger()

    def __init__(
        self, clock: Clock, random: Callable[[], float], lookup: Lookup, name: str, rank: int, sink: CandidateSink
    ) -> None:
        self._random = random
        self._lookup = lookup
        self._rank = rank
        self._sink = sink
        self._timers = Timers(clock)
        self._asking: Deferred[None] | None = None
        self._backoff = Backoff(first=PAUSE_SECONDS_MIN, longest=PAUSE_SECONDS_MAX)
        self._answered = False
        self.name = name

    def start(self) -> None:
        """Ask now, and again in time."""
        self._asking = self._lookup.records(self.name).addCallbacks(self._heard, self._not_heard)
        self._asking.addErrback(lambda failure: self._log.failure("the answer for {name}", failure, name=self.name))

    def stop(self) -> None:
        """Stop asking."""
        self._timers.cancel_all()
        if self._asking is not None:
            self._asking.cancel()

    def _heard(self, records: Sequence[SrvRecord]) -> None:
        candidates = candidates_of(records, self._rank)
        closed = bool(records) and not any(record.target for record in records)
        if candidates or closed:
            self._answered = True
            self._backoff.reset()
            self._sink.update(self.name, candidates)
        else:
            self._nothing_new(f"{len(records)} SRV records, none of which can be connected to")
            return
        life = min((record.life_seconds for record in records), default=0.0)
        self._again(min(max(life, LIFE_SECONDS_MIN), LIFE_SECONDS_MAX))

    def _not_heard(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return  # The daemon stops.
        self._nothing_new(failure.getErrorMessage() or type(failure.value).__name__)

    def _nothing_new(self, why: str) -> None:
        """Keep the known targets; the first time, report that there are none."""
        self._log.warn("{name} leads to no server: {why}", name=self.name, why=why)
        if not self._answered:
            self._sink.update(self.name, ())
        self._again(self._backoff.next())

    def _again(self, seconds: float) -> None:
        """Somewhat later, at a time of this host's own."""
        self._timers.start("ask", seconds * (1 + self._random() / 4), self.start)
