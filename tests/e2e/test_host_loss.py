"""A host that vanishes without a word, on real processes in network namespaces (issue 3, line 4; P9)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import ROOT, environment

SECONDS = 120.0


def test_a_host_whose_packets_are_dropped_is_marked_and_comes_back(tmp_path: Path) -> None:
    """Issue 3, line 4: "one cut off by dropped packets (not reset): its listeners are probed and marked, everybody else
    goes on; when it comes back nothing flaps".
    """
    alone = ["unshare", "--net"]
    try:
        allowed = subprocess.run([*alone, "ip", "link", "add", "br0", "type", "bridge"], capture_output=True, text=True)
    except FileNotFoundError as missing:
        pytest.skip(f"no network namespaces: {missing}")
    if allowed.returncode:
        pytest.skip(f"no network namespaces: {allowed.stderr.strip()}")
    command = [*alone, sys.executable, "-m", "tests.e2e.lost_host", str(tmp_path)]
    run = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    print(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr
