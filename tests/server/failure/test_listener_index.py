"""Listeners by host: each is under the one host that it runs on, so that only that host's lost session concerns it."""

from __future__ import annotations

import msgspec
import pytest

from compass.model.replies import Deregistered, Registered
from compass.model.requests import Deregister, Register, Watch
from compass.model.rows import ListenerKey
from compass.server import components
from compass.server.failure.listener_index import ListenerIndex
from tests.server.conftest import Uss
from tests.server.push.test_publisher import CHINA

FIRST: ListenerKey = (CHINA, "192.168.2.1", 2028)
SECOND: ListenerKey = (CHINA, "192.168.2.2", 2028)


def test_a_host_has_its_listeners_in_order() -> None:
    """A host without listeners has none, and is not listed."""
    index = ListenerIndex()
    index.add(SECOND, "store1", 1)
    index.add(FIRST, "store1", 1)
    index.add(SECOND, "store1", 1)
    assert list(index.of("store1")) == [SECOND, FIRST]
    assert list(index.of("store2")) == []
    assert index.hosts == ["store1"]
    assert FIRST in index


def test_a_listener_that_changes_its_host_leaves_the_old_one() -> None:
    """The old host keeps its other listeners; without any it is no longer listed."""
    index = ListenerIndex()
    index.add(FIRST, "store1", 1)
    index.add(SECOND, "store1", 1)
    index.add(FIRST, "store2", 1)
    assert list(index.of("store1")) == [SECOND] and list(index.of("store2")) == [FIRST]
    index.add(SECOND, "store2", 1)
    assert index.hosts == ["store2"]


def test_a_listener_that_ends_is_not_indexed() -> None:
    """A listener that is removed, or has no host, is under none; removing it twice does nothing."""
    index = ListenerIndex()
    index.add(FIRST, "store1", 1)
    index.add(SECOND, "store1", 1)
    index.remove(FIRST)
    index.remove(FIRST)
    index.add(SECOND, "", 1)
    assert FIRST not in index and SECOND not in index
    assert index.hosts == []
    index.add(FIRST, "store1", 1)
    index.clear()
    assert FIRST not in index and index.hosts == []


def test_the_detector_forgets_a_listener_that_ends(world: Uss, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: hosts that register and deregister for years leave nothing in the index."""
    indexes: list[ListenerIndex] = []

    def new_index() -> ListenerIndex:
        indexes.append(ListenerIndex())
        return indexes[-1]

    monkeypatch.setattr(components, "ListenerIndex", new_index)
    world.wait(world.server().started)
    client = world.client(("host", "store1"))
    assert isinstance(client.ask(Register(*_of(world), 1)), Registered)
    assert FIRST in indexes[0]
    assert isinstance(client.ask(Deregister(*_of(world), 1)), Deregistered)
    assert FIRST not in indexes[0] and indexes[0].hosts == []


@pytest.mark.parametrize("ends", [False, True])
def test_a_lost_host_does_not_concern_a_listener_that_runs_elsewhere_now(world: Uss, ends: bool) -> None:
    """A newer instance on another host took over the address: the old host's lost session leads to no probe of it."""
    server = world.server()
    world.wait(server.started)
    old, new = world.client(("host", "store1")), world.client(("host", "store2"))
    registration = Register(*_of(world), 1)
    assert isinstance(old.ask(registration), Registered)
    if ends:
        assert isinstance(old.ask(Deregister(*_of(world), 1)), Deregistered)
    assert isinstance(new.ask(msgspec.structs.replace(registration, epoch=2)), Registered)
    for client in (old, new):
        client.ask(Watch((CHINA,)))
    world.network.cut("store1", "gns1")
    world.run(60.0)
    assert server.probed == []
    world.network.cut("store2", "gns1")
    world.until(lambda: FIRST[1:] in server.probed, 60.0)


def _of(world: Uss) -> tuple[str, str, str, int]:
    return (CHINA, world.tokens[CHINA], *FIRST[1:])
