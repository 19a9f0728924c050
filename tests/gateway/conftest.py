"""Fixtures for tests of gateways over real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_host_api import Api
from tests.support.reactor_thread import ReactorThread


@pytest.fixture(scope="module")
def thread() -> Iterator[ReactorThread]:
    """Run a reactor in a thread of its own."""
    thread = ReactorThread()
    yield thread
    thread.stop()


@pytest.fixture
def api(thread: ReactorThread, tmp_path: Path) -> Iterator[Api]:
    """Serve a host API in front of a fake daemon."""
    api = Api(thread, tmp_path / "socket")
    yield api
    for port in api.listening:
        thread.call(port.stopListening)
