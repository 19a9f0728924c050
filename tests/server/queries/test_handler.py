"""Reads that never go back in time for a client that moves between servers (opengnsp.md, "Monotonic reads")."""

from __future__ import annotations

from typing import Any

import pytest

from compass.model.interfaces import StoreUnavailable
from compass.model.replies import Dependencies, Refusal, Registered, Rows, Told
from compass.model.requests import Fetch, Impact, Pull, Register
from compass.server.commit.store_access import STORE_WAIT_SECONDS
from tests.server.conftest import Uss
from tests.server.push.test_publisher import CHINA
from tests.support.virtual_world import SimulatedServer


@pytest.fixture
def behind(world: Uss) -> SimulatedServer:
    """Return the second of two servers, which has just read the store and does not know the first one's commit yet."""
    for name in ("gns1", "gns2"):
        world.wait(world.server(name).started)
    return world.servers["gns2"]


def registered(world: Uss) -> int:
    """Register at the first server. Returns the revision."""
    client = world.client(("host", "store1"), "gns1")
    reply = client.ask(Register(CHINA, world.tokens[CHINA], "192.168.2.1", 2028, 1))
    assert isinstance(reply, Registered)
    return reply.revision


def requests(world: Uss, seen: int, store: str = "") -> list[Any]:
    store = store or world.store.load().store
    return [Pull("portal.web", store, seen), Fetch("listener", store=store, seen=seen), Impact("openuss", store, seen)]


def test_a_lagging_server_reads_what_it_missed_before_it_answers(world: Uss, behind: SimulatedServer) -> None:
    """ "MUST NOT answer from what it holds": the client sees what the other server has shown, or more."""
    admin = world.admin("gns2")
    for kind in range(3):
        seen = registered(world) if not kind else world.store.load().revision
        reply = admin.ask(requests(world, seen)[kind])
        assert isinstance(reply, (Dependencies, Rows, Told)[kind]) and reply.revision >= seen
    rows = admin.ask(Fetch("listener"))
    assert [row.port for row in rows.rows] == [2028]


def test_without_a_revision_a_server_answers_what_it_has(world: Uss, behind: SimulatedServer) -> None:
    """An old client may be shown an older state than elsewhere; the field exists because of that."""
    admin = world.admin("gns2")
    registered(world)
    assert admin.ask(Fetch("listener")).revision < world.store.load().revision


@pytest.mark.parametrize("how", ["failing", "hanging"])
def test_a_server_that_cannot_read_says_so_in_time(world: Uss, behind: SimulatedServer, how: str) -> None:
    """ "When it cannot do so within `STORE_WAIT_SECONDS` it MUST refuse": the client goes to another server."""
    admin = world.admin("gns2")
    world.run(1.0)
    if how == "failing":
        behind.thread.failing = StoreUnavailable("connection refused")
    else:
        behind.thread.hanging = True
    seen = registered(world)
    for request in requests(world, seen):
        began = world.clock.seconds()
        reply = admin.ask(request)
        assert isinstance(reply, Refusal) and reply.code == "store-unavailable" and reply.retry_after_seconds > 0
        assert f"you have seen revision {seen}" in reply.message and "ask another server" in reply.message
        assert world.clock.seconds() - began < STORE_WAIT_SECONDS + 0.5
    assert isinstance(world.admin("gns1").ask(requests(world, seen)[0]), Dependencies)


def test_a_store_older_than_what_was_seen_is_reported(world: Uss, behind: SimulatedServer) -> None:
    """An older state was restored, or the number is invented: the server refuses, and shows no older state."""
    reply = world.admin("gns2").ask(requests(world, 1_000_000)[0])
    assert isinstance(reply, Refusal) and reply.code == "store-unavailable"
    assert f"the store is at {world.store.load().revision}" in reply.message


def test_what_was_seen_of_another_store_counts_for_nothing(world: Uss, behind: SimulatedServer) -> None:
    """Their revisions have nothing to do with each other."""
    for request in requests(world, 1_000_000, "another"):
        assert not isinstance(world.admin("gns2").ask(request), Refusal)
