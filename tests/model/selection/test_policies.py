"""The pool policies of RFC 5356, nearness, and whose rule orders what (opengnsp.md, "Pools")."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random
from typing import Any

import msgspec
import pytest

from compass.model.requests import Put, Remove
from compass.model.rows import Category, Listener, Policy
from compass.model.selection import selector
from compass.model.selection.policies import (
    DEFAULT_POLICY,
    LOCALITIES,
    POLICIES,
    Location,
    PoolState,
    SelectionRule,
    distance,
)
from compass.model.selection.selector import Selector, rule_of
from tests.support.catalogue_rows import NOW, World, drain, store

CHI_SQUARE = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52, 6: 22.46, 7: 24.32}
"""Degrees of freedom -> what a right distribution exceeds once in a thousand times (any table of the distribution)."""


def peers(*weights: int, **more: object) -> list[Listener]:
    """Listeners at the ports 1, 2, 3 ... with these weights."""
    made = [Listener("a.store", "10.0.0.1", n, "up", NOW, 1, weight=w) for n, w in enumerate(weights, 1)]
    return [msgspec.structs.replace(peer, **more) for peer in made]


def loaded(*loads: float, degradation: float = 0.0) -> list[Listener]:
    """Listeners with these loads."""
    return [
        Listener("a.store", "10.0.0.1", n, "up", NOW, 1, load=load, degradation=degradation)
        for n, load in enumerate(loads, 1)
    ]


class Asking:
    """A user of one pool."""

    def __init__(self, policy: str, seed: int = 4863, locality: str = "none", place: Location | None = None) -> None:
        self.rule, self.place = SelectionRule(policy, locality), place or Location()
        self.turns, self.random = PoolState(), Random(seed).random

    def order(self, members: list[Listener]) -> list[int]:
        """The ports in the order given."""
        return [peer.port for peer in self.turns.ordered(members, self.rule, self.place, self.random)]

    def firsts(self, members: list[Listener], times: int) -> list[int]:
        """Return the first listeners of that number of consecutive lookups."""
        return [self.order(members)[0] for _ in range(times)]


def deviation(seen: Counter[int], shares: dict[int, float]) -> float:
    """Chi-square of what was seen against the shares that were due."""
    total, whole = sum(seen.values()), sum(shares.values())
    expected = {port: total * share / whole for port, share in shares.items()}
    return sum((seen[port] - due) ** 2 / due for port, due in expected.items())


def test_there_are_the_nine_policies_of_the_rfc() -> None:
    """RFC 5356, sections 4.1 to 4.5 and 5.1 to 5.4, by names that a topology can say."""
    assert len(POLICIES) == 9 and DEFAULT_POLICY in POLICIES and Policy().pool == DEFAULT_POLICY
    assert LOCALITIES == ("none", "zone", "host") and Policy().locality in LOCALITIES


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_gives_each_listener_once(policy: str) -> None:
    """A user may try the next listener: the order has each listener once, independent of the first."""
    asking, members = Asking(policy), peers(1, 7, 0, 2, 65535)
    for _ in range(30):
        order = asking.order(members)
        assert sorted(order) == [1, 2, 3, 4, 5]
        assert order[-1] == 3, "a listener of weight 0 MUST come after every other"


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_randomness_gives_the_same_answers(policy: str) -> None:
    """And the order in which the catalogue happens to hold them does not matter."""
    runs = []
    for members in (peers(3, 1, 2), peers(3, 1, 2)):
        asking = Asking(policy, seed=7)
        runs.append([asking.order(members) for _ in range(20)])
    assert runs[0] == runs[1]
    still = [
        PoolState().ordered(members, SelectionRule(policy), Location(), lambda: 0.5)
        for members in (peers(1, 1), peers(1, 1)[::-1])
    ]
    assert still[0] == still[1]


@pytest.mark.parametrize("draw", [0.0, 0.5, 1 - 2**-53])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_ends_of_what_a_random_source_gives_are_taken(policy: str, draw: float) -> None:
    """Also with loads at both ends and weights at both ends."""
    members = [*peers(0, 1, 65535), *[msgspec.structs.replace(p, port=p.port + 3) for p in loaded(0.0, 1.0, 1e-300)]]
    order = PoolState().ordered(members, SelectionRule(policy), Location(), lambda: draw)
    assert len(order) == 6 and order[-1].weight == 0


def test_round_robin_takes_one_after_the_other() -> None:
    """4.1: each MUST be first once before any is first again; who fails on the first tries the next in turn."""
    asking, members = Asking("round-robin"), peers(1, 5, 1, 9)
    firsts = asking.firsts(members, 12)
    assert sorted(firsts[:4]) == [1, 2, 3, 4] and firsts[4:8] == firsts[:4] == firsts[8:]
    assert asking.order(members) == firsts[:4]


def test_round_robin_goes_on_when_members_come_and_go() -> None:
    """A new listener is next, and the end of one does not change the turns of others."""
    asking, members = Asking("round-robin"), peers(1, 1, 1, 1)
    first, second = asking.firsts(members[:3], 2)
    assert asking.firsts(members, 1) != [first]
    third = ({1, 2, 3} - {first, second}).pop()
    assert set(asking.firsts(members, 1)) <= {4, third}
    assert asking.firsts([peer for peer in members if peer.port != first], 1) == [second]


def test_users_that_begin_together_do_not_begin_with_the_same_one() -> None:
    """A thousand hosts that start at once would all go to the first of the list."""
    for policy in ("round-robin", "least-used", "priority", "weighted-round-robin"):
        seen = Counter(Asking(policy, seed).order(peers(1, 1, 1, 1))[0] for seed in range(2_000))
        assert deviation(seen, dict.fromkeys((1, 2, 3, 4), 1.0)) < CHI_SQUARE[3], policy


@pytest.mark.parametrize("weights", [(1, 2, 5), (3, 3, 1), (1,), (7, 1, 1, 4)])
def test_weighted_round_robin_gives_each_its_weight_in_every_round(weights: tuple[int, ...]) -> None:
    """4.2: in a round of as many turns as the sum of the weights, each MUST be first as often as its weight says."""
    asking, members = Asking("weighted-round-robin"), peers(*weights)
    for _ in range(5):
        assert Counter(asking.firsts(members, sum(weights))) == dict(enumerate(weights, 1))


def test_weighted_round_robin_spreads_the_turns() -> None:
    """4.2: the turns of the heaviest are not all in a row: the others need not wait for them."""
    firsts = Asking("weighted-round-robin").firsts(peers(5, 1, 1), 7)
    assert max(len(run) for run in "".join("x" if port == 1 else " " for port in firsts).split()) <= 3


DRAWN: dict[str, tuple[list[Listener], dict[int, float]]] = {
    "random": (peers(1, 2, 5, 9), {1: 1, 2: 1, 3: 1, 4: 1}),
    "weighted-random": (peers(1, 2, 5, 9), {1: 1, 2: 2, 3: 5, 4: 9}),
    "randomized-least-used": (loaded(0.0, 0.25, 0.5, 0.9), {1: 1.0, 2: 0.75, 3: 0.5, 4: 0.1}),
}


@pytest.mark.parametrize("policy", DRAWN)
def test_drawn_policies_have_their_probabilities(policy: str) -> None:
    """4.3, 4.4, 5.4: chi-square over 20,000 lookups, of the first place and of the second given the first."""
    members, shares = DRAWN[policy]
    asking = Asking(policy)
    orders = [asking.order(members) for _ in range(20_000)]
    assert deviation(Counter(order[0] for order in orders), shares) < CHI_SQUARE[3]
    for port in shares:
        seconds = Counter(order[1] for order in orders if order[0] == port)
        left = {other: share for other, share in shares.items() if other != port}
        assert deviation(seconds, left) < CHI_SQUARE[2], port


def test_a_full_listener_is_drawn_last() -> None:
    """5.4: in proportion to 1 - load, so what has nothing left comes when nothing else is."""
    asking = Asking("randomized-least-used")
    assert {asking.order(loaded(1.0, 0.99, 1.0))[0] for _ in range(50)} == {2}
    assert {asking.order(loaded(1.0, 1.0))[0] for _ in range(50)} == {1, 2}


def test_priority_takes_the_highest_and_equals_in_turn() -> None:
    """4.5: the rank is the weight; the lower ones follow in their order."""
    asking, members = Asking("priority"), peers(5, 9, 9, 1)
    firsts = asking.firsts(members, 10)
    assert set(firsts) == {2, 3} and all(one != other for one, other in pairwise(firsts))
    assert asking.order(members)[2:] == [1, 4]


def test_least_used_takes_the_lowest_load_and_equals_in_turn() -> None:
    """5.1: until another load is reported, the same ones."""
    asking = Asking("least-used")
    firsts = asking.firsts(loaded(0.5, 0.2, 0.9, 0.2), 10)
    assert Counter(firsts) == {2: 5, 4: 5}
    assert asking.order(loaded(0.5, 0.6, 0.9, 0.7)) == [1, 2, 4, 3]


def test_degradation_counts_our_own_use_until_the_load_is_reported() -> None:
    """5.2: each time that it was first adds its degradation to the load until it reports another."""
    asking = Asking("least-used-with-degradation")
    members = loaded(0.0, 0.25, degradation=0.125)
    # 0, 1/8 and then 1/4 against 1/4: in turn from there on.
    assert asking.firsts(members, 3) == [1, 1, 2]
    assert Counter(asking.firsts(members, 5)) in ({1: 3, 2: 2}, {1: 2, 2: 3})
    reported = [msgspec.structs.replace(members[0], load=0.125), members[1]]
    assert asking.firsts(reported, 1) == [1]
    heavy = loaded(0.0, 0.0, degradation=1.0)
    full = Asking("least-used-with-degradation")
    assert Counter(full.firsts(heavy, 100)) == {1: 50, 2: 50}, "a load never counts for more than 1"


def test_priority_least_used_looks_at_what_the_load_would_be() -> None:
    """5.3: of the smallest load plus degradation, however often it was first; among equals in turn."""
    strong, weak = loaded(0.3, degradation=0.1)[0], msgspec.structs.replace(loaded(0.0, 0.2)[1], degradation=0.4)
    assert set(Asking("priority-least-used").firsts([strong, weak], 10)) == {1}
    assert set(Asking("least-used").firsts([strong, weak], 10)) == {2}
    assert Counter(Asking("priority-least-used").firsts(loaded(0.5, 0.5, degradation=0.1), 10)) == {1: 5, 2: 5}


def test_a_new_instance_has_used_up_nothing() -> None:
    """A new epoch is another process at the same place."""
    asking, members = Asking("least-used-with-degradation"), loaded(0.0, 0.0, degradation=0.25)
    asking.firsts(members, 4)
    again = [msgspec.structs.replace(members[0], epoch=2), members[1]]
    assert asking.firsts(again, 2) == [1, 1]


def test_what_is_not_there_any_more_is_not_remembered() -> None:
    """The memory of a pool is a few numbers for each member that it has."""
    asking = Asking("round-robin")
    for port in range(1, 1_000):
        asking.order([Listener("a.store", "10.0.0.1", port, "up", NOW, 1)])
    assert len(asking.turns._members) == 1


NEAR = Location("web1", "north")
HERE = Listener("a.store", "10.0.0.1", 1, "up", NOW, 1, host="web1", zone="north")
ZONE = Listener("a.store", "10.0.0.2", 2, "up", NOW, 1, host="web2", zone="north")
FAR = Listener("a.store", "10.0.0.3", 3, "up", NOW, 1, host="web3", zone="south")
NOWHERE = Listener("a.store", "10.0.0.4", 4, "up", NOW, 1)


@pytest.mark.parametrize(
    ("locality", "place", "distances"),
    [
        ("none", NEAR, (2, 2, 2, 2)),
        ("zone", NEAR, (1, 1, 2, 2)),
        ("host", NEAR, (0, 1, 2, 2)),
        ("host", Location("web1"), (0, 2, 2, 2)),
        ("zone", Location("web1"), (1, 2, 2, 2)),
        ("zone", Location(), (2, 2, 2, 2)),
        ("later", NEAR, (2, 2, 2, 2)),
    ],
)
def test_near_is_the_own_host_then_the_zone(locality: str, place: Location, distances: tuple[int, ...]) -> None:
    """A user without a zone is in none; an unknown locality means `none`."""
    assert tuple(distance(peer, place, locality) for peer in (HERE, ZONE, FAR, NOWHERE)) == distances


@pytest.mark.parametrize("policy", POLICIES)
def test_nearness_comes_before_the_policy(policy: str) -> None:
    """The policy orders what is equally near; what is far is there for when nothing near is left."""
    asking = Asking(policy, locality="host", place=NEAR)
    for _ in range(10):
        order = asking.order([FAR, NOWHERE, ZONE, HERE])
        assert order[:2] == [1, 2] and sorted(order[2:]) == [3, 4]
    busy = msgspec.structs.replace(HERE, load=1.0)
    assert asking.order([FAR, busy])[0] == 1
    assert asking.order([FAR, msgspec.structs.replace(HERE, weight=0)])[0] == 3


@pytest.mark.parametrize("policy", ["round-robin", "weighted-round-robin"])
def test_turns_are_taken_among_the_near(policy: str) -> None:
    """Three in the zone share the turns; the far one has none."""
    members = [*peers(1, 1, 1, zone="north"), msgspec.structs.replace(FAR, port=9)]
    firsts = Asking(policy, locality="zone", place=NEAR).firsts(members, 9)
    assert Counter(firsts) == {1: 3, 2: 3, 3: 3}


def test_a_policy_of_a_newer_server_is_the_default_one() -> None:
    """An unknown policy MUST be treated as `weighted-random`."""
    asking, weights = Asking("later"), (1, 9)
    assert deviation(Counter(asking.firsts(peers(*weights), 5_000)), {1: 1, 2: 9}) < CHI_SQUARE[1]


def ruled(policy: Policy) -> World:
    """`store` with that policy; two listeners of `a.store`, one of `b.store`, one of the backup."""
    world = store()
    world.ask(Put(Category("store", "spare.help", policy)))
    for service, at in (("a.store", 1), ("a.store", 2), ("b.store", 3), ("spare.help", 4)):
        world.up(service, f"10.0.0.1:{at}")
    return world


def test_the_service_says_how_it_is_ordered_else_its_category() -> None:
    """A category's name has the category's rule; an unknown name has the default."""
    catalogue = ruled(Policy(pool="round-robin", pools={"a": "priority"}, locality="zone")).catalogue
    assert rule_of(catalogue, "a.store") == SelectionRule("priority", "zone")
    assert rule_of(catalogue, "b.store") == rule_of(catalogue, "store") == SelectionRule("round-robin", "zone")
    assert rule_of(catalogue, "no.such") == rule_of(catalogue, "web") == SelectionRule()


def test_what_is_given_in_its_place_is_ordered_by_the_same_rule() -> None:
    """The rule of the name that was asked for orders the backup's listeners, too."""
    world = ruled(Policy(pool="round-robin"))
    world.ask(drain("a.store", "10.0.0.1:1"))
    world.ask(drain("a.store", "10.0.0.1:2"))
    world.up("spare.help", "10.0.0.1:5")
    pools = Selector(Random(1).random)
    given = [pools.choose(world.catalogue, "a.store") for _ in range(4)]
    assert {choice.source for choice in given} == {"backup"} and {choice.policy for choice in given} == {"round-robin"}
    assert Counter(choice.listeners[0].port for choice in given) == {4: 2, 5: 2}


