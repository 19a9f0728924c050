"""Servers read the log in pages that are bounded in octets, when they catch up and when they start."""

from __future__ import annotations

from typing import Any

import pytest

from compass.model.catalogue.octets import change_octets
from compass.model.rows import Change
from compass.server import server
from compass.server.commit import replica
from compass.store.store import Store
from tests.server.conftest import Uss
from tests.server.push.test_publisher import CHINA, register


def test_a_server_catches_up_page_by_page(world: Uss, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server has all that another server has committed, and never holds more than a page of it."""
    monkeypatch.setattr(replica, "CATCH_UP_OCTETS_MAX", 1_000)
    pages: list[int] = []
    read = Store.changes_after

    def counted(self: Store, *bounds: Any) -> list[Change]:
        page = read(self, *bounds)
        pages.append(sum(map(change_octets, page)))
        return page

    monkeypatch.setattr(Store, "changes_after", counted)
    one, two = world.server("gns1"), world.server("gns2")
    for started in (one.started, two.started):
        world.wait(started)
    pages.clear()
    store = world.client(("host", "store1"), "gns1")
    for epoch in range(1, 30):
        register(world, store, epoch=epoch)
    world.wait(two.nameserver.commits.catch_up())
    catalogues = [one.nameserver.catalogue, two.nameserver.catalogue]
    assert catalogues[0] == catalogues[1] and catalogues[0].listeners[CHINA]
    assert max(pages) < 1_000 + 1_000 and sum(page >= 1_000 for page in pages) > 3


def test_a_server_that_starts_reads_the_newest_changes_page_by_page(
    world: Uss, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The changes are those that its replay buffer holds, in octets, too."""
    first = world.server("gns1")
    world.wait(first.started)
    store = world.client(("host", "store1"), "gns1")
    for epoch in range(1, 30):
        register(world, store, epoch=epoch)
    revision = first.nameserver.catalogue.revision
    monkeypatch.setattr(server, "CATCH_UP_OCTETS_MAX", 1_000)
    monkeypatch.setattr(server, "TAIL_OCTETS_MAX", 5 * change_octets(world.store.changes_after(revision - 1, 1)[0]))
    second = world.server("gns2")
    world.wait(second.started)
    recent = second.nameserver.components.publisher._recent
    assert recent.covers(revision - 5) and not recent.covers(revision - 6)
