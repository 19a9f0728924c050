"""Hosts that hold a later revision than the store: nothing older is shown to them, and administrators are alerted."""

from __future__ import annotations

import pytest

from compass.model.interfaces import StoreUnavailable
from compass.model.replies import Refusal, Watching
from compass.model.requests import Attend, Put, Watch
from compass.model.rows import Category
from compass.model.rules.draft import Principal
from tests.server.conftest import Uss
from tests.support.virtual_world import Client

ALERT = "failure past of gns1"


@pytest.fixture
def uss(world: Uss) -> Uss:
    """A deployment whose server serves."""
    world.wait(world.server().started)
    return world


def watch(world: Uss, client: Client, since: int) -> Refusal | Watching:
    reply = client.ask(Watch(("portal.web",), world.servers["gns1"].nameserver.components.identity.store, since))
    assert isinstance(reply, Refusal | Watching)
    return reply


def alerts(world: Uss) -> set[str]:
    return set(world.servers["gns1"].nameserver.catalogue.alerts)


def hosts(world: Uss, *names: str) -> list[Client]:
    return [world.client(("host", name)) for name in names]


def test_a_host_is_not_shown_an_older_state_than_it_holds(uss: Uss) -> None:
    """W12: "a host's `since` beyond the server's revision of the same store is proof": it is refused, keeps what it
    knows, and administrators hear of it; other hosts are served."""
    one, two = hosts(uss, "web1", "web2")
    assert isinstance(watch(uss, one, 0), Watching)
    later = uss.store.load().revision + 50
    refused = watch(uss, two, later)
    assert isinstance(refused, Refusal) and refused.code == "store-unavailable" and refused.retry_after_seconds
    assert f"holds revision {later} of this store" in refused.message
    assert alerts(uss) == {ALERT}
    assert isinstance(watch(uss, hosts(uss, "web3")[0], 0), Watching)
    assert uss.store.load().revision < later


def test_one_host_cannot_stop_the_servers(uss: Uss) -> None:
    """A revision can be invented: whatever one host claims, others are served and changes are committed."""
    liar, one, two = hosts(uss, "liar", "web1", "web2")
    assert isinstance(watch(uss, one, 0), Watching)
    for number in range(5):
        assert isinstance(watch(uss, liar, 10_000 + number), Refusal)
    assert isinstance(watch(uss, two, 0), Watching)
    assert not isinstance(uss.admin().ask(Put(Category("new"), create=True)), Refusal)


def test_a_store_that_most_hosts_know_later_is_no_longer_served(uss: Uss) -> None:
    """The store went back in time: nothing is committed to it, hosts that hold less are not served the past either, and
    no server starts on it until it has a new id."""
    one, two, three = hosts(uss, "web1", "web2", "web3")
    later = uss.store.load().revision + 50
    for client in (one, two):
        assert isinstance(watch(uss, client, later), Refusal)
    refused = watch(uss, three, 0)
    assert isinstance(refused, Refusal) and "store new-id" in refused.message
    with pytest.raises(StoreUnavailable, match=f"it has been at revision {later}"):
        uss.store.load()
    changed = uss.admin().ask(Put(Category("new"), create=True))
    assert isinstance(changed, Refusal) and changed.code == "store-unavailable"


def test_a_server_that_lags_catches_up_before_it_judges(uss: Uss) -> None:
    """A host that comes from another server holds what this one has not read yet."""
    other = uss.server("gns2")
    uss.wait(other.started)
    uss.wait(other.nameserver.commits.submit(Attend("web9", (), "", 0), Principal("server", "gns2", "")))
    since = other.nameserver.catalogue.revision
    assert isinstance(watch(uss, hosts(uss, "web1")[0], since), Watching)
    assert alerts(uss) == set()
