"""Order of the members of a pool: the nine policies of RFC 5356, and locality before them.

A policy orders the members of a pool. A user connects to the first, and to the next if that one fails; only the first
counts as used. Each policy is one sort key, from the reports of a listener (weight, load), from the memory of the pool
(`PoolState`), and from the caller's source of randomness. A listener of weight 0 comes after all others in every
policy.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import msgspec

from compass.model.limits import WEIGHT_MAX
from compass.model.rows import Listener, ListenerKey

Random: TypeAlias = Callable[[], float]
"""Source of floats in [0, 1)."""
LOCALITIES: tuple[str, ...] = ("none", "zone", "host")
"""Localities. none: no effect. zone: listeners of the user's zone first. host: those on the user's host, then those of
its zone, then the others."""
DEFAULT_POLICY = "weighted-random"
"""Policy that needs neither reports nor memory, and by which independent users share the load."""


class Location(msgspec.Struct, frozen=True):
    """Location of a user, for locality. Empty: unknown, so that no listener is near."""

    host: str = ""
    zone: str = ""


class SelectionRule(msgspec.Struct, frozen=True):
    """Rule that orders a pool's members."""

    policy: str = DEFAULT_POLICY
    """Policy, one of `POLICIES`. An unknown policy, of a newer server, means the default."""
    locality: str = "none"
    """Locality, one of `LOCALITIES`."""


class _Member(msgspec.Struct):
    """Memory of one listener."""

    row: Listener
    turn: float
    """Count of the pool when the listener was last first. Negative: never, so that it comes before used ones."""
    credit: int = 0
    """Credit of weighted round robin, in weights; between minus and plus the sum of all weights."""
    wear: float = 0.0
    """Load that this user has added since the listener's last report, for least used with degradation."""


class PoolState:
    """Memory of one pool for policies that take turns: a few numbers for each member."""

    def __init__(self) -> None:
        self._count = 0
        self._members: dict[ListenerKey, _Member] = {}
        self._groups: list[list[_Member]] = []
        self._grouped: tuple[Sequence[Listener], SelectionRule, Location] | None = None

    def ordered(
        self, peers: Sequence[Listener], rule: SelectionRule, place: Location, random: Random
    ) -> tuple[Listener, ...]:
        """Return the listeners, best first, and count the first as used. Fast if `peers` is the same object again."""
        if self._grouped is None or self._grouped[0] is not peers or self._grouped[1:] != (rule, place):
            self._group(peers, rule, place, random)
        policy = rule.policy if rule.policy in _KEYS else DEFAULT_POLICY
        key = _KEYS[policy]
        order: list[_Member] = []
        for group in self._groups:
            # Sorting preserves the order of equals, which is that of their addresses.
            order += sorted(group, key=lambda member: key(member, random))
        if order:
            self._count_use(order[0], policy, self._groups[0])
        return tuple([member.row for member in order])

    def _group(self, peers: Sequence[Listener], rule: SelectionRule, place: Location, random: Random) -> None:
        """Divide the listeners into groups that precede any policy: by a weight of 0, and by distance."""
        groups: dict[tuple[bool, int], list[_Member]] = {}
        for member in self._members_of(peers, random):
            rank = (not member.row.weight, distance(member.row, place, rule.locality))
            groups.setdefault(rank, []).append(member)
        self._groups = [groups[rank] for rank in sorted(groups)]
        self._grouped = (peers, rule, place)

    def _members_of(self, peers: Iterable[Listener], random: Random) -> list[_Member]:
        """Return the memory of these members, by address; drop the memory of others."""
        before, self._members = self._members, {}
        for row in sorted(peers, key=lambda row: (row.address, row.port, row.service)):
            key = (row.service, row.address, row.port)
            member = before.get(key)
            if member is None or member.row.epoch != row.epoch:
                # Negative and random: users that start at the same time do not all begin with the same listener.
                member = _Member(row, random() - 1.0)
            elif member.row is not row:
                if (member.row.load, member.row.degradation) != (row.load, row.degradation):
                    member.wear = 0.0
                member.row = row
            self._members[key] = member
        return list(self._members.values())

    def _count_use(self, first: _Member, policy: str, group: list[_Member]) -> None:
        self._count += 1
        first.turn = self._count
        if policy == "least-used-with-degradation":
            first.wear = min(first.wear + first.row.degradation, 1.0)
        elif policy == "weighted-round-robin":
            for member in group:
                member.credit += member.row.weight
            first.credit -= sum(member.row.weight for member in group)


def distance(peer: Listener, place: Location, locality: str) -> int:
    """Return the distance of a listener. 0: on the user's host. 1: in its zone. 2: elsewhere, or no locality."""
    if locality not in ("zone", "host"):
        return 2
    if place.host and peer.host == place.host:
        return 0 if locality == "host" else 1
    return 1 if place.zone and peer.zone == place.zone else 2


