"""Parts of the console that need no browser, in Node.js."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed (Debian: nodejs)")
@pytest.mark.parametrize("file", sorted(HERE.glob("*.test.mjs")), ids=lambda file: file.name)
def test_what_the_page_thinks(file: Path) -> None:
    """Events, the copy of the catalogue, health, incidents, impact, timeline and layout pass their tests."""
    command = ["node", "--test", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
    assert "# fail 0" in done.stdout
