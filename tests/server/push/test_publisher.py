"""Push: exactly the dependants get each change, once, in order, resumable (G5, G8, P3, P4)."""

from __future__ import annotations

from typing import Any

from compass.model.replies import Refusal, Registered, Watching
from compass.model.requests import Deregister, IssueCredential, Lag, Put, Register, Remove, Watch
from compass.model.rows import Category, Dependency, Listener, Service
from compass.server.push import publisher
from compass.wire.messages import Bookmark
from tests.server.conftest import Uss
from tests.support.virtual_world import Client

CHINA = "chinaserver.openuss"


def register(world: Uss, client: Client, service: str = CHINA, port: int = 2028, epoch: int = 1) -> Any:
    return client.ask(Register(service, world.tokens[service], "192.168.2.1", port, epoch))


def watcher(world: Uss, name: str, *services: str, **fields: Any) -> Client:
    client = world.client(("host", name))
    reply = client.ask(Watch(services, **fields))
    assert isinstance(reply, Watching), reply
    client.watching = reply
    return client


def revisions(client: Client) -> list[int]:
    return [message.change.revision for message in client.pushed if hasattr(message, "change")]


def test_a_registration_reaches_exactly_the_dependants(world: Uss) -> None:
    """Dependants of openuss get one notice; hosts of openuso and of openuss itself receive no byte about it."""
    world.server()
    users = [watcher(world, f"web{n}", "portal.web") for n in range(3)]
    others = [watcher(world, "uso", "account.openuso"), watcher(world, "uss", CHINA), watcher(world, "none")]
    heard = [client.octets for client in others]
    register(world, world.client(("host", "store1")))
    world.until(lambda: all(user.pushed for user in users))
    world.run(1.0)
    assert [len(user.pushed) for user in users] == [1, 1, 1]
    change = users[0].pushed[0].change
    assert (change.operation, change.row.service, change.row.state) == ("register", CHINA, "up")
    assert [client.octets for client in others] == heard


def test_dependants_of_a_category_know_its_backup_service(world: Uss) -> None:
    """The backup is known beforehand: its listeners are in the snapshot, and their changes are pushed."""
    world.server()
    client = watcher(world, "web1", "portal.web")
    register(world, world.client(("host", "rescue1")), "emergency.rescue")
    world.until(lambda: bool(client.pushed))
    late = watcher(world, "web2", "portal.web")
    rows = late.watching.snapshot.rows
    assert [row.service for row in rows if isinstance(row, Listener)] == ["emergency.rescue"]


def test_one_encoding_serves_all_dependants(world: Uss) -> None:
    """Each change is encoded once: what two dependants receive is the same, octet by octet."""
    world.server()
    users = [watcher(world, f"web{n}", "portal.web") for n in range(2)]
    before = [user.octets for user in users]
    register(world, world.client(("host", "store1")))
    world.until(lambda: all(user.pushed for user in users))
    assert users[0].pushed == users[1].pushed
    assert len({user.octets - heard for user, heard in zip(users, before, strict=True)}) == 1


def test_a_host_resumes_from_its_revision(world: Uss) -> None:
    """P3 resumable: what happened while it was away is replayed, in order, and no snapshot is sent."""
    world.server()
    store = world.client(("host", "store1"))
    client = watcher(world, "web1", "portal.web")
    register(world, store, port=1)
    world.until(lambda: len(client.pushed) == 1)
    since = client.pushed[0].change.revision
    client.transport.loseConnection()
    missed = [register(world, store, port=port).revision for port in (2, 3, 4)]
    again = watcher(world, "web1", "portal.web", since=since, store=client.watching.store)
    world.until(lambda: len(again.pushed) == 3)
    assert again.watching.snapshot is None
    assert revisions(again) == missed


def test_a_host_resumes_after_a_restart_of_the_server(world: Uss) -> None:
    """The replay buffer is filled from the log at start, so hosts resume across a restart."""
    server = world.server()
    store = world.client(("host", "store1"))
    client = watcher(world, "web1", "portal.web")
    first = register(world, store, port=1).revision
    register(world, store, port=2)
    server.crash()
    world.server()
    again = watcher(world, "web1", "portal.web", since=first, store=client.watching.store)
    world.until(lambda: bool(again.pushed))
    assert again.watching.snapshot is None
    assert len(again.pushed) == 1


