"""Servers from DNS: an SRV name that is asked again before its answer is stale (RFC 2782).

What DNS says is a proposal. Who answers at a target must prove the target's name and have the role of a server, so a
forged answer leads nowhere; and since what is known stays until there is a better answer, a name server that is away
or has lost its zone takes no server away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IResolver
from twisted.logger import Logger
from twisted.names import dns
from twisted.python.failure import Failure

from compass.host.choice import Offer, Way
from compass.model.names import PORT_MAX, NameProblem, parse_host_name, parse_port
from compass.model.ports import Clock, Timer

LIFE_SECONDS_MIN = 30.0
"""An answer that may be kept for less is kept so long all the same: 10,000 hosts make 300 questions a second of it."""
LIFE_SECONDS_MAX = 3600.0
"""An answer that may be kept for days is asked for again after so long: a server that was added is wanted today."""
PAUSE_SECONDS_MIN = 2.0
"""After a question without an answer; it doubles each time."""
PAUSE_SECONDS_MAX = 300.0
"""Longest such pause: DNS was away longer than anybody has waited by then."""
RECORDS_MAX = 16
"""Targets taken from one answer, the preferred ones; more servers than a deployment has are a mistake or an attack."""
QUESTION_SECONDS = (1, 2, 4)
"""How long each of the attempts of one question waits for its answer."""


class Record(NamedTuple):
    """An SRV record, as it was received."""

    priority: int
    weight: int
    port: int
    target: str
    life_seconds: float


Lookup = Callable[[str], Deferred[Sequence[Record]]]
"""Asks DNS for the SRV records of a name; fails when there is no answer or no such name."""


def lookup_with(resolver: IResolver) -> Lookup:
    """Asks by way of a resolver of twisted.names."""

    def lookup(name: str) -> Deferred[Sequence[Record]]:
        asked: Any = resolver
        answered: Deferred[Any] = asked.lookupService(name, timeout=QUESTION_SECONDS)
        return answered.addCallback(lambda sections: [_record(header) for header in sections[0] if _is_srv(header)])

    return lookup


def _is_srv(header: Any) -> bool:
    return header.type == dns.SRV and isinstance(header.payload, dns.Record_SRV)


def _record(header: Any) -> Record:
    payload = header.payload
    target = payload.target.name.decode("ascii", "replace")
    return Record(payload.priority, payload.weight, payload.port, target, float(header.ttl))


def offers_of(records: Iterable[Record], rank: int) -> tuple[Offer, ...]:
    """The ways in an answer; targets that cannot be connected to are left out, and `.` is none (RFC 2782)."""
    offers: list[Offer] = []
    for record in sorted(records, key=lambda record: (record.priority, -record.weight)):
        if not 0 < record.port <= PORT_MAX or len(offers) == RECORDS_MAX:
            continue
        try:
            name = parse_host_name(record.target.removesuffix("."))
        except NameProblem:
            continue
        way = Way(name, name, parse_port(record.port))
        offers.append(Offer(way, (rank, record.priority), record.weight, "srv"))
    return tuple(offers)


class ServiceName:
    """Keeps what one SRV name leads to. `offer` is called with each answer."""

    _log = Logger()

    def __init__(
        self,
        clock: Clock,
        random: Callable[[], float],
        lookup: Lookup,
        name: str,
        rank: int,
        offer: Callable[[str, Sequence[Offer]], None],
    ) -> None:
        self._clock = clock
        self._random = random
        self._lookup = lookup
        self._rank = rank
        self._offer = offer
        self._timer: Timer | None = None
        self._asking: Deferred[None] | None = None
        self._failures = 0
        self._answered = False
        self.name = name

    def start(self) -> None:
        """Ask now, and again in time."""
        self._asking = self._lookup(self.name).addCallbacks(self._heard, self._not_heard)
        self._asking.addErrback(lambda failure: self._log.failure("the answer for {name}", failure, name=self.name))

    def stop(self) -> None:
        """Ask no more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()

    def _heard(self, records: Sequence[Record]) -> None:
        offers = offers_of(records, self._rank)
        closed = bool(records) and all(record.target in ("", ".") for record in records)
        if offers or closed:
            self._answered = True
            self._offer(self.name, offers)
        else:
            self._nothing_new(f"{len(records)} SRV records, none of which can be connected to")
            return
        self._failures = 0
        life = min((record.life_seconds for record in records), default=0.0)
        self._again(min(max(life, LIFE_SECONDS_MIN), LIFE_SECONDS_MAX))

    def _not_heard(self, failure: Failure) -> None:
        self._nothing_new(failure.getErrorMessage() or type(failure.value).__name__)

    def _nothing_new(self, why: str) -> None:
        """What is known stays; the first time, whoever waits is told that there is nothing."""
        self._log.warn("{name} leads to no server: {why}", name=self.name, why=why)
        if not self._answered:
            self._offer(self.name, ())
        self._failures += 1
        self._again(min(PAUSE_SECONDS_MIN * 2.0 ** min(self._failures - 1, 16), PAUSE_SECONDS_MAX))

    def _again(self, seconds: float) -> None:
        """Somewhat later, at a time of this host's own."""
        self._timer = self._clock.callLater(seconds * (1 + self._random() / 4), self.start)
