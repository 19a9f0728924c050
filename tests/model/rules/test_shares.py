"""Shares: listeners are bounded in octets where they are registered, and lists end with their octets (P10)."""

from __future__ import annotations

import random

import msgspec
import pytest

from compass.model.catalogue.catalogue import Catalogue, catalogue_of
from compass.model.catalogue.interest import interest, needed_octets
from compass.model.catalogue.octets import ALL, LISTENER_OCTETS, octets_of
from compass.model.limits import (
    CATEGORY_OCTETS_MAX,
    METADATA_ENTRIES_MAX,
    METADATA_OCTETS_MAX,
    METADATA_VALUE_MAX,
    SERVICE_OCTETS_MAX,
    VIEW_OCTETS_MAX,
)
from compass.model.replies import Done, Refusal, Registered, Rows
from compass.model.requests import Apply, Deregister, Fetch, Purge, Put, Register, Remove
from compass.model.rows import Category, Dependency, Listener, Service
from compass.model.rules import listeners, queries, shares
from compass.wire.messages import encode
from tests.support.catalogue_rows import ADMIN, World, store

PLAIN = LISTENER_OCTETS + len("a.store") + len("alice")
"""Octets of a listener without metadata."""


def filled(world: World, service: str, count: int, **more: object) -> World:
    for port in range(1, count + 1):
        assert isinstance(world.up(service, f"10.0.0.1:{port}", **more), Registered)  # type: ignore[arg-type]
    return world


