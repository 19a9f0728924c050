"""axe-core in the browser: what people who see, hear or move otherwise could not use."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.console.browser import Browser

AXE = Path("build/npm/node_modules/axe-core/axe.min.js")
needs_npm = pytest.mark.skipif(
    shutil.which("npm") is None, reason="npm is not installed, which fetches axe-core (Debian: npm)"
)


def axe_script() -> str:
    """Return axe-core, which npm fetches once. Skips the test if npm cannot."""
    if not AXE.exists():
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", "build/npm", "axe-core@4"]
        if subprocess.run(command, capture_output=True, timeout=300).returncode:
            pytest.skip("npm could not fetch axe-core")
    return AXE.read_text("utf-8")


def violations(window: Browser, script: str, where: str) -> list[str]:
    """Return the serious and critical findings of axe-core as text."""
    if not window.run("return Boolean(window.axe)"):
        window.run(script)
    result: dict[str, Any] = window.driver.execute_async_script(
        "axe.run(document, {resultTypes: ['violations']}).then(arguments[0])"
    )
    return [
        f"{where}: {one['impact']} {one['id']}: {one['help']}: "
        + json.dumps([f"{node['html'][:160]} {node['failureSummary'][:200]}" for node in one["nodes"][:3]])
        for one in result["violations"]
        if one["impact"] in ("serious", "critical")
    ]
