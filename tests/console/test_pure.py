"""Parts of the console that need no browser, in Node.js."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed (Debian: nodejs)")
def test_what_the_page_thinks() -> None:
    """Events, the copy of the catalogue, health, order, impact and layout pass the tests of pure.test.mjs."""
    command = ["node", "--test", str(HERE / "pure.test.mjs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
    assert "# fail 0" in done.stdout
