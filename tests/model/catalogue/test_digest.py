"""Digests: the same rows have the same number, whatever their order and however it was reached."""

from __future__ import annotations

import random
from typing import get_args

import msgspec
import pytest

from compass.agent.replica.replica import Replica
from compass.model.catalogue.catalogue import Catalogue, topic_of
from compass.model.catalogue.digest import (
    COUNT_ROWS,
    FIELDS,
    IncrementalDigest,
    digest_of_rows,
    is_host_visible,
    part_of,
    row_digest,
    steps_of,
    to_hex,
)
from compass.model.catalogue.interest import interest, snapshot
from compass.model.replies import Watching
from compass.model.rows import Category, Change, Listener, Policy, Row, Service
from compass.wire.messages import Notice
from tests.store.workload import CATEGORIES, Workload, registrations


def test_every_field_of_a_row_counts() -> None:
    """A field that is added to a row either counts from a new version of digests on, or is left out knowingly: then
    list it here, and say in opengnsp.md, "Digests", that version 1 does not look at it."""
    not_in_version_1: dict[type, set[str]] = {
        Policy: {"hosts", "open"},
        Listener: {"check", "failing", "checked_at"},
    }
    for kind in (*get_args(Row), Policy):
        counted = set(FIELDS[kind]) | not_in_version_1.get(kind, set())
        assert set(kind.__struct_fields__) == counted, kind.__name__


def test_the_order_of_rows_does_not_matter_and_each_difference_does() -> None:
    """The digest is of a set: one row more, less or other gives another number."""
    rows = [change.row for change in registrations(50)]
    digest = digest_of_rows(rows)
    mixed = rows[:]
    random.Random(1).shuffle(mixed)
    assert digest_of_rows(mixed) == digest
    for place in range(len(rows)):
        assert digest_of_rows(rows[:place] + rows[place + 1 :]) != digest
    last = rows[-1]
    assert isinstance(last, Listener)
    for field, value in {"state": "down", "epoch": 1, "metadata": {"zone": "n"}, "cause": "", "draining": True}.items():
        assert digest_of_rows([*rows[:-1], msgspec.structs.replace(last, **{field: value})]) != digest, field


def test_a_row_that_was_spelled_out_counts_like_one_that_was_not() -> None:
    """A row with omitted defaults has the digest of the full row: a store and a server never differ by that."""
    short = msgspec.json.decode(b'{"row":"category","name":"web"}', type=Category)
    long = msgspec.json.decode(b'{"row":"category","name":"web","backup":"","policy":{"cap":0.8}}', type=Category)
    assert row_digest(short) == row_digest(long) == row_digest(Category("web"))
    one = Listener("a.b", "10.0.0.1", 1, "up", 1.0, 1, metadata={"a": "1", "b": "2"})
    other = msgspec.structs.replace(one, metadata={"b": "2", "a": "1"})
    assert row_digest(one) == row_digest(other)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_moving_change_by_change_gives_what_counting_gives(seed: int) -> None:
    """After hundreds of decided changes, in batches: the digest of all, and of every host's part, topic by topic."""
    workload = Workload(seed)
    catalogue, total, topics = Catalogue(), 0, dict[str, int]()
    for batch in workload.batches(600, 30):
        changes = [change for decision in batch for change in decision.changes]
        for step in steps_of(catalogue, changes):
            total += step.total
            topics[step.topic] = topics.get(step.topic, 0) + step.part
        for change in changes:
            catalogue = catalogue.apply(change)
        assert to_hex(total) == to_hex(digest_of_rows(catalogue.all_rows()))
    for category in CATEGORIES:
        services = [f"north.{category}"]
        wanted = interest(catalogue, services)
        assert to_hex(sum(topics.get(topic, 0) for topic in wanted)) == to_hex(
            digest_of_rows(part_of(catalogue, services))
        )


def test_what_a_host_holds_has_the_digest_of_its_part_at_the_server() -> None:
    """A host's digest stays correct by a snapshot and by every later notice: offline listeners, backups of other
    categories, removed services."""
    workload = Workload(4)
    replica, services = Replica(), ("north.web",)
    catalogue = Catalogue()
    for decision in workload.decisions(400):
        for change in decision.changes:
            catalogue = catalogue.apply(change)
            if not replica.loaded:
                told = snapshot(catalogue, interest(catalogue, services))
                replica.watching(Watching("s", catalogue.revision, told), services)
            elif topic_of(change.row) in interest(catalogue, services) | set(replica.catalogue.topics):
                more = snapshot(catalogue, interest(catalogue, services))
                assert replica.notice(Notice(change, more)) != "gap"
        assert digest_of_rows(part_of(replica.catalogue, services)) == digest_of_rows(part_of(catalogue, services))
    assert any(not is_host_visible(row) for row in catalogue.all_rows() if isinstance(row, Listener))


@pytest.mark.parametrize(("rows", "turns"), [(0, 1), (COUNT_ROWS - 1, 1), (COUNT_ROWS, 2), (COUNT_ROWS + 1, 2)])
def test_a_large_catalogue_is_counted_in_pieces(rows: int, turns: int) -> None:
    """COUNT_ROWS rows are one step, and one more row is another step; the sum is the same."""
    all_rows = [Service(f"s{number}.web") for number in range(rows)]
    count = IncrementalDigest(all_rows)
    taken = 1
    while not count.advance():
        taken += 1
    assert (taken, count.digest) == (turns, digest_of_rows(all_rows))


def test_a_change_is_weighed_against_the_one_before_it_in_the_same_batch() -> None:
    """A row that is set twice and removed in one batch does not change the digest."""
    row = Listener("a.b", "10.0.0.1", 1, "up", 1.0, 1)
    changes = [
        Change(1, 0, 1.0, "register", row),
        Change(2, 1, 1.0, "suspect", msgspec.structs.replace(row, state="suspect")),
        Change(3, 2, 1.0, "purge", msgspec.structs.replace(row, state="suspect"), removed=True),
    ]
    assert sum(step.total for step in steps_of(Catalogue(), changes)) == 0
