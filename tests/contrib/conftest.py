"""Fixtures for the tests of contributed files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compass.pki.authority import Credentials
from tests.e2e.conftest import authority, check_logs  # noqa: F401
from tests.e2e.scraping import Watched


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory, authority: Credentials) -> Iterator[Watched]:  # noqa: F811
    """Start a server and a host on which every kind of event has happened."""
    watched = Watched(tmp_path_factory.mktemp("gns"), authority)
    with watched.deployment as deployment:
        watched.start()
        yield watched
        check_logs(deployment)
