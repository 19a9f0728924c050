"""Listeners that died are counted as lost, and so are services that have lost all of theirs."""

from __future__ import annotations

import random

from compass.model.replies import ServerStatus
from compass.model.requests import Deregister, Incident, Purge, Status
from compass.server.commit.row_counts import RowCounts
from compass.server.queries.status import _states
from tests.server.conftest import Uss
from tests.server.push.test_publisher import CHINA, register
from tests.support.virtual_world import Client, SimulatedServer

NORTH = "northeast.openuss"


def counts_of(server: SimulatedServer) -> RowCounts:
    """The counts, after a comparison with those of the whole catalogue."""
    replica = server.nameserver.components.committer.replica
    whole = RowCounts()
    whole.restart(replica.catalogue)
    kept = replica.counts
    assert +kept.listeners == +whole.listeners and +kept.incidents == +whole.incidents and kept.rows == whole.rows
    assert kept.lost_services == whole.lost_services
    return kept


def end(world: Uss, host: Client, service: str, port: int, epoch: int, *, died: bool) -> None:
    """Deregister a listener, or report its death."""
    host.ask(Deregister(service, world.tokens[service], "192.168.2.1", port, epoch, died=died))


def test_a_listener_that_died_is_lost_until_it_is_registered_or_purged(world: Uss) -> None:
    """Deaths and deregistrations differ in status and metrics; the state of the protocol stays `offline`."""
    server = world.server()
    store = world.client(("host", "store1"))
    for port in (1, 2, 3):
        register(world, store, port=port, epoch=port)
    end(world, store, CHINA, 1, 1, died=True)
    end(world, store, CHINA, 2, 2, died=False)
    kept = counts_of(server)
    assert +kept.listeners == {"up": 1, "died": 1, "offline": 1} and not kept.lost_services
    status = world.admin().ask(Status())
    assert isinstance(status, ServerStatus)
    assert (status.states, status.died, status.lost_services) == ({"up": 1, "offline": 2}, 1, 0)
    tally = server.nameserver.https.metrics()
    assert (tally.listeners["died"], tally.listeners["offline"]) == (1, 1)
    register(world, store, port=1, epoch=10)
    assert +counts_of(server).listeners == {"up": 2, "offline": 1}
    end(world, store, CHINA, 1, 10, died=True)
    world.run(100.0)
    world.admin().ask(Purge(60.0))
    assert +counts_of(server).listeners == {"up": 1}


def test_a_service_without_a_listener_is_lost_if_one_died(world: Uss) -> None:
    """The last death makes it lost; a backup that has a listener is said; a deregistration alone loses nothing."""
    server = world.server()
    store = world.client(("host", "store1"))
    register(world, store, port=1, epoch=1)
    register(world, store, port=2, epoch=2)
    register(world, store, service=NORTH, port=3, epoch=3)
    end(world, store, NORTH, 3, 3, died=False)
    end(world, store, CHINA, 1, 1, died=True)
    assert not counts_of(server).lost_services
    end(world, store, CHINA, 2, 2, died=True)
    assert counts_of(server).lost_services == {CHINA}
    assert server.nameserver.https.metrics().services_lost == {"none": 1}
    register(world, store, service="emergency.rescue", port=4, epoch=4)
    assert server.nameserver.https.metrics().services_lost == {"backup": 1}
    register(world, store, port=2, epoch=5)
    assert not counts_of(server).lost_services


def test_counts_of_random_histories_are_those_of_the_catalogue(world: Uss) -> None:
    """Whatever the order of registrations, deaths, deregistrations, purges and incidents of others."""
    server, dice = world.server(), random.Random(7)
    store = world.client(("host", "store1"))
    components = server.nameserver.components
    for epoch in range(1, 120):
        service, port = dice.choice([CHINA, NORTH]), dice.randint(1, 4)
        match dice.randint(0, 5):
            case 0 | 1:
                register(world, store, service=service, port=port, epoch=epoch)
            case 2 | 3:
                end(world, store, service, port, epoch, died=dice.random() < 0.7)
            case 4:
                store.transport.loseConnection()
                world.run(61.0)
                world.admin().ask(Purge(60.0))
                store = world.client(("host", "store1"))
            case _:
                text = dice.choice(["", "something else"])
                components.committer.submit(Incident("failure cap of openuss", text), components.identity.principal)
        kept = counts_of(server)
        assert sum(_states(kept.listeners).values()) == kept.rows.get("listener", 0)