def test_after_a_restart_a_host_does_not_resume_across_a_changed_dependency(world: Uss) -> None:
    """The audiences before the change are unknown after a restart, so the server sends a snapshot."""
    server = world.server()
    client = watcher(world, "web1", "portal.web")
    since = client.watching.revision
    admin = world.admin()
    admin.ask(Put(Dependency("openuso", "openuss"), True))
    server.crash()
    world.server()
    again = watcher(world, "web1", "portal.web", since=since, store=client.watching.store)
    assert again.watching.snapshot is not None


def test_revisions_of_another_store_are_not_resumed(world: Uss) -> None:
    """A host that held another deployment's data gets a snapshot of this one."""
    world.server()
    client = watcher(world, "web1", "portal.web", since=3, store="elsewhere")
    assert client.watching.snapshot is not None


def test_a_new_dependency_brings_what_it_needs_along(world: Uss) -> None:
    """The notice of a dependency carries the category with services and listeners, so no host has to ask again."""
    world.server()
    register(world, world.client(("host", "store1")))
    client = watcher(world, "uso", "account.openuso")
    world.admin().ask(Put(Dependency("openuso", "openuss"), True))
    world.until(lambda: bool(client.pushed))
    widened = client.pushed[0].snapshot
    assert {"openuss", CHINA, "emergency.rescue"} <= set(widened.topics)
    assert any(isinstance(row, Listener) and row.service == CHINA for row in widened.rows)
    register(world, world.client(("host", "store2")), port=2)
    world.until(lambda: len(client.pushed) == 2)


def test_gap_evidence_each_notice_names_the_one_before_it_on_its_topic(world: Uss) -> None:
    """P4: a receiver detects from what it received that something is missing."""
    world.server()
    client = watcher(world, "web1", "portal.web")
    at = dict(client.watching.snapshot.topics)
    store = world.client(("host", "store1"))
    for epoch in (1, 2, 3):
        register(world, store, epoch=epoch)
        register(world, store, "account.openuso", epoch=epoch)
    world.until(lambda: len(client.pushed) == 6)
    for notice in client.pushed:
        change = notice.change
        assert change.previous == at[change.row.service]
        at[change.row.service] = change.revision


def test_notices_are_acknowledged_and_lag_shows_who_holds_what(world: Uss) -> None:
    """P12, first form: for each host its revision, and how many notices it has not acknowledged."""
    world.server()
    quick, silent = watcher(world, "web1", "portal.web"), watcher(world, "web2", "portal.web")
    silent.acknowledging = False
    revision = register(world, world.client(("host", "store1"))).revision
    world.run(1.0)
    lags = {lag.host: lag for lag in world.admin().ask(Lag()).hosts}
    assert (lags["web1"].acknowledged, lags["web1"].pending, lags["web1"].session) == (revision, 0, True)
    assert (lags["web2"].pending, lags["web2"].status) == (0, "unknown")
    quick.connection.acknowledge(revision, "gap")
    quick.flush()
    world.run(0.1)
    assert {lag.host: lag.status for lag in world.admin().ask(Lag()).hosts}["web1"] == "gap"


def test_a_host_that_does_not_acknowledge_is_disconnected_and_gets_it_again(world: Uss) -> None:
    """G11: without an acknowledgement the session ends; the host reconnects and gets the notice again."""
    world.server()
    client = watcher(world, "web1", "portal.web")
    client.acknowledging = False
    register(world, world.client(("host", "store1")))
    world.until(lambda: client.ended is not None, 15.0)
    assert client.ended is not None and "acknowledgement" in client.ended.reason
    since = client.watching.revision
    again = watcher(world, "web1", "portal.web", since=since, store=client.watching.store)
    world.until(lambda: bool(again.pushed))
    assert revisions(again) == revisions(client)


def test_a_newer_session_of_a_host_replaces_the_older(world: Uss) -> None:
    """A host that reconnects before its old session is lost gets each notice once, on the new session."""
    world.server()
    old = watcher(world, "web1", "portal.web")
    new = watcher(world, "web1", "portal.web")
    world.until(lambda: old.ended is not None)
    register(world, world.client(("host", "store1")))
    world.until(lambda: bool(new.pushed))
    assert not old.pushed


