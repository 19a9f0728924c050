"""Deployments on virtual time for the tests of the server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.simulation.world import World

USS = {
    "web": ["portal.web", "forum.web", ">openuso", ">openuss"],
    "openuso": ["account.openuso"],
    "openuss": ["chinaserver.openuss", "northeast.openuss"],
    "rescue": ["emergency.rescue"],
}
"""The seed's own world."""


class Uss(World):
    """The seed's world with its tokens: `web` depends on `openuso` and `openuss`, which `emergency.rescue` backs."""

    def __init__(self, seed: int, directory: Path) -> None:
        super().__init__(seed, directory)
        self.tokens = self.declare(USS, {"openuss": "emergency.rescue"})


@pytest.fixture
def world(disk: Path) -> Uss:
    """A deployment whose server has not started."""
    return Uss(1, disk)


@pytest.fixture
def worlds(disk: Path) -> Callable[[int], Uss]:
    """Deployments by seed."""
    return lambda seed: Uss(seed, disk / str(seed))
