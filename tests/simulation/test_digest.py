"""Digests of histories: equal for equal behaviour, and independent of wording."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from compass.model.rows import Change, Listener
from tests.histories.events import Committed, Event, Received
from tests.simulation.digest import digests_of

ROOT = Path(__file__).parents[2]
COMMAND = ["-m", "tests.simulation", "--seeds", "2", "--steps", "30", "--hosts", "6", "--digest"]


def committed(revision: int, cause: str) -> Event:
    row = Listener("www.web", "10.0.0.1", 80, "up", 1.0, 1, cause=cause)
    return Committed(1.0, "gns1", Change(revision, 0, 1.0, "register", row))


def test_a_digest_depends_on_everything_but_the_wording() -> None:
    """The plain digest is the same for another cause, but not for another revision, an empty cause or another order."""
    before = digests_of([committed(1, "registered"), Received(1.0, "h1", 1, 1)])
    reworded = digests_of([committed(1, "registered by its host"), Received(1.0, "h1", 1, 1)])
    assert before.plain == reworded.plain and before.worded != reworded.worded
    others = [
        [committed(2, "registered"), Received(1.0, "h1", 1, 1)],
        [committed(1, ""), Received(1.0, "h1", 1, 1)],
        [Received(1.0, "h1", 1, 1), committed(1, "registered")],
    ]
    assert before.plain not in {digests_of(history).plain for history in others}


def test_the_digest_of_campaigns_is_the_same_in_every_run() -> None:
    """The command fixes the hashes of strings itself, so that runs in different environments print the same digests."""
    printed = []
    for hashing, options in (("1", []), ("2", []), ("1", ["--any-wording"]), ("2", ["--any-wording"])):
        environment = {**os.environ, "PYTHONHASHSEED": hashing}
        command = [sys.executable, *COMMAND, *options]
        run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
        assert run.returncode == 0, run.stderr
        printed.append([line for line in run.stdout.splitlines() if "digest" in line or "wording" in line])
    assert len(printed[0]) == 2
    assert printed[0] == printed[1] != printed[2] == printed[3]