@pytest.mark.parametrize(("room", "code"), [(0, ""), (1, "too-large")])
def test_one_listener_has_so_much_metadata(room: int, code: str) -> None:
    """At METADATA_OCTETS_MAX octets it is accepted, at one more it is refused; UTF-8 counts, not characters."""
    left, what = METADATA_OCTETS_MAX + room, {}
    for number in range(METADATA_ENTRIES_MAX):
        # "界" has three octets.
        count = min(METADATA_VALUE_MAX - 2, max(0, (left - 9) // 3))
        what[f"k{number:02}"] = "界" * count
        left -= 9 + 3 * count
        if left < 3 * METADATA_VALUE_MAX:
            what["k" * (left - 6 - 3 * ((left - 7) // 3))] = "界" * ((left - 7) // 3)
            break
    reply = store().ask(Register("a.store", "", "10.0.0.1", 1, 1, metadata=what))
    assert (reply.code if isinstance(reply, Refusal) else "") == code


@pytest.mark.parametrize("bound", ["SERVICE_OCTETS_MAX", "CATEGORY_OCTETS_MAX", "VIEW_OCTETS_MAX"])
def test_a_share_is_taken_at_its_bound_and_refused_beyond(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal names who would hold how much, and what to do; rows that do not grow are accepted."""
    world = filled(store(), "a.store", 3)
    monkeypatch.setattr(shares, bound, 4 * PLAIN - 1)
    refusal = world.ask(Register("a.store", "", "10.0.0.1", 4, 1))
    assert isinstance(refusal, Refusal) and refusal.code == "too-large"
    name = {"SERVICE": "service a.store", "CATEGORY": "category store", "VIEW": "category web"}[bound.split("_")[0]]
    assert name in refusal.message
    assert f" of {4 * PLAIN} octets; at most {4 * PLAIN - 1}: " in refusal.message
    monkeypatch.setattr(shares, bound, 4 * PLAIN)
    assert isinstance(world.up("a.store", "10.0.0.1:4"), Registered)
    # Beyond its share a service goes on: with new instances, less metadata, and without the listeners that leave.
    monkeypatch.setattr(shares, bound, 1)
    assert isinstance(world.up("a.store", "10.0.0.1:4", 2), Registered)
    assert world.code(Register("a.store", "", "10.0.0.1", 4, 2, metadata={"k": "v"})) == "too-large"
    world.in_state("down", at="10.0.0.1:4", epoch=5)
    world.ask(Deregister("a.store", "", "10.0.0.1", 4, 5))
    world.now += 100
    world.ask(Purge(100))
    assert world.catalogue.octets[ALL] == 3 * PLAIN


def test_what_nobody_depends_on_fills_no_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound of a view is that of each category that depends on it."""
    world = filled(store(), "a.store", 3)
    monkeypatch.setattr(shares, "VIEW_OCTETS_MAX", 3 * PLAIN)
    assert isinstance(world.up("spare.help", "10.0.0.1:1"), Registered)
    assert world.code(Register("b.store", "", "10.0.0.1", 1, 1)) == "too-large"


def test_a_declaration_may_not_fill_a_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dependency or a backup beyond the bound is refused, alone and in a topology."""
    world = filled(filled(store(), "a.store", 3), "spare.help", 1)
    monkeypatch.setattr(shares, "VIEW_OCTETS_MAX", 3 * PLAIN)
    assert world.code(Put(Category("store", "spare.help"))) == "too-large"
    assert world.code(Put(Dependency("web", "help"), create=True)) == "too-large"
    refusal = world.ask(Apply((Category("web"), Category("help"), Dependency("web", "help"))))
    assert isinstance(refusal, Refusal) and [problem.code for problem in refusal.problems] == ["too-large"]
    monkeypatch.setattr(shares, "VIEW_OCTETS_MAX", 4 * PLAIN + 10)
    assert isinstance(world.ask(Put(Category("store", "spare.help"))), Done)
    assert needed_octets(world.catalogue, "web") == world.catalogue.octets[ALL]


def test_shares_are_such_that_none_fills_the_next() -> None:
    """A credential's service does not fill its category, a category no view; full metadata fits in ASCII."""
    assert METADATA_ENTRIES_MAX * (METADATA_VALUE_MAX + 3 + 6) <= METADATA_OCTETS_MAX < SERVICE_OCTETS_MAX
    assert SERVICE_OCTETS_MAX < CATEGORY_OCTETS_MAX < VIEW_OCTETS_MAX


def test_the_sums_are_those_of_the_rows() -> None:
    """After any changes, on a server, after its restart and on a host, the sums are what the rows make."""
    world, chance = store(), random.Random(7)
    for step in range(300):
        service = chance.choice(["a.store", "b.store", "spare.help"])
        at = f"10.0.0.1:{chance.randint(1, 9)}"
        if chance.random() < 0.7:
            world.up(service, at, step + 1, metadata={"k": "é" * chance.randint(0, 9)})
        elif chance.random() < 0.5:
            world.ask(Remove("listener", f"{service} {at}"))
        else:
            world.now += 61
            world.ask(Purge(60))
    catalogue = world.catalogue
    assert dict(catalogue.octets.items()) == sums(catalogue)
    again = catalogue_of(catalogue.all_rows(), dict(catalogue.topics), catalogue.revision)
    assert again.octets == catalogue.octets and len(catalogue.octets) > 3
    for service in ("a.store", "b.store"):
        for row in list(catalogue.listeners.get(service, {}).values()):
            world.ask(Remove("listener", f"{row.service} {row.address}:{row.port}"))
        assert isinstance(world.ask(Remove("service", service)), Done)
    assert dict(world.catalogue.octets.items()) == sums(world.catalogue)


def sums(catalogue: Catalogue) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in catalogue.all_rows():
        if isinstance(row, Listener):
            for key in (row.service, row.service.partition(".")[2], ALL):
                found[key] = found.get(key, 0) + octets_of(row)
    return found


def test_a_purge_removes_a_bounded_number_of_octets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reply says that rows are left; the same request removes the next ones."""
    world = filled(store(), "a.store", 5)
    for port in range(1, 6):
        world.ask(Deregister("a.store", "", "10.0.0.1", port, 1))
    world.now += 100
    monkeypatch.setattr(listeners, "PURGE_OCTETS_MAX", 2 * PLAIN)
    found = [world.get(Done, Purge(100)) for _ in range(3)]
    assert [(len(done.changes), done.more) for done in found] == [(2, True), (2, True), (1, False)]


# Pages.


def pages(world: World, fetch: Fetch) -> list[Rows]:
    """All pages of a list."""
    found = [world.get(Rows, fetch)]
    while found[-1].cursor:
        found.append(world.get(Rows, msgspec.structs.replace(fetch, cursor=found[-1].cursor)))
    return found


@pytest.mark.parametrize(
    "fetch",
    [
        Fetch("listener", pages=True),
        Fetch("listener", within="store", pages=True),
        Fetch("listener", name="a.store 10.0.0.1:3", pages=True),
        Fetch("listener", state="offline", pages=True),
        Fetch("listener", limit=4, pages=True),
        Fetch("listener", limit=4, after=3, pages=True),
        Fetch("service", pages=True),
        Fetch("dependency", pages=True),
        Fetch("category", pages=True),
        Fetch("credential", pages=True),
        Fetch("alert", pages=True),
        Fetch("host", pages=True),
    ],
    ids=str,
)
def test_pages_are_the_list(fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages have every row once and in order, each page at most a row beyond its octets."""
    world = store().add(Dependency("web", "help"))
    for service in ("a.store", "b.store", "spare.help"):
        filled(world, service, 7)
        world.token(service)
    for port in (1, 2, 3):
        world.ask(Deregister("a.store", "", "10.0.0.1", port, 1, died=True))
    whole = world.get(Rows, msgspec.structs.replace(fetch, pages=False, limit=1000))
    monkeypatch.setattr(queries, "PAGE_OCTETS_MAX", 300)
    found = pages(world, fetch)
    rows = [row for page in found for row in page.rows]
    assert rows == list(whole.rows)
    assert found[0].total == whole.total
    for page in found:
        assert page.rows or not whole.rows
        assert sum(len(encode(Rows(1, (row,), 1))) for row in page.rows[:-1]) < 300 + 40 * len(page.rows)
        assert len(page.rows) <= fetch.limit


def test_a_row_that_stays_is_in_one_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that come and go between pages neither hide nor repeat the others."""
    world = filled(store(), "b.store", 9)
    monkeypatch.setattr(queries, "PAGE_OCTETS_MAX", 200)
    seen: list[int] = []
    cursor = ""
    while True:
        page = world.get(Rows, Fetch("listener", pages=True, cursor=cursor))
        seen += [row.port for row in page.rows if isinstance(row, Listener) and row.service == "b.store"]
        cursor = page.cursor
        if not cursor:
            break
        world.up("a.store", f"10.0.0.1:{len(seen)}")
    assert seen == list(range(1, 10))


@pytest.mark.parametrize("cursor", ["x", "a b", "a.store 10.0.0.1 x", "a.store 10.0.0.1 123456", "a b c d"])
def test_a_cursor_of_something_else_is_refused(cursor: str) -> None:
    assert store().code(Fetch("listener", cursor=cursor), ADMIN) == "bad-value"


def test_a_view_is_estimated_from_above() -> None:
    """The sum of a view counts each category and each backup once."""
    world = filled(filled(store(), "a.store", 3), "spare.help", 2)
    world.add(Dependency("web", "help"))
    world.ask(Put(Category("store", "spare.help")))
    assert needed_octets(world.catalogue, "web") == sum(
        octets_of(row) for row in world.catalogue.all_rows() if isinstance(row, Listener)
    )
    assert "spare.help" in interest(world.catalogue, ["www.web"])
    assert Service("www.web") in world.catalogue.all_rows()
