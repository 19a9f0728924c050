"""Queries in memory: pull, fetch, impact; the audience of a change; the listeners that a user gets."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.interest import added_topics, audience, interest, snapshot
from compass.model.limits import FETCH_LIMIT_MAX
from compass.model.replies import CategoryView, Dependencies, Rows, ServiceView, Told
from compass.model.requests import Attend, Deregister, Fetch, Impact, Pull, Put, Remove
from compass.model.rows import Alert, Category, Credential, Dependency, Host, Listener, Row, Service, State
from compass.model.selection.selector import Selector
from tests.support.catalogue_rows import HOST, NOW, SERVER, World, drain, store


def test_a_pull_has_every_dependency_with_its_listeners_and_backup() -> None:
    """G7: 2 categories of 3 services with 3 listeners each come back exactly, with the revision."""
    world = store().add(Category("auth"), Dependency("web", "auth"))
    world.ask(Put(Category("store", "spare.help")))
    world.up("spare.help")
    for category in ("auth", "store"):
        for name in ("a", "b", "c"):
            if world.catalogue.service(f"{name}.{category}") is None:
                world.add(Service(f"{name}.{category}"))
            for port in (3, 1, 2):
                world.up(f"{name}.{category}", f"10.0.0.1:{port}")
    pulled = world.get(Dependencies, Pull("WWW.web"), HOST)
    assert (pulled.service, pulled.revision) == ("www.web", world.catalogue.revision)
    assert [view.category for view in pulled.categories] == ["auth", "store"]
    for view in pulled.categories:
        assert [shown.id for shown in view.services] == [f"{name}.{view.category}" for name in "abc"]
        assert all([peer.port for peer in shown.listeners] == [1, 2, 3] for shown in view.services)
    assert (pulled.categories[0].backup, pulled.categories[0].backup_listeners) == ("", ())
    assert pulled.categories[1].backup_listeners == (world.listener("spare.help"),)


@pytest.mark.parametrize("state", ["up", "slow", "suspect", "down", "draining", "offline"])
def test_a_pull_shows_every_state_but_offline(state: State) -> None:
    """A pull does not contain deregistered listeners."""
    world = store().in_state(state)
    (view,) = world.get(Dependencies, Pull("www.web")).categories
    assert view.services[0] == ServiceView("a.store", () if state == "offline" else (world.listener("a.store"),))


def test_no_such_name_and_nothing_registered_are_two_answers() -> None:
    """P5: unknown category, unknown service, service without dependencies, dependency without listeners."""
    world = store()
    assert world.code(Pull("x.none")) == "unknown-category"
    assert world.code(Pull("x.web")) == "unknown-service"
    assert world.code(Pull("web")) == "bad-name"
    assert world.get(Dependencies, Pull("a.store")).categories == ()
    assert world.get(Dependencies, Pull("www.web")).categories == (
        CategoryView("store", (ServiceView("a.store"), ServiceView("b.store"))),
    )


def everything() -> World:
    """Return a catalogue with at least one row of each kind."""
    world = store()
    world.ask(Put(Category("store", "spare.help")))
    world.up("a.store", "10.0.0.2:1")
    world.up("a.store", "10.0.0.1:2")
    world.up("b.store", "[2001:db8::1]:1")
    world.token("a.store")
    world.ask(Attend("h1", ("www.web",), "", 0), SERVER)
    world.ask(Attend("h2", ("a.store",), "", 0), SERVER)
    world.ask(Deregister("b.store", "", "2001:db8::1", 1, 1, died=True))
    return world


def fetched(world: World, **fields: object) -> list[str]:
    """The names of the rows."""
    rows = world.get(Rows, msgspec.structs.replace(Fetch("host"), **fields)).rows
    return [name_of(row) for row in rows]


def name_of(row: Row) -> str:
    match row:
        case Listener():
            return f"{row.service} {row.port}"
        case Dependency():
            return f"{row.category} {row.on}"
        case Category() | Host():
            return row.name
        case Credential():
            return row.service
        case Service() | Alert():
            return row.id


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"kind": "category"}, ["help", "store", "web"]),
        ({"kind": "service"}, ["a.store", "b.store", "spare.help", "www.web"]),
        ({"kind": "service", "within": "store"}, ["a.store", "b.store"]),
        ({"kind": "service", "name": "a.store"}, ["a.store"]),
        ({"kind": "dependency"}, ["web store"]),
        ({"kind": "dependency", "within": "store"}, ["web store"]),
        ({"kind": "dependency", "name": "web store"}, ["web store"]),
        ({"kind": "dependency", "within": "help"}, []),
        ({"kind": "listener"}, ["a.store 2", "a.store 1", "b.store 1"]),
        ({"kind": "listener", "within": "a.store"}, ["a.store 2", "a.store 1"]),
        ({"kind": "listener", "within": "alice"}, ["a.store 2", "a.store 1", "b.store 1"]),
        ({"kind": "listener", "state": "offline"}, ["b.store 1"]),
        ({"kind": "listener", "name": "a.store 10.0.0.1:2"}, ["a.store 2"]),
        ({"kind": "listener", "name": "b.store [2001:db8::1]:1"}, ["b.store 1"]),
        ({"kind": "credential"}, ["a.store"]),
        ({"kind": "credential", "within": "store"}, ["a.store"]),
        ({"kind": "host"}, ["h1", "h2"]),
        ({"kind": "host", "within": "store"}, []),
        ({"kind": "host", "state": "up"}, []),
        ({"kind": "alert"}, ["failure b.store [2001:db8::1]:1"]),
        ({"kind": "listener", "limit": 1}, ["a.store 2"]),
        ({"kind": "listener", "limit": 2, "after": 1}, ["a.store 1", "b.store 1"]),
        ({"kind": "listener", "after": -5, "limit": 1}, ["a.store 2"]),
        ({"kind": "listener", "after": 9}, []),
    ],
)
def test_fetching_rows(fields: dict[str, object], names: list[str]) -> None:
    """Rows are in the order of their keys, and are selected by name, by place, by state, and page by page."""
    assert fetched(everything(), **fields) == names


def test_a_page_says_how_many_there_are() -> None:
    """The limit at its ends; no digest is shown."""
    world = everything()
    rows = world.get(Rows, Fetch("listener", limit=1))
    assert (rows.total, rows.revision) == (3, world.catalogue.revision)
    for limit in (0, FETCH_LIMIT_MAX + 1):
        assert world.code(Fetch("listener", limit=limit)) == "bad-value"
    (credential,) = world.get(Rows, Fetch("credential", limit=FETCH_LIMIT_MAX)).rows
    assert isinstance(credential, Credential) and credential.digest == "" and credential.id


def test_impact_says_who_would_be_told() -> None:
    """Impact knows a category, a service, a listener and a backup, and refuses an unknown name."""
    world = everything()
    revision = world.catalogue.revision
    told = Told("a.store", revision, ("web",), ("www.web",), ("h1",))
    assert world.get(Told, Impact("a.store")) == told
    assert world.get(Told, Impact("a.store 10.0.0.1:2")) == msgspec.structs.replace(told, name="a.store 10.0.0.1:2")
    assert world.get(Told, Impact("spare.help")) == msgspec.structs.replace(
        told, name="spare.help", backup_of=("store",)
    )
    assert world.get(Told, Impact("store")) == Told(
        "store", revision, ("store", "web"), ("a.store", "b.store", "www.web"), ("h1", "h2")
    )
    for name, code in (
        ("none", "unknown-category"),
        ("x.store", "unknown-service"),
        ("a.store 10.0.0.9:1", "unknown-listener"),
        ("a.store x", "bad-address"),
        ("_", "bad-name"),
    ):
        assert world.code(Impact(name)) == code


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (Listener("a.store", "10.0.0.1", 1, "up", NOW, 1), {"web"}),
        (Listener("www.web", "10.0.0.1", 1, "up", NOW, 1), set()),
        (Listener("spare.help", "10.0.0.1", 1, "up", NOW, 1), {"web"}),
        (Service("a.store"), {"web", "store"}),
        (Service("www.web"), {"web"}),
        (Category("store"), {"web", "store"}),
        (Dependency("web", "store"), {"web"}),
        (Credential("1", "a.store", "", NOW), set()),
        (Host("h"), set()),
        (Alert("a", "slow", NOW, ""), set()),
    ],
)
def test_the_audience_of_a_change(row: Row, told: set[str]) -> None:
    """G8: dependants receive changes of their dependencies and of the backups; hosts receive no credentials, hosts or
    alerts."""
    assert audience(everything().catalogue, row) == told


def test_what_a_host_must_know() -> None:
    """A host's interest is its own categories, those they depend on with their services, and the backups (P7)."""
    catalogue = everything().catalogue
    assert interest(catalogue, ["www.web"]) == {"web", "store", "a.store", "b.store", "spare.help"}
    assert interest(catalogue, ["a.store"]) == {"store"}
    assert interest(catalogue, ["x.unknown"]) == {"unknown"}
    assert interest(catalogue, []) == frozenset()


