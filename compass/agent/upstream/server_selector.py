"""The ways to the servers, and which to take. Pure: time and chance are handed in.

A way is one address of one server. Where ways come from does not matter here (the configuration, a name in DNS,
announcements, a server that sends its hosts elsewhere): each origin offers what it knows at the moment, and all of it
together is chosen from. Which way is taken, and when, follows from four things alone:

- its *rank*: a smaller one is preferred, equal ones share by chance and weight, as RFC 2782 has it for SRV;
- its *failures*: each doubles the pause before this very way is tried again, and no other way waits for it;
- what a server has *asked*: to be left alone for a while, or to go elsewhere;
- *chance*, in every pause, so that what many hosts see in one moment does not make them come in one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Literal, NamedTuple, Protocol

import msgspec

from compass.model.host_api import KnownServer, Source
from compass.model.names import SERVER_PORT, format_endpoint

BACK_OFF_SECONDS_MIN = 0.2
"""First pause after a failure: about the time of a server's restart."""
BACK_OFF_SECONDS_MAX = 30.0
"""Longest pause: with 10,000 hosts waiting, some 300 connections a second reach a server that returns."""
DOUBTFUL_SECONDS_MAX = 600.0
"""Longest pause for a proposed address that never led to a server: it may belong to another service."""
RETRY_AFTER_SECONDS_MAX = 300.0
"""A server that asks for more patience than this is not believed."""
JUMP_SECONDS = 0.6
"""Seconds within which a host that has lost its session goes to another server, at a random moment: one core does a
thousand handshakes in that time, and more than one second remains of the two within which all are served."""
RETURN_SECONDS_MIN = 300.0
"""Seconds that a host stays at least before it returns to a server that it prefers: that server must prove stable."""
RETURN_SECONDS_MAX = 900.0
"""... and at most; 10,000 hosts make some 17 connections a second of it."""
STEERED_SECONDS = 600.0
"""Seconds during which the servers of a redirect are preferred."""
WAYS_MAX = 128
"""Ways known at once, from all origins; what is offered beyond is not looked at."""
ANNOUNCED_RANK = 1_000_000
"""Rank behind every configured server: a configuration has fewer entries, and SRV priorities end at 65535."""

_STEERED = (-1,)
_WEIGHT_ZERO = 0.01
"""RFC 2782: a target of weight 0 has a very small chance of being chosen while there are others."""


class ServerAddress(msgspec.Struct, frozen=True):
    """Address of a server. Equal addresses are one, whatever their sources."""

    name: str
    """The DNS name or address that the server's certificate must prove."""
    address: str
    """Host to connect to: an address, or a name that is looked up each time."""
    port: int


class Candidate(msgspec.Struct, frozen=True):
    """A way with what its origin says of it."""

    way: ServerAddress
    rank: tuple[int, ...] = (0,)
    """Smaller is preferred."""
    weight: float = 1
    """Share among ways of one rank."""
    source: Source = "configured"


def in_order(servers: Iterable[str]) -> list[Candidate]:
    """Servers by their names alone, the preferred first."""
    return [Candidate(ServerAddress(name, name, SERVER_PORT), (place,)) for place, name in enumerate(servers)]


class CandidateSink(Protocol):
    """Receiver of what an origin knows of servers; `upstream.Upstream`."""

    def offer(self, origin: str, offers: Sequence[Candidate]) -> None:
        """Replace what this origin knew before."""


class Next(NamedTuple):
    """The way to take, and in how many seconds; 0: now."""

    way: ServerAddress
    seconds: float


class _CandidateState(msgspec.Struct):
    """State of a candidate."""

    offer: Candidate
    failures: int = 0
    """Failures since it last led to a working session."""
    worked: bool = False
    """True if it has ever led to one of our servers."""
    back_off_until: float = 0.0
    asked_until: float = 0.0
    steered_until: float = 0.0
    problem: str = ""

    @property
    def free_at(self) -> float:
        return max(self.back_off_until, self.asked_until)

    def rank(self, now: float) -> tuple[int, ...]:
        return _STEERED if self.steered_until > now else self.offer.rank


