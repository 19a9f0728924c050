"""Metrics of a whole server on virtual time: they agree with what an administrator can ask for."""

from __future__ import annotations

from collections import Counter

from compass.model.interfaces import StoreUnavailable
from compass.model.replies import Refusal, ServerStatus
from compass.model.requests import Deregister, Fetch, Register, Status
from compass.model.rows import SecurityEntry
from compass.model.rules.draft import Principal
from tests.server.conftest import Uss
from tests.server.push.test_publisher import CHINA, register, watcher
from tests.support.virtual_world import Client, SimulatedServer


def serving(world: Uss) -> SimulatedServer:
    """A server that has loaded its catalogue."""
    server = world.server()
    world.until(lambda: server.nameserver.https.ready() is not None)
    return server


def test_a_server_that_has_not_loaded_says_so(world: Uss) -> None:
    """Before the catalogue is loaded only an administrator may read the metrics."""
    server = SimulatedServer(world, "gns1", (0.1, 0.2))
    starting = server.start()
    tally = server.nameserver.https.metrics()
    assert (tally.ready, tally.store_reachable, tally.revision, dict(tally.listeners)) == (False, False, 0, {})
    refused = server.nameserver.https.may_look(Principal("viewer", "grafana.gns-viewer", ""))
    assert isinstance(refused, Refusal) and refused.code == "not-ready"
    assert server.nameserver.https.may_look(Principal("admin", "alice", "")) is None
    world.wait(starting)
    assert server.nameserver.https.metrics().ready


def test_who_may_look_is_who_may_ask_for_the_status(world: Uss) -> None:
    """P11: a viewer may read the metrics, a host may not, and its refusal is in the security log."""
    server = serving(world)
    assert server.nameserver.https.may_look(Principal("viewer", "grafana.gns-viewer", "")) is None
    noted = server.nameserver.https.metrics().security_entries
    refused = server.nameserver.https.may_look(Principal("host", "web1", ""))
    assert isinstance(refused, Refusal) and refused.code == "forbidden"
    assert server.nameserver.https.metrics().security_entries == noted + 1


def test_the_metrics_agree_with_the_status(world: Uss) -> None:
    """After registrations, a refusal and a lost session: rows, states, sessions, requests and refusals agree."""
    server = world.server()
    user = watcher(world, "web1", "portal.web")
    store = world.client(("host", "store1"))
    for port in (1, 2, 3):
        register(world, store, port=port, epoch=port)
    assert isinstance(store.ask(Register(CHINA, "wrong", "192.168.2.1", 4, 9)), Refusal)
    store.transport.loseConnection()
    world.run(1.0)
    admin = world.admin()
    status, tally = admin.ask(Status()), server.nameserver.https.metrics()
    assert isinstance(status, ServerStatus)
    assert {kind: tally.rows.get(kind, 0) for kind in status.counts} == status.counts
    assert +Counter(dict(tally.listeners)) == Counter(status.states) == Counter(up=3)
    assert dict(tally.sessions) == {"host": 1, "admin": 1, "unknown": 0}
    assert (tally.watching, tally.revision) == (1, status.revision)
    assert tally.requests["register"] == 4 and tally.requests["watch"] == 1
    assert dict(tally.refusals) == {"bad-credential": 1}
    assert tally.changes["register"] == 3
    assert sum(tally.commit_seconds.counts) == sum(tally.commit_batch_size.counts) == tally.commits > 3
    assert tally.notices >= tally.deliveries == len(user.pushed) == 3
    assert tally.roster_revisions_behind == {"gns1": 0} and tally.known_servers == {"keeper": 1}


def test_the_lag_of_push_is_from_the_commit_to_each_acknowledgement(world: Uss) -> None:
    """Each dependant's acknowledgement is one figure; a notice that one of them does not acknowledge is still open."""
    server = world.server()
    quick, slow = watcher(world, "web1", "portal.web"), watcher(world, "web2", "portal.web")
    quick.acknowledging = slow.acknowledging = False
    register(world, world.client(("host", "store1")))
    world.until(lambda: bool(quick.pushed and slow.pushed))
    revision = quick.pushed[0].change.revision
    acknowledge(quick, revision)
    world.run(2.0)
    tally = server.nameserver.https.metrics()
    assert (tally.hosts_awaited, sum(tally.push_lag_seconds.counts)) == (1, 1) and tally.push_lag_open_seconds > 1.9
    assert tally.push_lag_seconds.total < 0.5
    # What the last beat has seen.
    assert tally.hosts_lagging == 1
    acknowledge(slow, revision)
    world.run(0.1)
    tally = server.nameserver.https.metrics()
    assert (tally.hosts_awaited, sum(tally.push_lag_seconds.counts), tally.push_lag_open_seconds) == (0, 2, 0.0)
    assert 1.9 < tally.push_lag_seconds.total < 2.8


def acknowledge(client: Client, revision: int) -> None:
    """Acknowledge a revision."""
    client.connection.acknowledge(revision)
    client.flush()


def test_requests_over_https_count_too(world: Uss) -> None:
    """A refusal over HTTPS counts like one over OpenGNSP."""
    server = serving(world)
    viewer = Principal("viewer", "grafana.gns-viewer", "")
    world.wait(server.nameserver.https.ask_as(viewer, Fetch("service", within="no-such")))
    world.wait(server.nameserver.https.ask_as(viewer, Register(CHINA, "x", "192.168.2.1", 4, 9)))
    tally = server.nameserver.https.metrics()
    assert tally.requests["fetch"] >= 1 and tally.requests["register"] == 1
    assert sum(tally.refusals.values()) >= 1


def test_an_outage_of_the_store_is_shown(world: Uss) -> None:
    """The metrics show the outage, the requests and entries that wait, and the pending suspicions."""
    server = serving(world)
    store = world.client(("host", "store1"))
    register(world, store)
    server.thread.failing = StoreUnavailable("connection refused")
    store.send(Register(CHINA, world.tokens[CHINA], "192.168.2.1", 9, 9))
    store.send(Deregister(CHINA, world.tokens[CHINA], "192.168.2.1", 2028, 1))
    server.nameserver.commits.log_security(SecurityEntry(0, 1.0, "connect", "", "{}", "192.0.2.1", "nobody", "why"))
    world.run(1.0)
    tally = server.nameserver.https.metrics()
    assert (tally.store_reachable, tally.ready) == (False, True)
    assert (tally.commit_queue_length, tally.security_notes_waiting, tally.suspicions_told) == (2, 1, 1)
    server.thread.failing = None
    world.run(5.0)
    tally = server.nameserver.https.metrics()
    assert (tally.store_reachable, tally.commit_queue_length, tally.security_notes_waiting, tally.suspicions_told) == (
        True,
        0,
        0,
        0,
    )