def test_a_snapshot_covers_topics_without_rows() -> None:
    """P5: an empty topic says so; one that never was has revision 0; offline listeners are not in it."""
    world = everything()
    part = snapshot(world.catalogue, ["b.store", "unknown"])
    assert part.topics == {"b.store": world.catalogue.topics["b.store"], "unknown": 0}
    assert part.rows == [Service("b.store")] and part.revision == world.catalogue.revision


def test_a_change_that_widens_brings_what_it_widens_to() -> None:
    """A dependency adds a category with services and backup for its members; a backup adds its service for dependants.

    G8: dependants of a category do not receive that category's dependencies.
    """
    world = everything()
    world.add(Category("portal"), Dependency("portal", "help"), Dependency("help", "store"))
    more = added_topics(world.catalogue, world.changes[-1])
    assert more is not None and more[0] == {"store", "a.store", "b.store", "spare.help"}
    assert more[1] == {"help"}
    world.ask(Put(Category("help", "a.store")))
    more = added_topics(world.catalogue, world.changes[-1])
    assert more is not None and more == ({"a.store"}, frozenset({"portal"}))
    world.ask(Put(Category("help")))
    assert added_topics(world.catalogue, world.changes[-1]) is None
    world.ask(Remove("dependency", "help store"))
    assert added_topics(world.catalogue, world.changes[-1]) is None
    world.up("a.store", epoch=9)
    assert added_topics(world.catalogue, world.changes[-1]) is None


