from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.serve()
    yield world
    for daemon in world.hosts.values():
        daemon.stop()
    for server in world.servers.values():
        server.stop()
    world.store.close()
