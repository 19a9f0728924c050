"""Group commit: answered means committed, in one order, with one refusal for what was not (P1, P2)."""

from __future__ import annotations

from typing import Any

import pytest

from compass.model.catalogue.catalogue import Catalogue, catalogue_of
from compass.model.catalogue.octets import metadata_octets
from compass.model.interfaces import BatchRefused, StoreUnavailable
from compass.model.replies import Refusal, Registered, Watching
from compass.model.requests import Deregister, Register, Status, Watch
from compass.model.rows import Change
from compass.server.commit import committer, request_queue
from tests.server.conftest import Uss
from tests.server.push.test_publisher import CHINA, register, watcher
from tests.support.virtual_world import ADMIN


def committed(world: Uss) -> Catalogue:
    loaded = world.store.load()
    return catalogue_of(loaded.rows, loaded.topics, loaded.revision)


def replayed(world: Uss) -> Catalogue:
    catalogue = Catalogue()
    for change in world.store.changes_after(0, 100_000):
        catalogue = catalogue.apply(change)
    return catalogue


def test_a_reply_means_committed(world: Uss) -> None:
    """P1: whatever moment the server is killed at, every answered change is in the store."""
    server = world.server()
    client = world.client(("host", "store1"))
    asked = [client.send(Register(CHINA, world.tokens[CHINA], "192.168.2.1", 1000 + n, 1)) for n in range(200)]
    world.until(lambda: len(client.replies) > 20)
    answered = {number for number in asked if isinstance(client.replies.get(number), Registered)}
    server.crash()
    there = {row.port for row in committed(world).listeners[CHINA].values()}
    assert {1000 + asked.index(number) for number in answered} <= there
    assert len(answered) < 200


