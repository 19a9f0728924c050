"""Writes wait a bounded time, reads and pushes continue (opengnsp.md, "Store outages")."""

from __future__ import annotations

from typing import Any

import pytest

from compass.model.interfaces import StoreUnavailable
from compass.model.replies import LogEntries, Refusal, Registered, Rows, Watching
from compass.model.requests import Deregister, Fetch, ReadLog, Register, Status, Watch
from compass.server.commit import log_reader, store_access
from tests.server.commit.test_committer import committed, replayed
from tests.server.conftest import Uss
from tests.server.push.test_publisher import CHINA, register, watcher
from tests.support.virtual_world import Client, SimulatedServer

WAIT = store_access.STORE_WAIT_SECONDS


@pytest.fixture
def server(world: Uss) -> SimulatedServer:
    """A server that has started."""
    started = world.server()
    world.wait(started.started)
    return started


@pytest.fixture(params=["failing", "hanging"])
def away(request: pytest.FixtureRequest, server: SimulatedServer) -> Any:
    """The outage: the store refuses, or it does not answer at all."""

    class Away:
        how = request.param

        def leave(self) -> None:
            if self.how == "failing":
                server.thread.failing = StoreUnavailable("connection refused")
            else:
                server.thread.hanging = True

        def come_back(self) -> None:
            server.thread.failing = None
            server.thread.go_on()

    return Away()


def seconds_of(world: Uss, client: Client, request: Any) -> tuple[Any, float]:
    """A reply, and how long it took."""
    began = world.clock.seconds()
    return client.ask(request), world.clock.seconds() - began


def test_a_write_waits_a_bounded_time_and_is_refused_with_a_time_to_retry(world: Uss, away: Any) -> None:
    """ "Writes wait a bounded time and then get a refusal that says so": after 3 s, with the reason and what to do."""
    store = world.client(("host", "store1"))
    away.leave()
    reply, taken = seconds_of(world, store, Register(CHINA, world.tokens[CHINA], "192.168.2.1", 1, 1))
    assert isinstance(reply, Refusal) and reply.code == "store-unavailable" and reply.retry_after_seconds == 1.0
    assert "within 3 s" in reply.message and "Ask again later" in reply.message
    assert "connection refused" in reply.message or "not answered" in reply.message
    assert WAIT <= taken < WAIT + 0.2


def test_a_store_that_comes_back_in_time_is_not_even_noticed(world: Uss, away: Any) -> None:
    """A database's restart of two seconds costs two seconds and no refusal; all are carried out, in their order."""
    store = world.client(("host", "store1"))
    away.leave()
    asked = [store.send(Register(CHINA, world.tokens[CHINA], "192.168.2.1", port, 1)) for port in range(1, 40)]
    asked.append(store.send(Deregister(CHINA, world.tokens[CHINA], "192.168.2.1", 39, 1)))
    world.run(2.0)
    assert not store.replies
    away.come_back()
    assert world.until(lambda: len(store.replies) == len(asked)) < 1.5
    revisions = [getattr(store.replies[number], "revision", 0) for number in asked]
    assert revisions == sorted(set(revisions)) and 0 not in revisions
    assert replayed(world) == committed(world)


def test_what_was_refused_before_it_began_is_never_carried_out_later(
    world: Uss, server: SimulatedServer, away: Any
) -> None:
    """A service that was refused may be elsewhere meanwhile: only what was under way can still be committed."""
    store = world.client(("host", "store1"))
    world.run(0.5)
    away.leave()
    store.send(Register(CHINA, world.tokens[CHINA], "192.168.2.1", 1, 1))
    world.run(0.5)
    for port in (2, 3):
        store.send(Register(CHINA, world.tokens[CHINA], "192.168.2.1", port, 1))
    world.until(lambda: len(store.replies) == 3)
    away.come_back()
    world.run(5.0)
    assert committed(world).listener(CHINA, "192.168.2.1", 2) is committed(world).listener(CHINA, "192.168.2.1", 3)
    assert server.nameserver.catalogue == committed(world)


def test_everything_that_needs_no_store_goes_on(world: Uss, server: SimulatedServer, away: Any) -> None:
    """ "Reads and pushes go on from memory": also for a host that comes just now, at once if it is a known one."""
    client, store = watcher(world, "web1", "portal.web"), world.client(("host", "store1"))
    register(world, store)
    world.until(lambda: bool(client.pushed))
    away.leave()
    world.run(10.0)
    admin = world.admin()
    status, taken = seconds_of(world, admin, Status())
    assert status.revision == committed(world).revision and taken < 0.5
    assert status.trouble, "administrators see that the store is unavailable"
    assert isinstance(admin.ask(Fetch("listener")), Rows)
    again = world.client(("host", "web1"))
    reply, taken = seconds_of(world, again, Watch(("portal.web",)))
    assert isinstance(reply, Watching) and taken < 0.5
    reply, taken = seconds_of(world, world.client(("host", "web9")), Watch(("portal.web",)))
    assert isinstance(reply, Watching) and taken < WAIT + 0.5
    away.come_back()
    world.run(2.0)
    assert isinstance(register(world, store, port=2), Registered)
    assert admin.ask(Status()).trouble == ""


def test_a_log_that_cannot_be_read_in_time_is_refused(world: Uss, away: Any) -> None:
    """A reader of the log waits no longer than a writer."""
    admin = world.admin()
    assert isinstance(admin.ask(ReadLog("updates")), LogEntries)
    away.leave()
    reply, taken = seconds_of(world, admin, ReadLog("updates"))
    assert isinstance(reply, Refusal) and reply.code == "store-unavailable" and reply.retry_after_seconds > 0
    assert taken < WAIT + 0.5


def test_looking_for_news_does_not_pile_up_while_the_store_hangs(world: Uss, server: SimulatedServer) -> None:
    """P10: an hour without an answer costs as much memory as a minute."""
    server.thread.hanging = True
    world.run(3600.0)
    assert len(server.nameserver.commits._catch_ups) < 10
    assert len(server.thread._queue) < 10
    server.thread.go_on()
    assert isinstance(register(world, world.client(("host", "store1"))), Registered)


def test_readers_of_a_log_do_not_pile_up_while_the_store_hangs(
    world: Uss, server: SimulatedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P10: what the store was asked it does all the same in the end, so one reader more than `READS_MAX` is refused at
    once; when the store goes on, readers are welcome again."""
    monkeypatch.setattr(log_reader, "READS_MAX", 2)
    admin = world.admin()
    world.run(1.0)
    server.thread.hanging = True
    waiting = [admin.send(ReadLog("updates")) for _ in range(2)]
    reply, taken = seconds_of(world, admin, ReadLog("updates"))
    assert isinstance(reply, Refusal) and "2 readers wait for it already" in reply.message and taken < 0.5
    assert not any(number in admin.replies for number in waiting)
    server.thread.go_on()
    world.until(lambda: all(number in admin.replies for number in waiting))
    assert isinstance(admin.ask(ReadLog("updates")), LogEntries)
