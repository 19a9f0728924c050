"""Installations for the tests of the programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.installation import Installation


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """Certificates and room for configuration; its daemons are ended."""
    made = Installation(tmp_path)
    yield made
    made.stop()