def test_requests_that_wait_are_committed_together(world: Uss, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one batch is written the next gathers: 200 requests at once need few transactions."""
    server = world.server()
    world.wait(server.started)
    transactions: list[int] = []
    commit = world.store.commit

    def counting(expected: int, changes: list[Change], *logs: Any) -> None:
        transactions.append(len(changes))
        commit(expected, changes, *logs)

    monkeypatch.setattr(world.store, "commit", counting)
    client = world.client(("host", "store1"))
    for port in range(1, 201):
        client.send(Register(CHINA, world.tokens[CHINA], "192.168.2.1", port, 1))
    world.until(lambda: len(client.replies) == 200)
    assert sum(transactions) == 200
    assert len(transactions) < 20


def test_a_transaction_is_bounded_in_octets(world: Uss, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction ends with the request that reaches the octets; what waits comes in the next ones, in order."""
    octets = metadata_octets({"k": "v" * 100})
    world.wait(world.server().started)
    queue = request_queue.RequestQueue(world.clock, world.servers["gns1"].nameserver.commits._access)
    for port in range(1, 11):
        queue.put(Register(CHINA, "", "192.168.2.1", port, 1, metadata={"k": "v" * 100}), ADMIN)
    queue.put(Deregister(CHINA, "", "192.168.2.1", 1, 2), ADMIN)
    sizes = [len(queue.take(100, 3 * octets)), len(queue.take(100, 3 * octets + 1)), len(queue.take(2, 9 * octets))]
    assert sizes == [3, 4, 2] and len(queue.take(100, octets + 1)) == 2 and not queue.take(100, 1)
    queue.stop()
    monkeypatch.setattr(committer, "BATCH_OCTETS_MAX", octets)
    client = world.client(("host", "store1"))
    for port in range(1, 31):
        client.send(Register(CHINA, world.tokens[CHINA], "192.168.2.1", port, 1, metadata={"k": "v" * 100}))
    world.until(lambda: len(client.replies) == 30)
    batches = world.servers["gns1"].nameserver.commits.writer.counts["batches"]
    assert len(committed(world).listeners[CHINA]) == 30 and batches >= 30


def test_two_servers_over_one_store_keep_one_gap_free_order(world: Uss) -> None:
    """P2: the fence lets one of two writers through; the other applies what it missed and decides again."""
    servers = [world.server("gns1"), world.server("gns2")]
    for server in servers:
        world.wait(server.started)
    clients = [world.client(("host", "store1"), "gns1"), world.client(("host", "store2"), "gns2")]
    for port in range(1, 101):
        for number, client in enumerate(clients):
            client.send(Register(CHINA, world.tokens[CHINA], f"192.168.2.{number + 1}", port, 1))
    world.until(lambda: all(len(client.replies) == 100 for client in clients))
    assert all(isinstance(reply, Registered) for client in clients for reply in client.replies.values())
    given = [reply.revision for client in clients for reply in client.replies.values()]  # type: ignore[union-attr]
    assert len(set(given)) == 200
    assert replayed(world) == committed(world)
    world.run(2.0)
    for server in servers:
        assert server.nameserver.catalogue == committed(world)


def test_both_servers_push_what_either_committed(world: Uss) -> None:
    """A change that one server reads from the log is pushed to its own sessions like one of its own."""
    for name in ("gns1", "gns2"):
        world.wait(world.server(name).started)
    client = world.client(("host", "web1"), "gns2")
    client.ask(Watch(("portal.web",)))
    register(world, world.client(("host", "store1"), "gns1"), port=1)
    assert world.until(lambda: len(client.pushed) == 1) < 1.5
    register(world, world.client(("host", "store1"), "gns1"), port=2)
    register(world, world.client(("host", "store2"), "gns2"), port=3)
    world.until(lambda: len(client.pushed) == 3)
    assert [notice.change.row.port for notice in client.pushed] == [1, 2, 3]


def test_a_server_that_fell_behind_a_trimmed_log_reloads(world: Uss) -> None:
    """P2: what it missed is not in the log any more, so it loads the tables, and its hosts get snapshots."""
    ahead, behind = world.server("gns1"), world.server("gns2")
    for server in (ahead, behind):
        world.wait(server.started)
    client = world.client(("host", "web1"), "gns2")
    held = client.ask(Watch(("portal.web",)))
    behind.thread.failing = StoreUnavailable("cut off")
    store = world.client(("host", "store1"), "gns1")
    for port in range(1, 30):
        register(world, store, port=port)
    world.store.trim(5, 5)
    behind.thread.failing = None
    world.until(lambda: client.ended is not None)
    world.until(lambda: behind.nameserver.catalogue == committed(world))
    again = world.client(("host", "web1"), "gns2")
    reply = again.ask(Watch(("portal.web",), store=world.store.load().store, since=held.revision))
    assert isinstance(reply, Watching) and reply.snapshot is not None


def test_writes_are_refused_and_reads_answered_while_the_store_is_unavailable(world: Uss) -> None:
    """Reads and pushes go on from memory; a write is refused with the time to try again, and nothing is lost."""
    server = world.server()
    world.wait(server.started)
    client, store = watcher(world, "web1", "portal.web"), world.client(("host", "store1"))
    server.thread.failing = StoreUnavailable("disk full")
    reply = register(world, store)
    assert isinstance(reply, Refusal) and reply.code == "store-unavailable"
    assert reply.retry_after_seconds == 1.0 and "disk full" in reply.message
    assert world.admin().ask(Status()).revision == committed(world).revision
    assert isinstance(watcher(world, "web2", "portal.web").watching.revision, int)
    server.thread.failing = None
    assert isinstance(register(world, store), Registered)
    world.until(lambda: bool(client.pushed))
    assert not server.nameserver.commits.outage


def test_a_commit_whose_answer_was_lost_is_found_out(world: Uss) -> None:
    """P1: the transaction got through although the store failed to say so; the request is answered, once."""
    server = world.server()
    world.wait(server.started)
    client, store = watcher(world, "web1", "portal.web"), world.client(("host", "store1"))
    server.thread.failing_after = StoreUnavailable("connection lost")
    reply = register(world, store)
    assert isinstance(reply, Registered)
    world.run(0.5)
    assert [notice.change.revision for notice in client.pushed] == [reply.revision]
    assert replayed(world) == committed(world) == server.nameserver.catalogue


def test_entries_for_the_security_log_outlive_a_store_outage(world: Uss) -> None:
    """G4: a refusal while the disk is full is in the log once there is room again."""
    server = world.server()
    world.wait(server.started)
    server.thread.failing = StoreUnavailable("disk full")
    stranger = world.stranger(("server", "stranger"))
    world.until(lambda: stranger.lost)
    world.run(1.0)
    server.thread.failing = None
    register(world, world.client(("host", "store1")))
    world.run(0.5)
    entries, _ = world.store.read_log("security", 0, 10, 0)
    assert [entry.operation for entry in entries] == ["connect"]


def test_one_request_that_can_never_be_stored_does_not_take_others_with_it(
    world: Uss, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value that the database refuses for good is refused to its asker; the rest of the batch is committed."""
    server = world.server()
    world.wait(server.started)
    commit = world.store.commit

    def picky(expected: int, changes: list[Change], *logs: Any) -> None:
        if any(getattr(change.row, "port", 0) == 13 for change in changes):
            raise BatchRefused("it does not like 13")
        commit(expected, changes, *logs)

    monkeypatch.setattr(world.store, "commit", picky)
    client = world.client(("host", "store1"))
    numbers = {p: client.send(Register(CHINA, world.tokens[CHINA], "192.168.2.1", p, 1)) for p in range(10, 16)}
    world.until(lambda: len(client.replies) == 6)
    codes = {port: getattr(client.replies[number], "code", "done") for port, number in numbers.items()}
    assert codes == {port: "bad-value" if port == 13 else "done" for port in numbers}
    assert replayed(world) == committed(world)


def test_the_queue_for_the_store_is_bounded(world: Uss, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: one request more than the limit is refused with a time to retry."""
    monkeypatch.setattr(request_queue, "WAITING_MAX", 3)
    server = world.server()
    world.wait(server.started)
    client = world.client(("host", "store1"))
    server.thread._latency_seconds = (1.0, 1.0)
    for port in range(1, 6):
        # The first is taken up at once, three wait, and the fifth is one too many.
        client.send(Register(CHINA, world.tokens[CHINA], "192.168.2.1", port, 1))
    world.until(lambda: len(client.replies) == 5)
    codes = [getattr(client.replies[number], "code", "done") for number in sorted(client.replies)]
    assert codes == ["done", "done", "done", "done", "busy"]


def test_a_defect_in_a_batch_is_refused_and_the_loop_continues(world: Uss, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unforeseen error ends in a refusal and a log entry, not in silence."""
    server = world.server()
    world.wait(server.started)
    client = world.client(("host", "store1"))
    server.thread.failing = ZeroDivisionError("a defect")
    reply = register(world, client)
    assert isinstance(reply, Refusal) and "its log says how" in reply.message
    server.thread.failing = None
    assert isinstance(register(world, client), Registered)
