"""Selection of a server's address, and of the time to dial it. Pure: time and randomness are handed in.

An address is one of one server. Its origin does not matter here (the configuration, a name in DNS, announcements, a
redirect by another server): each origin proposes candidates, and all of them together are chosen from. Which address is
dialled, and when, follows from four things alone:

- its *rank*: a smaller one is preferred, equal ones share by chance and weight, as RFC 2782 has it for SRV;
- its *failures*: each doubles the pause before this very address is tried again, and no other address waits for it;
- what a server has *asked*: to wait for a while, or to go to another server;
- *randomness*, in every pause, so that what many hosts see in one moment does not make them connect in one.
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
"""Addresses known at once, from all origins; further candidates are ignored."""
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
    """Address with what its origin says of it."""

    server: ServerAddress
    rank: tuple[int, ...] = (0,)
    """Smaller is preferred."""
    weight: float = 1
    """Share among candidates of one rank."""
    source: Source = "configured"


def in_order(servers: Iterable[str]) -> list[Candidate]:
    """Return candidates for servers by their names alone, the preferred first."""
    return [Candidate(ServerAddress(name, name, SERVER_PORT), (place,)) for place, name in enumerate(servers)]


class CandidateSink(Protocol):
    """Receiver of what an origin knows of servers; `upstream.Upstream`."""

    def update(self, origin: str, candidates: Sequence[Candidate]) -> None:
        """Replace what this origin knew before."""


class Next(NamedTuple):
    """Address to dial, and in how many seconds; 0: now."""

    server: ServerAddress
    seconds: float


class _CandidateState(msgspec.Struct):
    """State of a candidate."""

    candidate: Candidate
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
        return _STEERED if self.steered_until > now else self.candidate.rank


class ServerSelector:
    """All known addresses and their states. `random` returns numbers from 0 up to, not including, 1."""

    def __init__(self, random: Callable[[], float], candidates: Iterable[Candidate] = ()) -> None:
        self._random = random
        self._origins: dict[str, tuple[Candidate, ...]] = {}
        self._states: dict[ServerAddress, _CandidateState] = {}
        self._awaited: set[str] = set()
        self._jump_at = 0.0
        self.update("", candidates)

    # Candidates --------------------------------------------------------------------------------------------

    def update(self, origin: str, candidates: Iterable[Candidate]) -> None:
        """Replace the candidates of one origin. The state of addresses that stay is kept."""
        self._awaited.discard(origin)
        self._origins[origin] = tuple(candidates)
        merged: dict[ServerAddress, Candidate] = {}
        for candidate in (candidate for known in self._origins.values() for candidate in known):
            # A proposal makes no configured address doubtful, nor less preferred.
            if candidate.server not in merged or candidate.rank < merged[candidate.server].rank:
                merged[candidate.server] = candidate
        before, self._states = self._states, {}
        for server in sorted(merged, key=lambda server: merged[server].rank)[:WAYS_MAX]:
            state = before.get(server) or _CandidateState(merged[server])
            state.candidate = merged[server]
            self._states[server] = state

    def expect(self, origin: str) -> None:
        """Expect the first candidates of an origin in a moment."""
        self._awaited.add(origin)

    def source(self, server: ServerAddress) -> Source | None:
        """Return the origin of an address; None: it is not known now."""
        state = self._states.get(server)
        return None if state is None else state.candidate.source

    @property
    def servers(self) -> Collection[ServerAddress]:
        """Return all that are known."""
        return self._states.keys()

    @property
    def has_untried(self) -> bool:
        """Return whether a session is possible in a moment: an address has not failed yet, or is being looked up."""
        return bool(self._awaited) or any(not state.failures for state in self._states.values())

    # Selection ----------------------------------------------------------------------------------------------

    def next(self, now: float, without: Collection[ServerAddress] = ()) -> Next | None:
        """Return the address to dial next and when, without those that are being tried; None: there is none."""
        left = [state for server, state in self._states.items() if server not in without]
        if not left:
            return None
        ready = [state for state in left if state.free_at <= max(now, self._jump_at)]
        if ready:
            return Next(self._draw(ready, now).candidate.server, max(self._jump_at - now, 0.0))
        soonest = min(left, key=lambda state: state.free_at)
        return Next(soonest.candidate.server, soonest.free_at - now)

    def prefers(self, server: ServerAddress, other: ServerAddress | None, now: float) -> bool:
        """Return whether a known address is preferred to another one, which must be known too."""
        one, two = self._states.get(server), self._states.get(other) if other is not None else None
        return one is not None and two is not None and one.rank(now) < two.rank(now)

    def others(self, than: ServerAddress | None) -> list[ServerAddress]:
        """Return one address of each server other than that one, those without failures and the preferred first."""
        found: dict[str, ServerAddress] = {}
        for server in sorted(self._states, key=self._failures_and_rank):
            if than is None or server.name != than.name:
                found.setdefault(server.name, server)
        return list(found.values())

    def _failures_and_rank(self, server: ServerAddress) -> tuple[int, tuple[int, ...]]:
        state = self._states[server]
        return state.failures, state.candidate.rank

    def better(self, than: ServerAddress | None, now: float) -> ServerAddress | None:
        """Return an address that is preferred to the one in use and does not rest, if there is one."""
        better = [s for server, s in self._states.items() if s.free_at <= now and self.prefers(server, than, now)]
        return self._draw(better, now).candidate.server if better else None

    def return_seconds(self) -> float:
        """Return the seconds until the search for a better address; different for each host."""
        return RETURN_SECONDS_MIN + self._random() * (RETURN_SECONDS_MAX - RETURN_SECONDS_MIN)

    def _draw(self, states: Sequence[_CandidateState], now: float) -> _CandidateState:
        best = min(state.rank(now) for state in states)
        equal = [state for state in states if state.rank(now) == best]
        weights = [state.candidate.weight or _WEIGHT_ZERO for state in equal]
        point = self._random() * sum(weights)
        for state, weight in zip(equal, weights, strict=True):
            point -= weight
            if point < 0:
                return state
        return equal[-1]

    # Results ------------------------------------------------------------------------------------------------

    def worked(self, server: ServerAddress) -> None:
        """Record a working session: earlier failures are forgotten."""
        state = self._states.get(server)
        if state is not None:
            state.failures, state.worked, state.back_off_until, state.problem = 0, True, 0.0, ""

    def failed(self, server: ServerAddress, now: float, problem: str) -> None:
        """Record a failed attempt or the end of a session. The address rests, longer with each failure."""
        state = self._states.get(server)
        if state is None:
            return
        state.failures += 1
        state.problem = problem
        doubtful = state.candidate.source == "announced" and not state.worked
        longest = DOUBTFUL_SECONDS_MAX if doubtful else BACK_OFF_SECONDS_MAX
        pause = min(BACK_OFF_SECONDS_MIN * 2.0 ** min(state.failures - 1, 16), longest)
        state.back_off_until = now + pause * (0.5 + self._random() / 2)

    def lost(self, now: float, *, worked: bool) -> None:
        """Record the end of the session: the next address is dialled at a random moment.

        If the session had worked, addresses that have rested by now count as untried: their failures are old.
        """
        self._jump_at = now + self._random() * JUMP_SECONDS
        for state in self._states.values():
            if worked and state.back_off_until <= now:
                state.failures = 0

    def retry_after(self, server: ServerAddress, now: float, seconds: float) -> None:
        """Let an address rest because its server asked for it, up to half as long again: the server asks all hosts."""
        state = self._states.get(server)
        if state is not None:
            state.asked_until = now + min(seconds, RETRY_AFTER_SECONDS_MAX) * (1 + self._random() / 2)

    def redirected(self, servers: Iterable[tuple[str, int]], now: float) -> None:
        """Prefer the servers of a redirect, named by name and port, for a while; all of them equally.

        Known servers keep their addresses; each of the others is dialled by its name.
        """
        wanted = set(servers)
        lasting = (server for server, state in self._states.items() if state.candidate.source != "steered")
        known = {(server.name, server.port) for server in lasting}
        new = [ServerAddress(name, name, port) for name, port in sorted(wanted - known)]
        self.update("steered", [Candidate(server, (ANNOUNCED_RANK, 1), source="steered") for server in new])
        for server, state in self._states.items():
            state.steered_until = now + STEERED_SECONDS if (server.name, server.port) in wanted else 0.0

    def reset_backoff(self) -> None:
        """Make failed addresses due again for a waiting request, except those that asked for a pause."""
        self._jump_at = 0.0
        for state in self._states.values():
            state.failures, state.back_off_until = 0, 0.0

    def has_worked(self, server: ServerAddress) -> bool:
        """Return whether it has ever led to a server."""
        state = self._states.get(server)
        return state is not None and state.worked

    def doubtful(self, server: ServerAddress) -> bool:
        """Return whether it has failed and never worked: another proposal may replace it."""
        state = self._states.get(server)
        return state is not None and state.failures > 0 and not state.worked

    def known(
        self, now: float, used: ServerAddress | None, tried: Collection[ServerAddress]
    ) -> tuple[KnownServer, ...]:
        """Return every address with its state for an operator, the preferred first."""
        shown = []
        for state in sorted(self._states.values(), key=lambda state: state.rank(now)):
            server = state.candidate.server
            label: Literal["open", "connecting", "ready", "asked-to-wait", "backing-off"] = "ready"
            if server == used:
                label = "open"
            elif server in tried:
                label = "connecting"
            elif state.asked_until > max(now, state.back_off_until):
                label = "asked-to-wait"
            elif state.back_off_until > now:
                label = "backing-off"
            wait = state.free_at - now if label in ("asked-to-wait", "backing-off") else 0.0
            endpoint = format_endpoint(server.address, server.port)
            shown.append(
                KnownServer(
                    server.name,
                    endpoint,
                    state.candidate.source,
                    label,
                    wait,
                    state.failures,
                    state.problem,
                    state.steered_until > now,
                )
            )
        return tuple(shown)