def test_each_name_has_turns_of_its_own() -> None:
    """Lookups of a category do not disturb the turns of its services."""
    world, pools = ruled(Policy(pool="round-robin")), Selector(Random(1).random)
    firsts: dict[str, list[int]] = {"a.store": [], "store": []}
    for _ in range(6):
        for name, seen in firsts.items():
            seen.append(pools.choose(world.catalogue, name).listeners[0].port)
    assert Counter(firsts["a.store"]) == {1: 3, 2: 3} and Counter(firsts["store"]) == {1: 2, 2: 2, 3: 2}


def test_turns_are_remembered_for_so_many_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """At POOLS_MAX no pool is dropped; one more drops the least recently used one, which then starts again."""
    monkeypatch.setattr(selector, "POOLS_MAX", 2)
    world, pools = ruled(Policy(pool="round-robin")), Selector(Random(1).random)
    for name in ("a.store", "b.store", "a.store"):
        pools.choose(world.catalogue, name)
    assert list(pools._turns) == ["b.store", "a.store"]
    pools.choose(world.catalogue, "store")
    assert list(pools._turns) == ["a.store", "store"]


def test_a_service_that_goes_takes_its_policy_along() -> None:
    """A later one of the same name is another one."""
    world = store()
    world.ask(Put(Category("store", policy=Policy(pools={"a": "random", "b": "priority"}))))
    world.ask(Remove("service", "a.store"))
    assert world.catalogue.categories["store"].policy.pools == {"b": "priority"}


