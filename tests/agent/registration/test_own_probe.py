"""Trials of the host's own registrations, at the very address that is registered."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed

from compass.agent.registration import own_probe
from compass.agent.registration.own_probe import AGAIN_SECONDS_MAX, FIRST_SECONDS, TRIALS_MAX
from compass.model.host_api import LocalDeregister, LocalRegister
from compass.model.rows import Policy
from compass.model.rules.networks import ProbeDenied
from tests.support.agent_world import Hosts

CHINA = "chinaserver.openuss"


class Network:
    """Network of the host: what listens, and what was tried."""

    def __init__(self) -> None:
        self.problem = "connection refused"
        self.tried: list[tuple[str, int]] = []
        self.waits = False
        self.waiting: list[Deferred[str]] = []

    def probe(self, policy: Policy, address: str, port: int) -> Deferred[str]:
        self.tried.append((address, port))
        if not self.waits:
            return succeed(self.problem)
        self.waiting.append(Deferred())
        return self.waiting[-1]


@pytest.fixture
def tokens(world: Hosts) -> dict[str, str]:
    return world.uss()


def problems(world: Hosts) -> list[str]:
    return [one.problem for one in world.hosts["h1"].daemon.status().registrations]


def register(world: Hosts, token: str, port: int = 2028, address: str = "") -> Any:
    return world.wait(world.hosts["h1"].daemon.register(LocalRegister(CHINA, port, token, address, pid=1)))


def test_a_registration_that_does_not_answer_is_shown_until_it_does(world: Hosts, tokens: dict[str, str]) -> None:
    """F11: it is tried at the registered address, not at another one; it stays registered, and servers decide."""
    network = Network()
    world.daemon(own_probe=network.probe)
    register(world, tokens[CHINA], address="10.0.0.77")
    world.run(FIRST_SECONDS + 0.5)
    assert network.tried == [("10.0.0.77", 2028)]
    assert problems(world) == ["does not answer at this address: connection refused"]
    assert world.catalogue.listener(CHINA, "10.0.0.77", 2028).state == "up"  # type: ignore[union-attr]
    network.problem = ""
    world.run(10.0)
    assert problems(world) == [""]
    tried = len(network.tried)
    world.run(2 * AGAIN_SECONDS_MAX)
    assert len(network.tried) == tried, "what has answered is not tried again"


def test_trials_end_with_the_registration_and_are_bounded(world: Hosts, tokens: dict[str, str]) -> None:
    """TRIALS_MAX at once, the others later; a listener that is deregistered is not tried."""
    network = Network()
    network.waits = True
    world.daemon(own_probe=network.probe)
    for port in range(2000, 2000 + TRIALS_MAX + 1):
        register(world, tokens[CHINA], port)
    world.run(FIRST_SECONDS + 0.5)
    assert len(network.tried) == TRIALS_MAX
    last = ({2000 + n for n in range(TRIALS_MAX + 1)} - {port for _, port in network.tried}).pop()
    world.wait(world.hosts["h1"].daemon.deregister(LocalDeregister(CHINA, last, tokens[CHINA])))
    for answer in network.waiting:
        answer.callback("")
    world.run(5.0)
    assert len(network.tried) == TRIALS_MAX
    network.waits = False
    register(world, tokens[CHINA], 2100)
    world.run(FIRST_SECONDS + 0.5)
    assert network.tried[-1] == ("10.0.0.1", 2100)


def test_an_address_that_may_not_be_probed_is_no_problem(world: Hosts, tokens: dict[str, str]) -> None:
    """The configuration denies its network: nothing is known of it."""
    network = Network()
    network.problem = ProbeDenied("not probed: it is denied")
    world.daemon(own_probe=network.probe)
    register(world, tokens[CHINA])
    world.run(FIRST_SECONDS + 0.5)
    assert network.tried and problems(world) == [""]
    assert own_probe.FIRST_SECONDS < 2.0