class ServerSelector:
    """All known ways and how they fare. `random` gives numbers from 0 up to, not including, 1."""

    def __init__(self, random: Callable[[], float], offers: Iterable[Candidate] = ()) -> None:
        self._random = random
        self._origins: dict[str, tuple[Candidate, ...]] = {}
        self._standings: dict[ServerAddress, _CandidateState] = {}
        self._awaited: set[str] = set()
        self._jump_at = 0.0
        self.offer("", offers)

    # What there is ------------------------------------------------------------------------------------------

    def offer(self, origin: str, offers: Iterable[Candidate]) -> None:
        """Replace the candidates of one origin. The state of addresses that stay is kept."""
        self._awaited.discard(origin)
        self._origins[origin] = tuple(offers)
        merged: dict[ServerAddress, Candidate] = {}
        for offer in (offer for known in self._origins.values() for offer in known):
            # What a stranger proposes makes no way doubtful that is written down, nor less preferred.
            if offer.way not in merged or offer.rank < merged[offer.way].rank:
                merged[offer.way] = offer
        before, self._standings = self._standings, {}
        for way in sorted(merged, key=lambda way: merged[way].rank)[:WAYS_MAX]:
            standing = before.get(way) or _CandidateState(merged[way])
            standing.offer = merged[way]
            self._standings[way] = standing

    def expect(self, origin: str) -> None:
        """An origin is being asked for the first time: there may be a way in a moment."""
        self._awaited.add(origin)

    def source(self, way: ServerAddress) -> Source | None:
        """Return the origin of an address; None: it is not known now."""
        standing = self._standings.get(way)
        return None if standing is None else standing.offer.source

    @property
    def ways(self) -> Collection[ServerAddress]:
        """All that are known."""
        return self._standings.keys()

    @property
    def has_untried(self) -> bool:
        """Return whether a session is possible in a moment: an address has not failed yet, or is being looked up."""
        return bool(self._awaited) or any(not standing.failures for standing in self._standings.values())

    # What to do ---------------------------------------------------------------------------------------------

    def next(self, now: float, besides: Collection[ServerAddress] = ()) -> Next | None:
        """Which way to take and when, other than those that are being tried; None: there is none."""
        left = [standing for way, standing in self._standings.items() if way not in besides]
        if not left:
            return None
        ready = [standing for standing in left if standing.free_at <= max(now, self._jump_at)]
        if ready:
            return Next(self._drawn(ready, now).offer.way, max(self._jump_at - now, 0.0))
        soonest = min(left, key=lambda standing: standing.free_at)
        return Next(soonest.offer.way, soonest.free_at - now)

    def prefers(self, way: ServerAddress, other: ServerAddress | None, now: float) -> bool:
        """Return whether a known address is preferred to another one, which must be known too."""
        one, two = self._standings.get(way), self._standings.get(other) if other is not None else None
        return one is not None and two is not None and one.rank(now) < two.rank(now)

    def others(self, than: ServerAddress | None) -> list[ServerAddress]:
        """Return one address of each server other than that one, the preferred first, without those that failed
        lately."""
        found: dict[str, ServerAddress] = {}
        for way in sorted(self._standings, key=self._fares):
            if than is None or way.name != than.name:
                found.setdefault(way.name, way)
        return list(found.values())

    def _fares(self, way: ServerAddress) -> tuple[int, tuple[int, ...]]:
        standing = self._standings[way]
        return standing.failures, standing.offer.rank

    def better(self, than: ServerAddress | None, now: float) -> ServerAddress | None:
        """A way that is preferred to the one in use and might work by now, if there is one."""
        better = [s for way, s in self._standings.items() if s.free_at <= now and self.prefers(way, than, now)]
        return self._drawn(better, now).offer.way if better else None

    def return_seconds(self) -> float:
        """Return the seconds until the search for a better address; different for each host."""
        return RETURN_SECONDS_MIN + self._random() * (RETURN_SECONDS_MAX - RETURN_SECONDS_MIN)

    def _drawn(self, standings: Sequence[_CandidateState], now: float) -> _CandidateState:
        best = min(standing.rank(now) for standing in standings)
        equal = [standing for standing in standings if standing.rank(now) == best]
        weights = [standing.offer.weight or _WEIGHT_ZERO for standing in equal]
        point = self._random() * sum(weights)
        for standing, weight in zip(equal, weights, strict=True):
            point -= weight
            if point < 0:
                return standing
        return equal[-1]

    # What happened ------------------------------------------------------------------------------------------

    def worked(self, way: ServerAddress) -> None:
        """Record a working session: earlier failures are forgotten."""
        standing = self._standings.get(way)
        if standing is not None:
            standing.failures, standing.worked, standing.back_off_until, standing.problem = 0, True, 0.0, ""

    def failed(self, way: ServerAddress, now: float, problem: str) -> None:
        """Record a failed attempt or the end of a session. The address rests, longer with each failure."""
        standing = self._standings.get(way)
        if standing is None:
            return
        standing.failures += 1
        standing.problem = problem
        doubtful = standing.offer.source == "announced" and not standing.worked
        longest = DOUBTFUL_SECONDS_MAX if doubtful else BACK_OFF_SECONDS_MAX
        pause = min(BACK_OFF_SECONDS_MIN * 2.0 ** min(standing.failures - 1, 16), longest)
        standing.back_off_until = now + pause * (0.5 + self._random() / 2)

    def lost(self, now: float, *, worked: bool) -> None:
        """The session is over: go elsewhere at a moment of this host's own.

        If it had worked, ways that have rested by now count as untried: what failed was long ago.
        """
        self._jump_at = now + self._random() * JUMP_SECONDS
        for standing in self._standings.values():
            if worked and standing.back_off_until <= now:
                standing.failures = 0

    def retry_after(self, way: ServerAddress, now: float, seconds: float) -> None:
        """The server at its end wants to be left alone. Up to half as long again, for it says the same to all."""
        standing = self._standings.get(way)
        if standing is not None:
            standing.asked_until = now + min(seconds, RETRY_AFTER_SECONDS_MAX) * (1 + self._random() / 2)

    def redirected(self, servers: Iterable[tuple[str, int]], now: float) -> None:
        """A server sends this host to others, by name and port: these first, for a while, one as good as another.

        Those that are known are reached as they are known; of the others each is a way of its own.
        """
        wanted = set(servers)
        lasting = (way for way, standing in self._standings.items() if standing.offer.source != "steered")
        known = {(way.name, way.port) for way in lasting}
        new = [ServerAddress(name, name, port) for name, port in sorted(wanted - known)]
        self.offer("steered", [Candidate(way, (ANNOUNCED_RANK, 1), source="steered") for way in new])
        for way, standing in self._standings.items():
            standing.steered_until = now + STEERED_SECONDS if (way.name, way.port) in wanted else 0.0

    def reset_backoff(self) -> None:
        """Make failed addresses due again for a waiting request, except those that asked for a pause."""
        self._jump_at = 0.0
        for standing in self._standings.values():
            standing.failures, standing.back_off_until = 0, 0.0

    def has_worked(self, way: ServerAddress) -> bool:
        """Return whether it has ever led to a server."""
        standing = self._standings.get(way)
        return standing is not None and standing.worked

    def doubtful(self, way: ServerAddress) -> bool:
        """Return whether it has failed and never worked: another proposal may replace it."""
        standing = self._standings.get(way)
        return standing is not None and standing.failures > 0 and not standing.worked

    def known(
        self, now: float, used: ServerAddress | None, tried: Collection[ServerAddress]
    ) -> tuple[KnownServer, ...]:
        """Every way as an operator wants to see it, the preferred first."""
        shown = []
        for standing in sorted(self._standings.values(), key=lambda standing: standing.rank(now)):
            way = standing.offer.way
            state: Literal["open", "connecting", "ready", "asked-to-wait", "backing-off"] = "ready"
            if way == used:
                state = "open"
            elif way in tried:
                state = "connecting"
            elif standing.asked_until > max(now, standing.back_off_until):
                state = "asked-to-wait"
            elif standing.back_off_until > now:
                state = "backing-off"
            wait = standing.free_at - now if state in ("asked-to-wait", "backing-off") else 0.0
            endpoint = format_endpoint(way.address, way.port)
            shown.append(
                KnownServer(
                    way.name,
                    endpoint,
                    standing.offer.source,
                    state,
                    wait,
                    standing.failures,
                    standing.problem,
                    standing.steered_until > now,
                )
            )
        return tuple(shown)
