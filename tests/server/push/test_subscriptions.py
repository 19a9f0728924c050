"""Subscriptions: what a server knows of a host when the host watches, and when it watches again (P3, P12)."""

from __future__ import annotations

from typing import Any

from compass.model.replies import HostLag, Watching
from compass.model.requests import Lag, Watch
from tests.server.conftest import Uss
from tests.server.push.test_publisher import register, watcher


def lag_of(world: Uss, host: str) -> HostLag:
    """Return what a server says of a host."""
    lags: dict[str, HostLag] = {lag.host: lag for lag in world.admin().ask(Lag()).hosts}
    return lags[host]


def test_a_host_that_resumes_holds_the_revision_that_it_resumes_from(world: Uss) -> None:
    """P12: also a server that was restarted knows before the first acknowledgement what the host holds and misses."""
    server = world.server()
    store = world.client(("host", "store1"))
    held: Any = watcher(world, "web1", "portal.web").watching
    first = register(world, store, port=1).revision
    register(world, store, port=2)
    server.crash()
    world.server()
    client = world.client(("host", "web1"))
    client.acknowledging = False
    resumed = client.ask(Watch(("portal.web",), store=held.store, since=first))
    assert isinstance(resumed, Watching) and resumed.snapshot is None
    lag = lag_of(world, "web1")
    assert (lag.acknowledged, lag.pending, lag.status) == (first, 1, "ok")


def test_a_host_that_watches_again_has_no_gap_any_longer(world: Uss) -> None:
    """P4: a host that reports a gap watches again; the snapshot that it is sent ends the gap, not its progress."""
    world.server()
    client = watcher(world, "web1", "portal.web")
    revision = register(world, world.client(("host", "store1"))).revision
    world.run(0.1)
    client.connection.acknowledge(revision - 1, "gap")
    client.flush()
    world.run(0.1)
    assert lag_of(world, "web1").status == "gap"
    again = client.ask(Watch(("portal.web",)))
    assert isinstance(again, Watching) and again.snapshot is not None
    lag = lag_of(world, "web1")
    assert (lag.acknowledged, lag.status) == (revision - 1, "ok")


def test_a_host_cannot_acknowledge_more_than_there_is(world: Uss) -> None:
    """P12: "A server counts an `acknowledge` of a larger revision than its own as one of its own revision": what comes
    later is missed again."""
    world.server()
    client, store = watcher(world, "web1", "portal.web"), world.client(("host", "store1"))
    client.acknowledging = False
    revision = register(world, store, port=1).revision
    client.connection.acknowledge(revision + 1000)
    client.flush()
    world.run(0.1)
    assert (lag_of(world, "web1").acknowledged, lag_of(world, "web1").pending) == (revision, 0)
    register(world, store, port=2)
    assert (lag_of(world, "web1").acknowledged, lag_of(world, "web1").pending) == (revision, 1)


def test_a_host_that_only_registers_may_watch_for_no_service(world: Uss) -> None:
    """`services` "may be empty, and is for a host that only registers listeners"."""
    world.server()
    tool = watcher(world, "tool1")
    assert tool.watching.snapshot is not None and not tool.watching.snapshot.topics
    register(world, tool)
    assert lag_of(world, "tool1").session and not tool.pushed
