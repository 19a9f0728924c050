"""Pool policies from end to end: what listeners report on one host decides what lookups give on another."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest

from compass.agent.local_api import LocalApi
from compass.model.host_api import LocalDeregister, LocalLoad, LocalRegister, Outcome, Resolved
from compass.model.replies import Dependencies, Refusal
from compass.model.requests import Put
from tests.support.agent_world import Hosts

CHINA = "chinaserver.openuss"


@pytest.fixture
def tokens(world: Hosts) -> dict[str, str]:
    return world.uss()


def ruled(world: Hosts, **policy: Any) -> None:
    """Let an administrator set the policy of openuss."""
    category = world.catalogue.categories["openuss"]
    world.administer(Put(msgspec.structs.replace(category, policy=msgspec.structs.replace(category.policy, **policy))))
    world.run(0.05)


def web(world: Hosts, name: str = "user", **options: Any) -> LocalApi:
    daemon = world.daemon(name, **options)
    assert isinstance(world.wait(daemon.dependencies("www.web")), Dependencies)
    return daemon


def up(world: Hosts, host: LocalApi, token: str, port: int, **more: Any) -> Outcome:
    outcome = world.wait(host.register(LocalRegister(CHINA, port, token, **more)))
    assert isinstance(outcome, Outcome) and outcome.state == "up", outcome
    world.run(0.05)
    return outcome


def firsts(daemon: LocalApi, times: int = 6, name: str = CHINA) -> Counter[int]:
    """Return the first listener of each of a number of lookups."""
    seen: Counter[int] = Counter()
    for _ in range(times):
        found = daemon.resolve(name)
        assert isinstance(found, Resolved)
        seen[found.listeners[0].port] += 1
    return seen


def test_a_reported_load_moves_the_users_of_other_hosts(world: Hosts, tokens: dict[str, str]) -> None:
    """A listener reports its load by registering again with its epoch: it stays the same instance."""
    ruled(world, pool="least-used")
    user, provider = web(world), world.daemon("provider")
    first = up(world, provider, tokens[CHINA], 1, load=0.5, pid=1)
    up(world, provider, tokens[CHINA], 2, load=0.25, hold=True)
    assert firsts(user) == {2: 6}
    outcome = world.wait(provider.report_load(LocalLoad(CHINA, 1, tokens[CHINA], 0.125)))
    assert (outcome.state, outcome.epoch) == ("up", first.epoch) and outcome.revision > first.revision
    world.run(0.05)
    assert firsts(user) == {1: 6}
    world.wait(provider.report_load(LocalLoad(CHINA, 2, tokens[CHINA], 0.125)))
    world.run(0.05)
    assert firsts(user) == {1: 3, 2: 3}


def test_a_load_that_no_server_can_be_told_is_told_later(world: Hosts, tokens: dict[str, str]) -> None:
    """The load is in the journal like the registration itself, and survives the daemon's restart."""
    provider = world.daemon("provider")
    up(world, provider, tokens[CHINA], 1, pid=1)
    world.fall()
    outcome = world.wait(provider.report_load(LocalLoad(CHINA, 1, tokens[CHINA], 0.75)))
    assert outcome.state == "pending"
    provider = world.daemon("provider")
    world.serve()
    world.run(10.0)
    row = world.catalogue.listener(CHINA, "10.0.0.1", 1)
    assert row is not None and (row.load, row.state) == (0.75, "up")


def test_loads_that_are_refused(world: Hosts, tokens: dict[str, str]) -> None:
    """An invalid load is refused with its reason and changes nothing."""
    provider = world.daemon("provider")
    up(world, provider, tokens[CHINA], 1, pid=1)
    before = world.catalogue
    for request, code in (
        (LocalLoad(CHINA, 1, "wrong", 0.5), "bad-credential"),
        (LocalLoad(CHINA, 2, tokens[CHINA], 0.5), "unknown-listener"),
        (LocalLoad("nodot", 1, tokens[CHINA], 0.5), "bad-name"),
        (LocalLoad(CHINA, 1, tokens[CHINA], 1.5), "bad-value"),
        (LocalLoad(CHINA, 1, tokens[CHINA], float("nan")), "bad-value"),
    ):
        refusal = world.wait(provider.report_load(request))
        assert isinstance(refusal, Refusal) and refusal.code == code
    world.wait(provider.deregister(LocalDeregister(CHINA, 1, tokens[CHINA])))
    gone = world.wait(provider.report_load(LocalLoad(CHINA, 1, tokens[CHINA], 0.5)))
    assert isinstance(gone, Refusal) and gone.code == "unknown-listener"
    assert before.listener(CHINA, "10.0.0.1", 1) is not None


def test_users_are_given_what_is_near(world: Hosts, tokens: dict[str, str]) -> None:
    """Same host, same zone, elsewhere; a listener that names no zone is where its host is."""
    ruled(world, pool="round-robin", locality="host")
    user = web(world, zone="north")
    near, far = world.daemon("near", zone="north"), world.daemon("far", zone="south")
    up(world, far, tokens[CHINA], 3)
    assert firsts(user) == {3: 6}
    up(world, near, tokens[CHINA], 2)
    up(world, near, tokens[CHINA], 4, zone="south")
    assert firsts(user) == {2: 6}
    up(world, user, tokens[CHINA], 1)
    assert firsts(user) == {1: 6}
    found = user.resolve(CHINA)
    assert isinstance(found, Resolved) and [peer.port for peer in found.listeners][:2] == [1, 2]
    assert found.policy == "round-robin"


def test_the_policy_of_a_service_and_of_its_category(world: Hosts, tokens: dict[str, str]) -> None:
    """A change of the policy counts for the next lookup of every host that depends on it."""
    user, provider = web(world), world.daemon("provider")
    for port, weight in ((1, 1), (2, 2)):
        up(world, provider, tokens[CHINA], port, weight=weight)
    ruled(world, pool="priority")
    assert firsts(user) == {2: 6}
    ruled(world, pools={"chinaserver": "weighted-round-robin"})
    assert firsts(user) == {1: 2, 2: 4} and firsts(user, name="openuss") == {2: 6}