def test_a_session_may_watch_again_for_other_services(world: Uss) -> None:
    """The new watch replaces the old one on the same session."""
    world.server()
    client = watcher(world, "web1", "portal.web")
    assert isinstance(client.ask(Watch(("account.openuso",))), Watching)
    register(world, world.client(("host", "store1")))
    world.run(0.5)
    assert not client.pushed
    assert isinstance(client.ask(Watch(("account.openuso", "portal.web"))), Watching)
    register(world, world.client(("host", "store1")), port=9)
    world.until(lambda: bool(client.pushed))


def test_watching_an_unknown_service_is_reported_and_works_later(world: Uss) -> None:
    """P5: `unknown` is not `empty`."""
    world.server()
    client = watcher(world, "web1", "blog.web", "portal.web")
    assert client.watching.unknown == ("blog.web",)
    world.admin().ask(Put(Service("blog.web"), True))
    world.until(lambda: bool(client.pushed))
    assert client.pushed[0].change.row == Service("blog.web")


def test_bookmarks_move_quiet_hosts_on(world: Uss, monkeypatch: Any) -> None:
    """A host that no change concerns can still resume: bookmarks say up to which revision everything was sent."""
    monkeypatch.setattr(publisher, "BOOKMARK_EVERY", 10)
    world.server()
    quiet = watcher(world, "uso", "account.openuso")
    store = world.client(("host", "store1"))
    for epoch in range(1, 12):
        register(world, store, epoch=epoch)
    world.until(lambda: bool(quiet.pushed))
    assert isinstance(quiet.pushed[0], Bookmark) and quiet.pushed[0].revision % 10 == 0


def test_the_tail_is_bounded_and_beyond_it_a_snapshot_is_sent(world: Uss, monkeypatch: Any) -> None:
    """P10: the notices kept in memory have a limit; a host that missed more reads a snapshot."""
    monkeypatch.setattr(publisher, "TAIL_MAX", 5)
    world.server()
    store = world.client(("host", "store1"))
    made = [register(world, store, epoch=epoch).revision for epoch in range(1, 8)]
    held = world.store.load().store
    # Five notices are kept, those after the second: a host at the second resumes, a host at the first cannot.
    assert watcher(world, "web1", "portal.web", since=made[1], store=held).watching.snapshot is None
    assert watcher(world, "web1", "portal.web", since=made[0], store=held).watching.snapshot is not None


def test_more_than_a_replay_s_worth_comes_as_a_snapshot(world: Uss, monkeypatch: Any) -> None:
    """A long replay is larger than the snapshot it leads to."""
    monkeypatch.setattr(publisher, "REPLAY_MAX", 3)
    world.server()
    store = world.client(("host", "store1"))
    made = [register(world, store, epoch=epoch).revision for epoch in range(1, 6)]
    held = world.store.load().store
    assert watcher(world, "web1", "portal.web", since=made[1], store=held).watching.snapshot is None
    assert watcher(world, "web1", "portal.web", since=made[0], store=held).watching.snapshot is not None


def test_a_removed_category_s_last_notices_still_reach_its_dependants(world: Uss) -> None:
    """Dependants get the removal of a service and then that of a dependency."""
    world.server()
    admin = world.admin()
    client = watcher(world, "web1", "portal.web")
    admin.ask(Remove("service", "account.openuso"))
    admin.ask(Remove("dependency", "web openuso"))
    admin.ask(Remove("category", "openuso"))
    world.run(0.5)
    assert [notice.change.operation for notice in client.pushed] == ["service-remove", "dependency-remove"]
    assert not isinstance(admin.ask(Put(Category("openuso"), True)), Refusal)


def test_credentials_are_pushed_to_no_host(world: Uss) -> None:
    """Issuing a token moves the revision and reaches no host."""
    world.server()
    client = watcher(world, "web1", "portal.web")
    world.admin().ask(IssueCredential(CHINA))
    world.run(0.5)
    assert not client.pushed


def test_a_deregistration_reaches_dependants_with_its_reply(world: Uss) -> None:
    """G6: the answer to a deregistration and the notice of it leave the server together."""
    world.server()
    store, client = world.client(("host", "store1")), watcher(world, "web1", "portal.web")
    assert isinstance(register(world, store), Registered)
    store.ask(Deregister(CHINA, world.tokens[CHINA], "192.168.2.1", 2028, 1))
    world.until(lambda: len(client.pushed) == 2)
    assert client.pushed[1].change.row.state == "offline"