_Key: TypeAlias = tuple[float, ...]


def _race(share: float, random: Random) -> _Key:
    """Return a random sort key, which draws each position in proportion to the remaining shares; a share of 0 is last.

    -log(u)/share is the time of an event with that rate, and the first event wins (Efraimidis and Spirakis, 2006,
    "Weighted random sampling with a reservoir").
    """
    time = -math.log(1.0 - random())
    return (0.0, time / share) if share > 0 else (1.0, time)


def subset_ranks(peers: Iterable[Listener], rule: SelectionRule, place: Location) -> dict[ListenerKey, int]:
    """Return the rank of each listener for an answer that has no room for all: the lowest are in it.

    The ranks follow the policy, but where the policy draws or takes turns they come from a hash of the user's host and
    the listener (rendezvous hashing): the same subset from answer to answer while nothing changes, one listener more or
    less changes one place of it, and hosts have different subsets. A heavier listener is in more of them.
    """
    policy = rule.policy if rule.policy in _KEYS else DEFAULT_POLICY
    rank, share = _RANKS.get(policy), _SHARES.get(policy)

    def key(peer: Listener) -> tuple[float, ...]:
        time = -math.log(1.0 - _drawn(place.host, peer)) / (share(peer) if share else 1)
        return (not peer.weight, distance(peer, place, rule.locality), *(rank(peer) if rank else ()), time)

    return {(peer.service, peer.address, peer.port): at for at, peer in enumerate(sorted(peers, key=key))}


def _drawn(host: str, peer: Listener) -> float:
    """Return a number in [0, 1) that is the same on each call."""
    text = f"{host} {peer.service} {peer.address} {peer.port}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest()) / 2**48


_KEYS: dict[str, Callable[[_Member, Random], _Key]] = {
    # 4.1: in turn.
    "round-robin": lambda member, random: (member.turn,),
    # 4.2: each in proportion to its weight, spread over the round.
    "weighted-round-robin": lambda member, random: (-(member.credit + member.row.weight), member.turn),
    # 4.3 and 4.4: each with the same probability; in proportion to its weight.
    "random": lambda member, random: _race(1.0, random),
    "weighted-random": lambda member, random: _race(member.row.weight, random),
    # 4.5: the highest priority, which is the weight; equals in turn.
    "priority": lambda member, random: (-member.row.weight, member.turn),
    # 5.1: the lowest load; equals in turn.
    "least-used": lambda member, random: (member.row.load, member.turn),
    # 5.2: the lowest load; each use adds the degradation until the next report.
    "least-used-with-degradation": lambda member, _: (min(member.row.load + member.wear, 1.0), member.turn),
    # 5.3: the lowest load with one more user.
    "priority-least-used": lambda member, _: (min(member.row.load + member.row.degradation, 1.0), member.turn),
    # 5.4: in proportion to the free capacity.
    "randomized-least-used": lambda member, random: _race(1.0 - member.row.load, random),
}
POLICIES: tuple[str, ...] = tuple(_KEYS)
"""Names of the policies (RFC 5356, sections 4.1 to 4.5 and 5.1 to 5.4)."""


def preference(order: Sequence[Listener], rule: SelectionRule, place: Location) -> list[tuple[int, int]]:
    """Return a rank (the smallest first) and a share for each listener of an order, for users that select by
    themselves.

    Among equal ranks a user draws in proportion to the shares, from 1 to 65535 (RFC 2782 calls them priority and
    weight). So random policies result in their shares, policies in turn in equal shares, and policies that prefer a
    listener in a rank of its own for each.
    """
    found: list[tuple[int, int]] = []
    rank, before = -1, None
    for peer in order:
        group = (not peer.weight, distance(peer, place, rule.locality))
        share = _SHARES.get(rule.policy if rule.policy in _KEYS else DEFAULT_POLICY)
        if share is None or group != before:
            rank += 1
        before = group
        found.append((min(rank, WEIGHT_MAX), share(peer) if share is not None else 1))
    return found


_SHARES: dict[str, Callable[[Listener], int]] = {
    "round-robin": lambda peer: 1,
    "random": lambda peer: 1,
    "weighted-round-robin": lambda peer: max(peer.weight, 1),
    "weighted-random": lambda peer: max(peer.weight, 1),
    "randomized-least-used": lambda peer: max(round((1.0 - peer.load) * WEIGHT_MAX), 1),
}
_RANKS: dict[str, Callable[[Listener], _Key]] = {
    "priority": lambda peer: (-peer.weight,),
    "least-used": lambda peer: (peer.load,),
    "least-used-with-degradation": lambda peer: (peer.load,),
    "priority-least-used": lambda peer: (min(peer.load + peer.degradation, 1.0),),
}
"""Rank by which a policy prefers listeners; the other policies draw or take turns."""
