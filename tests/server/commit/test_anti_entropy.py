"""Differences planted on purpose: they are found, reported once, and healed (opengnsp.md, "Digests")."""

from __future__ import annotations

import msgspec
import pytest
from immutables import Map

from compass.model.catalogue.catalogue import Catalogue, catalogue_of
from compass.model.catalogue.digest import digest_of_rows, to_hex
from compass.model.replies import CatalogueDigest, Refusal
from compass.model.requests import Digest
from compass.model.rows import Alert, Change
from compass.server.commit import digest_index
from compass.server.commit.anti_entropy import COMPARE_EVERY_SECONDS, QUIET_SECONDS, RECOUNT_EVERY_SECONDS
from compass.wire.messages import Bookmark
from tests.server.conftest import Uss
from tests.server.push.test_publisher import CHINA, register, watcher
from tests.support.virtual_world import SimulatedHost, SimulatedServer


def stored(world: Uss) -> Catalogue:
    loaded = world.store.load()
    return catalogue_of(loaded.rows, loaded.topics, loaded.revision)


def spoiled(catalogue: Catalogue) -> Catalogue:
    """Return a catalogue as after a flipped bit of memory: a listener has another weight."""
    row = catalogue.listeners[CHINA]["192.168.2.1", 2028]
    return catalogue.with_row(msgspec.structs.replace(row, weight=4711))


def spoil(server: SimulatedServer, *, counted: bool) -> None:
    """A server holds something else; `counted`: its digest is that of what it holds, as after a lost change."""
    replica = server.nameserver.commits.replica
    replica.catalogue = spoiled(replica.catalogue)
    if counted:
        replica.digests.restart(replica.catalogue)


def weights(host: SimulatedHost) -> list[int]:
    """Return the weight of the one listener as the host's programs see it."""
    held = host.replica.catalogue.listeners.get(CHINA, Map())
    return [row.weight for row in held.values()]


def incidents(world: Uss) -> list[str]:
    return sorted(stored(world).alerts)


@pytest.fixture
def two(world: Uss) -> Uss:
    """Two servers over one store, a host at the second one, and one listener."""
    for name in ("gns1", "gns2"):
        world.wait(world.server(name).started)
    register(world, world.client(("host", "store1"), "gns1"))
    host = world.host("h1", servers=("gns2",))
    host.daemon.dependencies("portal.web")
    world.until(lambda: weights(host) == [1])
    return world


def test_the_store_has_the_digest_of_its_rows_after_every_commit(two: Uss) -> None:
    """After a commit of any server the digest is the sum of the rows, and every server answers the same."""
    register(two, two.client(("host", "store2"), "gns2"), port=2)
    two.run(1.0)
    loaded = two.store.load()
    assert loaded.digest == to_hex(digest_of_rows(loaded.rows))
    for name in ("gns1", "gns2"):
        told = two.admin(name).ask(Digest())
        assert isinstance(told, CatalogueDigest)
        assert (told.store, told.revision, told.digest) == (loaded.store, loaded.revision, loaded.digest)


