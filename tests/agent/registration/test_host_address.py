"""Registrations whose programs name no address: they have the host's, and follow it when it changes."""

from __future__ import annotations

import pytest

from compass.agent.registration.host_address import LOOK_SECONDS
from compass.model.host_api import LocalDeregister, LocalLoad, LocalRegister, Outcome
from compass.system.machine import find_address
from tests.support.agent_world import Hosts

CHINA = "chinaserver.openuss"


@pytest.fixture
def tokens(world: Hosts) -> dict[str, str]:
    return world.uss()


class Network:
    """Network of a machine, whose address changes."""

    def __init__(self, address: str) -> None:
        self.address = address

    def find(self) -> str:
        return self.address


def used(world: Hosts) -> list[str]:
    """Return the addresses at which the servers have the listener in use."""
    rows = world.catalogue.listeners.get(CHINA, {}).values()
    return sorted(row.address for row in rows if row.state == "up")


def registered(world: Hosts, token: str, address: str = "", network: Network | None = None) -> Outcome:
    """Register on a host that follows a network."""
    daemon = world.daemon(find_address=network.find if network else None)
    answer = world.wait(daemon.register(LocalRegister(CHINA, 2028, token, address, pid=1)))
    assert isinstance(answer, Outcome) and answer.state == "up"
    return answer


def test_the_address_of_the_configuration_changes(world: Hosts, tokens: dict[str, str]) -> None:
    """F12: after a restart with another address the listener is at the new one, and only there; a program that
    registers again is not there twice."""
    registered(world, tokens[CHINA])
    assert used(world) == ["10.0.0.1"]
    daemon = world.daemon(default_address="10.0.0.9")
    world.run(1.0)
    assert used(world) == ["10.0.0.9"]
    world.wait(daemon.register(LocalRegister(CHINA, 2028, tokens[CHINA], pid=1)))
    assert used(world) == ["10.0.0.9"]


def test_an_address_that_the_program_named_stays(world: Hosts, tokens: dict[str, str]) -> None:
    """The program knows better where it listens."""
    registered(world, tokens[CHINA], "10.0.0.1")
    world.daemon(default_address="10.0.0.9")
    world.run(1.0)
    assert used(world) == ["10.0.0.1"]


def test_the_address_changes_while_the_agent_runs(world: Hosts, tokens: dict[str, str]) -> None:
    """DHCP, another network, and back again: within a look the listener has moved; without a network it stays."""
    network = Network("10.0.0.1")
    registered(world, tokens[CHINA], network=network)
    for address, expected in (("", "10.0.0.1"), ("10.0.0.7", "10.0.0.7"), ("10.0.0.1", "10.0.0.1")):
        network.address = address
        world.run(LOOK_SECONDS + 1.0)
        assert used(world) == [expected]


def test_a_program_deregisters_by_the_address_that_it_knows(world: Hosts, tokens: dict[str, str]) -> None:
    """The program knows the first address and epoch; load and deregistration reach the listener where it is now."""
    network = Network("10.0.0.1")
    known = registered(world, tokens[CHINA], network=network)
    for address in ("10.0.0.7", "10.0.0.8"):
        network.address = address
        world.run(LOOK_SECONDS + 1.0)
    daemon = world.hosts["h1"].daemon
    loaded = world.wait(daemon.report_load(LocalLoad(CHINA, 2028, tokens[CHINA], 0.5, known.address)))
    assert isinstance(loaded, Outcome) and loaded.address == "10.0.0.8"
    ended = world.wait(daemon.deregister(LocalDeregister(CHINA, 2028, tokens[CHINA], known.address, known.epoch)))
    assert isinstance(ended, Outcome) and ended.state == "offline"
    assert used(world) == []


def test_the_end_of_the_process_is_that_of_the_moved_listener(world: Hosts, tokens: dict[str, str]) -> None:
    """The watch of the process and the connection that holds a registration move, too."""
    network = Network("10.0.0.1")
    daemon = world.daemon(find_address=network.find)
    world.processes["h1"].start(7)
    world.wait(daemon.register(LocalRegister(CHINA, 2028, tokens[CHINA], pid=7)))
    held = world.wait(daemon.register(LocalRegister(CHINA, 2029, tokens[CHINA], hold=True)))
    assert isinstance(held, Outcome)
    network.address = "10.0.0.7"
    world.run(LOOK_SECONDS + 1.0)
    assert used(world) == ["10.0.0.7", "10.0.0.7"]
    world.processes["h1"].kill(7)
    world.run(1.0)
    assert used(world) == ["10.0.0.7"]
    daemon.released(held)
    world.run(1.0)
    assert used(world) == []


def test_a_move_without_a_server_is_delivered_later(world: Hosts, tokens: dict[str, str]) -> None:
    """The journal has both halves, also after a restart of the agent."""
    network = Network("10.0.0.1")
    registered(world, tokens[CHINA], network=network)
    world.fall()
    network.address = "10.0.0.7"
    world.run(LOOK_SECONDS + 1.0)
    world.daemon(find_address=network.find)
    world.serve()
    world.until(lambda: used(world) == ["10.0.0.7"], 60.0)


def test_the_way_to_a_server_says_the_address() -> None:
    """The kernel's own answer: on the way to the loopback it is the loopback; names and garbage are left out."""
    assert find_address(["gns1.example.net", "", "127.0.0.9"]) == "127.0.0.1"
    assert find_address(["::1"]) in ("::1", find_address([]))
