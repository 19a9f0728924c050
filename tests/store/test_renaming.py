"""Renamings on both engines: one transaction, and after a restart the same catalogue."""

from __future__ import annotations

import pytest

from compass.model.catalogue.catalogue import catalogue_of
from compass.model.interfaces import BatchRefused
from compass.model.requests import Attend, Put, Rename
from compass.model.rows import Category, Change, Dependency, Listener
from compass.store.store import Store
from tests.support.catalogue_rows import SERVER, World
from tests.support.catalogue_rows import store as some_catalogue


def rich_world() -> World:
    """A category with everything that refers to its name: a backup of itself and of another, credentials, an offline
    listener, a host."""
    world = some_catalogue().add(Dependency("store", "store"), Dependency("store", "help"))
    world.ask(Put(Category("store", "b.store")))
    world.ask(Put(Category("help", "a.store")))
    world.token("a.store")
    world.in_state("offline")
    world.ask(Attend("h1.example", ("a.store", "www.web"), "", 0), SERVER)
    return world


def commit(store: Store, world: World, *requests: Rename) -> list[Change]:
    """Decide the requests, and commit all of their changes as one batch. Returns the changes."""
    before = world.catalogue.revision
    for request in requests:
        world.ask(request)
        assert world.last.changes, world.last.reply
    changes = world.changes[before:]
    store.commit(before, changes, [], [])
    return changes


@pytest.mark.parametrize(
    "requests",
    [
        (Rename("store", "shop"),),
        (Rename("a.store", "c.store"), Rename("store", "shop")),
        (Rename("store", "shop", "begin"), Rename("store", "shop", "end")),
        (Rename("store", "shop"), Rename("shop", "store")),
        (Rename("help", "store2"), Rename("web", "portal"), Rename("store", "help"), Rename("store2", "web")),
    ],
)
def test_a_renaming_is_in_the_tables_as_in_memory(store: Store, requests: tuple[Rename, ...]) -> None:
    """P1, P2: several in one batch as well, also of names that are used again; the log has each change."""
    world = rich_world()
    store.commit(0, world.changes, [], [])
    changes = commit(store, world, *[Rename(one.name, one.to, one.step, force=True) for one in requests])
    loaded = store.load()
    assert catalogue_of(loaded.rows, loaded.topics, loaded.revision) == world.catalogue
    assert store.changes_after(changes[0].revision - 1, len(changes) + 1) == changes


def test_a_renaming_is_all_or_nothing(store: Store) -> None:
    """P1: when one row cannot be written, the old name has everything."""
    world = rich_world()
    store.commit(0, world.changes, [], [])
    before = world.catalogue
    world.ask(Rename("store", "shop"))
    stray = Change(world.catalogue.revision + 1, 0, 1.0, "register", Listener("no.such", "192.0.2.1", 1, "up", 1.0, 1))
    with pytest.raises(BatchRefused):
        store.commit(before.revision, [*world.last.changes, stray], [], [])
    loaded = store.load()
    assert catalogue_of(loaded.rows, loaded.topics, loaded.revision) == before