def test_a_server_returns_the_digest_at_a_revision_that_it_remembers(two: Uss, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers are compared while both go on; n revisions are remembered, and n + 1 are too long ago."""
    monkeypatch.setattr(digest_index, "REMEMBERED_MAX", 3)
    one, other = two.admin("gns1"), two.admin("gns2")
    for port in (1, 2, 3):
        register(two, two.client(("host", "store1"), "gns1"), port=port)
    two.run(1.0)
    now = one.ask(Digest())
    assert isinstance(now, CatalogueDigest)
    for revision in range(now.revision - 2, now.revision + 1):
        told = [client.ask(Digest(revision)) for client in (one, other)]
        assert told[0].digest == told[1].digest and told[0].server != told[1].server
    for revision in (now.revision - 3, now.revision + 1):
        refused = one.ask(Digest(revision))
        assert isinstance(refused, Refusal) and refused.code == "bad-value"


def test_a_server_with_corrupt_memory_recounts_and_takes_over_the_tables(two: Uss) -> None:
    """The digest was updated correctly, but the rows are others: the recount finds it, and the hosts get the rows."""
    server, host = two.servers["gns2"], two.hosts["h1"]
    spoil(server, counted=False)
    host.replica.catalogue = spoiled(host.replica.catalogue)
    two.run(COMPARE_EVERY_SECONDS + 1)
    assert server.nameserver.catalogue != stored(two)
    two.run(RECOUNT_EVERY_SECONDS)
    assert server.nameserver.catalogue.listeners == stored(two).listeners
    two.until(lambda: weights(host) == [1])
    assert all(b"gns2 held other rows than the store" in news for news in server.news)


def test_a_server_that_differs_from_the_store_s_word_takes_the_tables(two: Uss) -> None:
    """This is so after a lost change: the next comparison of what another server committed finds it; the incident is
    reported once and is over when both agree."""
    spoil(two.servers["gns2"], counted=True)
    assert two.until(lambda: incidents(two) == ["failure digest of gns2"]) < COMPARE_EVERY_SECONDS + 1
    assert two.servers["gns2"].nameserver.catalogue.listeners == stored(two).listeners
    two.until(lambda: incidents(two) == [])
    two.run(60.0)
    assert [news.split(b'"event":"')[1][:6] for news in two.servers["gns2"].news] == [b"opened", b"resolv"]
    assert not two.servers["gns1"].nameserver.catalogue.alerts


def test_a_server_that_committed_with_a_wrong_digest_is_found_by_the_others(two: Uss) -> None:
    """Only it commits, so it finds its own word in the store: the other one leaves word that it must look."""
    wrong, right = two.servers["gns2"], two.servers["gns1"]
    spoil(wrong, counted=True)
    register(two, two.client(("host", "store2"), "gns2"), port=7)
    assert two.store.load().digest != to_hex(digest_of_rows(two.store.load().rows))
    two.until(lambda: wrong.nameserver.catalogue.listeners == stored(two).listeners)
    two.run(2 * COMPARE_EVERY_SECONDS)
    assert two.store.digest().digest == to_hex(digest_of_rows(two.store.load().rows))
    assert right.nameserver.catalogue == wrong.nameserver.catalogue == stored(two)
    assert weights(two.hosts["h1"]) == [1, 1]


def by_hand(world: Uss, statement: str) -> None:
    world.store._transaction(lambda connection: connection.exec_driver_sql(statement), writes=True)


def test_damaged_rows_are_rebuilt_from_the_log(two: Uss) -> None:
    """W13: rows that are not what was committed are never adopted. A server that starts finds that the digest is not
    theirs, and the log knows what they were, also of a row that is missing; administrators hear of it."""
    before = stored(two)
    by_hand(two, "UPDATE listener SET weight = 9")
    by_hand(two, "DELETE FROM dependency")
    two.wait(two.server("gns3").started)
    two.until(lambda: stored(two).listeners == before.listeners and stored(two).needs == before.needs)
    two.run(2 * COMPARE_EVERY_SECONDS)
    for server in two.servers.values():
        assert server.nameserver.catalogue == stored(two)
    assert weights(two.hosts["h1"]) == [1]
    told = [change.row for change in two.store.changes_after(0, 1000) if isinstance(change.row, Alert)]
    texts = {alert.text for alert in told if alert.id == "failure digest of gns3"}
    assert any(
        "rows of the store were damaged" in text and "rebuilt them from the update log" in text for text in texts
    )
    assert two.store.load().digest == to_hex(digest_of_rows(two.store.load().rows))
    assert incidents(two) == []


def test_damaged_rows_that_the_log_does_not_know_are_never_confirmed(two: Uss) -> None:
    """W13: without their entries in the log the digest stays what it was, through commits and restarts, and the
    incident stays open until an administrator decides."""
    two.store.trim(0, 10)
    by_hand(two, "UPDATE listener SET weight = 9")
    two.wait(two.server("gns3").started)
    two.until(lambda: "failure digest of gns3" in incidents(two))
    assert "store repair --accept" in stored(two).alerts["failure digest of gns3"].text
    register(two, two.client(("host", "store2"), "gns3"), port=7)
    two.run(3 * COMPARE_EVERY_SECONDS)
    assert two.store.load().digest not in ("", to_hex(digest_of_rows(two.store.load().rows)))
    assert "failure digest of gns3" in incidents(two)


def test_a_wrong_digest_is_corrected_if_the_log_confirms_the_rows(two: Uss) -> None:
    """The log has an entry of every row, and says the same as the tables."""
    by_hand(two, f"UPDATE clock SET digest = '{'0' * 64}'")
    two.wait(two.server("gns3").started)
    two.until(lambda: two.store.load().digest == to_hex(digest_of_rows(two.store.load().rows)))
    two.run(2 * COMPARE_EVERY_SECONDS)
    assert incidents(two) == [] and weights(two.hosts["h1"]) == [1]


def test_a_host_with_other_rows_takes_a_snapshot_and_an_incident_is_raised(two: Uss) -> None:
    """The host learns it from the digest that follows the reply to its next watch, and answers lookups meanwhile."""
    host = two.hosts["h1"]
    host.replica.catalogue = spoiled(host.replica.catalogue)
    two.run(5.0)
    assert weights(host) == [4711]
    two.network.cut("h1", "gns2")
    two.until(lambda: weights(host) == [1], 60.0)
    two.until(lambda: incidents(two) == ["failure digest of hosts of gns2"])
    [news] = two.servers["gns2"].news
    assert b"host h1 held other rows at revision" in news
    two.run(QUIET_SECONDS + 1)
    assert incidents(two) == []


def test_a_server_makes_sure_of_itself_before_it_answers_a_host_that_differs(two: Uss) -> None:
    """The host is right and the server is wrong: the host is never given what the server wrongly held."""
    host, server = two.hosts["h1"], two.servers["gns2"]
    spoil(server, counted=True)
    seen: list[list[int]] = []
    two.network.cut("h1", "gns2")
    for _ in range(400):
        two.run(0.01)
        seen.append(weights(host))
    assert all(held == [1] for held in seen)
    assert server.nameserver.catalogue.listeners == stored(two).listeners


def test_only_hosts_that_compare_are_sent_digests(world: Uss, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 1: "A server must send digests only to a host that named the version it sends"."""
    monkeypatch.setattr("compass.server.push.publisher.BOOKMARK_EVERY", 1)
    world.wait(world.server().started)
    clients = [watcher(world, f"web{version}", "portal.web", digest=version) for version in (0, 1, 2)]
    register(world, world.client(("host", "store1")))
    world.run(1.0)
    found = [[one for one in client.pushed if isinstance(one, Bookmark)] for client in clients]
    assert all(found)
    assert [{bool(mark.digest) for mark in one} for one in found] == [{False}, {True}, {False}]
    last = {one[-1].revision for one in found}
    assert last == {world.servers["gns1"].nameserver.catalogue.revision}


def test_a_commit_by_a_server_that_knows_no_digests_is_completed(two: Uss) -> None:
    """P13: during an upgrade the older server leaves the digest of its revisions unsaid; a newer one says it."""
    change = stored(two).listeners[CHINA]["192.168.2.1", 2028]
    revision = stored(two).revision
    request = msgspec.structs.replace(change, weight=3)
    two.store.commit(revision, [Change(revision + 1, stored(two).topics[CHINA], 5.0, "register", request)], [], [])
    assert two.store.digest().digest == ""
    two.run(COMPARE_EVERY_SECONDS + 1)
    assert two.store.digest().digest == to_hex(digest_of_rows(two.store.load().rows))
    assert weights(two.hosts["h1"]) == [3]
    assert incidents(two) == []
