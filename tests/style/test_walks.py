"""The ways of requests through the sources are short."""

from __future__ import annotations

import pytest

from tests.style.walks import BEFORE, CALLS_MAX, FILES_MAX, FIRST_TRANSACTIONS_MAX, MOVES_MAX, Walk, walks


@pytest.fixture(scope="module", params=[True, False], ids=["steady", "unsteady"])
def found(request: pytest.FixtureRequest) -> dict[str, Walk]:
    return walks(steady=request.param)


def test_a_registration_is_a_short_way(found: dict[str, Walk]) -> None:
    """From the daemon to its reply and both dependants, no way gets longer than its ceiling."""
    walk = found["registration"]
    assert (len(walk.calls) <= CALLS_MAX, walk.files <= FILES_MAX, walk.moves <= MOVES_MAX) == (True, True, True), (
        f"{len(walk.calls)} calls, {walk.files} files, {walk.moves} moves"
    )
    assert walk.transactions == 1


def test_a_first_registration_has_few_transactions(found: dict[str, Walk]) -> None:
    """The watch of a host that registers a service for the first time costs one transaction at most."""
    assert 1 <= found["first registration on a host"].transactions <= FIRST_TRANSACTIONS_MAX


def test_every_walk_reaches_its_end(found: dict[str, Walk]) -> None:
    """A walk without calls would show nothing."""
    assert found.keys() == BEFORE.keys()
    assert all(walk.calls and walk.files <= walk.moves <= len(walk.calls) for walk in found.values())
