"""Pages of the logs are bounded in entries and in octets."""

from __future__ import annotations

import msgspec
import pytest

from compass.model.catalogue.octets import change_octets
from compass.model.rows import Change
from compass.store import log_pages
from compass.store.store import Store
from tests.store.test_store import LISTENER, WORLD, changes_of

METADATA = {"k": "v" * 255}


def committed(store: Store, count: int = 10) -> list[Change]:
    """Commit changes of a listener with metadata after the first rows. Returns all."""
    rows = [msgspec.structs.replace(LISTENER, epoch=epoch, metadata=METADATA) for epoch in range(2, count + 2)]
    changes = [*WORLD, *changes_of(*rows, revision=len(WORLD))]
    store.commit(0, changes, [], [])
    return changes


def test_a_page_of_changes_ends_with_the_one_that_reaches_its_octets(store: Store) -> None:
    changes = committed(store)
    three = sum(map(change_octets, changes[4:7]))
    assert store.changes_after(4, 100, three) == changes[4:7]
    assert store.changes_after(4, 100, three + 1) == changes[4:8]
    assert store.changes_after(4, 2, three) == changes[4:6]
    assert store.changes_after(4, 100) == changes[4:]
    assert store.changes_after(4, 100, 1) == changes[4:5]
    assert store.changes_after(4, 0, 1) == []


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_pages_end_anywhere_among_the_rows_that_are_read_at_once(
    store: Store, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_pages, "ROWS_AT_ONCE", 2)
    changes = committed(store)
    assert store.changes_after(4, count) == changes[4 : 4 + count]
    assert [entry.number for entry in store.read_log("updates", 4, count, 0)[0]] == list(range(5, 5 + count))
