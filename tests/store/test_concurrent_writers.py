"""Concurrent writers: the second one decides again inside its own transaction, and commits (P2)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from compass.model.interfaces import Conflict, Proposal
from compass.model.rows import Change
from compass.store import store as stores
from compass.store.store import Store
from tests.store.workload import registrations

OpenStore = Callable[[str], Store]


def test_a_batch_that_comes_second_is_decided_again_after_the_first(url: str, open_store: OpenStore) -> None:
    """The second writer gets the earlier changes, and its changes follow without a gap and without another attempt."""
    one, other = open_store(url), open_store(url)
    first = registrations(3)
    one.commit(0, first, [], [])
    told: list[list[Change]] = []

    def again(missed: list[Change]) -> Proposal:
        told.append(missed)
        return Proposal(registrations(2, revision=len(first)))

    other.commit(0, registrations(2), [], [], again)
    assert told == [first]
    log = one.changes_after(0, 1000)
    assert log == [*first, *registrations(2, revision=len(first))]


def test_a_batch_of_which_nothing_is_left_changes_nothing(url: str, open_store: OpenStore) -> None:
    """Decided again, all of it may have come to refusals."""
    one, other = open_store(url), open_store(url)
    first = registrations(1)
    one.commit(0, first, [], [])
    other.commit(0, registrations(2), [], [], lambda missed: Proposal([]))
    assert one.changes_after(0, 1000) == first


def test_nobody_commits_while_a_batch_is_decided_again(url: str, open_store: OpenStore) -> None:
    """All other writers wait from the read of missed changes to the commit: no batch loses twice."""
    one, other, third = (open_store(url) for _ in range(3))
    first = registrations(1)
    one.commit(0, first, [], [])
    reached = len(first)
    calls: list[str] = []

    def intrude() -> None:
        third.commit(reached, registrations(1, revision=reached), [], [], late)

    def late(missed: list[Change]) -> Proposal:
        calls.append("third")
        return Proposal(registrations(1, revision=reached + len(missed)))

    intruder = threading.Thread(target=intrude)

    def again(missed: list[Change]) -> Proposal:
        calls.append("second")
        intruder.start()
        # Time enough for it to get in, if it could.
        time.sleep(0.3)
        return Proposal(registrations(2, revision=reached))

    other.commit(0, registrations(2), [], [], again)
    intruder.join()
    assert calls == ["second", "third"]
    assert [change.revision for change in one.changes_after(0, 1000)] == list(range(1, reached + 4))


@pytest.mark.parametrize("beyond", [0, 1], ids=["n", "n + 1"])
def test_too_much_is_not_taken_in_while_all_others_wait(
    url: str, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, beyond: int
) -> None:
    """Up to `BETWEEN_MAX` changes are applied; a writer that lags further gets Conflict, and reads them outside of a
    transaction."""
    first = registrations(4)
    monkeypatch.setattr(stores, "BETWEEN_MAX", len(first) - beyond)
    one, other = open_store(url), open_store(url)
    one.commit(0, first, [], [])

    def again(missed: list[Change]) -> Proposal:
        return Proposal(registrations(1, revision=len(missed)))

    if beyond:
        with pytest.raises(Conflict):
            other.commit(0, registrations(1), [], [], again)
    else:
        other.commit(0, registrations(1), [], [], again)
    assert len(one.changes_after(0, 1000)) == len(first) + 1 - beyond


def test_what_was_trimmed_is_no_turn_either(url: str, open_store: OpenStore) -> None:
    """A log that does not reach back so far is a Conflict: only reading everything helps."""
    one, other = open_store(url), open_store(url)
    one.commit(0, registrations(5), [], [])
    one.trim(1, 1)
    with pytest.raises(Conflict):
        other.commit(0, registrations(1), [], [], lambda missed: Proposal([]))
