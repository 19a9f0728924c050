"""A deployment on virtual time for the tests of the host daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent_world import Hosts


@pytest.fixture
def world(disk: Path) -> Iterator[Hosts]:
    """World with one server, which answers, and no host yet."""
    world = Hosts(1, disk)
    world.serve()
    yield world
    for host in world.hosts.values():
        host.stop()
    for server in list(world.servers.values()):
        server.stop()
    world.store.close()
