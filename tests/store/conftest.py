"""Stores on both engines: a test that takes `url` runs once on a SQLite file and once on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from compass.store.store import Store
from tests.support.postgresql import PostgreSQL


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Create a place for a store, on either engine. Returns its URL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/opengnss.db"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.new_url()


@pytest.fixture
def open_store() -> Iterator[Callable[[str], Store]]:
    """Opens stores that are closed after the test."""
    opened: list[Store] = []

    def open_(url: str) -> Store:
        opened.append(Store.open(url))
        return opened[-1]

    yield open_
    for store in opened:
        store.close()


@pytest.fixture
def store(url: str, open_store: Callable[[str], Store]) -> Store:
    """A new store on either engine."""
    return open_store(url)