def ports(catalogue: Catalogue, name: str) -> tuple[str, set[int]]:
    choice = Selector(Random(1).random).choose(catalogue, name)
    return choice.source, {peer.port for peer in choice.listeners}


def test_users_are_given_the_best_there_is() -> None:
    """G10: the usable; else the backup's; else the draining; else the suspected; never what is down."""
    world = store()
    world.ask(Put(Category("store", "spare.help")))
    assert ports(world.catalogue, "a.store") == ("none", set())
    world.in_state("down", at="10.0.0.1:1").in_state("offline", at="10.0.0.1:2")
    assert ports(world.catalogue, "a.store") == ("none", set())
    world.in_state("suspect", at="10.0.0.1:3")
    assert ports(world.catalogue, "a.store") == ("suspect", {3})
    world.in_state("draining", at="10.0.0.1:4")
    assert ports(world.catalogue, "a.store") == ("draining", {4})
    world.up("spare.help", "10.0.0.1:9")
    world.ask(drain("spare.help", "10.0.0.1:9"))
    assert ports(world.catalogue, "a.store") == ("draining", {4})
    world.ask(drain("spare.help", "10.0.0.1:9", False))
    assert ports(world.catalogue, "a.store") == ("backup", {9}) == ports(world.catalogue, "b.store")
    world.ask(Put(Category("store")))
    world.in_state("slow", at="10.0.0.1:5")
    assert ports(world.catalogue, "a.store") == ("service", {5})
    world.up("a.store", "10.0.0.1:6")
    world.up("b.store", "10.0.0.1:7")
    assert ports(world.catalogue, "a.store") == ("service", {5, 6})
    assert ports(world.catalogue, "store") == ("service", {5, 6, 7})
    assert ports(world.catalogue, "none") == ports(world.catalogue, "x.none") == ("none", set())
