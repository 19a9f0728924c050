"""Fixtures for the tests of the programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.installation import Installation


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """Prepare certificates and a directory for configuration; daemons are stopped afterwards."""
    made = Installation(tmp_path)
    yield made
    made.stop()