def mapped(count: int) -> dict[str, str]:
    """Return the pool policies of that number of services."""
    return {f"s{number}": "random" for number in range(count)}


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (Policy(pool="fastest"), "bad-value"),
        (Policy(pool=""), "bad-value"),
        (Policy(pools={"a": "fastest"}), "bad-value"),
        (Policy(pools={"a b": "random"}), "bad-name"),
        (Policy(pools={"A": "random"}), "bad-name"),
        (Policy(locality="planet"), "bad-value"),
        (Policy(pools=mapped(1_001)), "too-large"),
        (Policy(pools=mapped(1_000)), ""),
        *((Policy(pool=name), "") for name in POLICIES),
        *((Policy(locality=name), "") for name in LOCALITIES),
    ],
)
def test_only_policies_that_there_are_can_be_set(policy: Policy, code: str) -> None:
    """A word of a slip of the pen would silently be the default."""
    world = store()
    if code:
        assert world.code(Put(Category("store", policy=policy))) == code
    else:
        world.ask(Put(Category("store", policy=policy)))
        assert world.catalogue.categories["store"].policy == policy


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("load", (0.0, 0.5, 1.0), (-0.001, 1.001, float("nan"), float("inf"))),
        ("degradation", (0.0, 1.0), (-0.001, 1.001, float("nan"))),
        ("zone", ("", "north-1"), ("two words", "-", "x" * 64)),
    ],
)
def test_what_a_listener_reports_is_checked(field: str, good: tuple[Any, ...], bad: tuple[Any, ...]) -> None:
    """Shares are from 0 to 1, a zone is a label."""
    world = store()
    for value in good:
        world.up("a.store", **{field: value})
        assert getattr(world.listener("a.store"), field) == value
    before = world.catalogue
    for value in bad:
        world.up("a.store", **{field: value})
        assert world.catalogue == before, value


def test_a_reported_load_is_a_change_of_the_same_instance() -> None:
    """A listener reports its load by registering again with its epoch: state and health stay as they are."""
    world = store().in_state("suspect")
    world.up("a.store", epoch=5, load=0.5, degradation=0.1, zone="North")
    row = world.listener("a.store")
    assert (row.state, row.load, row.degradation, row.zone) == ("suspect", 0.5, 0.1, "north")
    assert world.operations() == ["register"]
    world.up("a.store", epoch=5, load=0.5, degradation=0.1, zone="north")
    assert world.operations() == []
