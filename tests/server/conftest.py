"""Deployments on virtual time for the tests of the server; the SQL below them is real, on either engine.

`COMPASS_ENGINES=sqlite,postgresql` runs every test of the server on both (`make engines` does). Otherwise those of the
modules in `ON_BOTH` do, where the engine matters most, and the others run on SQLite in memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from compass.store import schema
from compass.store.store import Store
from tests.support.postgresql import PostgreSQL
from tests.support.virtual_world import World

ON_BOTH = ("test_committer",)
USS = {
    "web": ["portal.web", "forum.web", ">openuso", ">openuss"],
    "openuso": ["account.openuso"],
    "openuss": ["chinaserver.openuss", "northeast.openuss"],
    "rescue": ["emergency.rescue"],
}
"""The seed's own world."""


class Uss(World):
    """The seed's world with its tokens: `web` depends on `openuso` and `openuss`, which `emergency.rescue` backs."""

    def __init__(self, seed: int, directory: Path, store: str = "sqlite://") -> None:
        super().__init__(seed, directory, store)
        self.tokens = self.declare(USS, {"openuss": "emergency.rescue"})


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The engines that a test runs on."""
    if "engine" in metafunc.fixturenames:
        chosen = os.environ.get("COMPASS_ENGINES", "sqlite").split(",")
        both = metafunc.module.__name__.rpartition(".")[2] in ON_BOTH
        metafunc.parametrize("engine", ["sqlite", "postgresql"] if both else chosen)


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    """A store on a real PostgreSQL, made once; each test empties it."""
    server = PostgreSQL()
    url = server.new_url()
    Store.open(url).close()
    yield url
    server.remove()


@pytest.fixture
def url(engine: str, request: pytest.FixtureRequest) -> str:
    """An empty store on that engine."""
    if engine == "sqlite":
        return "sqlite://"
    url: str = request.getfixturevalue("database")
    store = Store.open(url)
    store._transaction(_emptied, writes=True)
    store.close()
    return url


def _emptied(connection: Connection) -> None:
    for table in reversed(schema.metadata.sorted_tables):
        if table is not schema.clock:
            connection.execute(table.delete())
    anew = {"revision": 0, "security": 0, "administration": 0, "digest": "", "digest_at": 0, "doubted": 0, "lost": 0}
    connection.execute(schema.clock.update().values(anew))


@pytest.fixture
def world(disk: Path, url: str) -> Iterator[Uss]:
    """A deployment whose server has not started."""
    world = Uss(1, disk, url)
    yield world
    world.close()


@pytest.fixture
def worlds(disk: Path) -> Callable[[int], Uss]:
    """Deployments by seed, in memory."""
    return lambda seed: Uss(seed, disk / str(seed))
