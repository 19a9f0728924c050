"""Random histories on virtual time: the promises at their end, and the same trace from the same seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.campaign import Campaign

ROOT = Path(__file__).parents[2]
SEEDS = 12
STEPS = 60


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happens_everybody_ends_with_the_same_view(seed: int, disk: Path) -> None:
    """P1, P2, P3, P4: nothing answered is lost, one log without gaps, every host ends equal to a pull."""
    campaign = Campaign(seed, disk)
    campaign.run(STEPS)
    campaign.settle()
    campaign.verify()


def test_the_same_seed_gives_the_same_trace(disk: Path) -> None:
    """What a seed found can be found again, by a Python that hashes strings another way."""
    runs = []
    for hashing in ("1", "2", "3"):
        run = f"from {__name__} import histories; histories({str(disk / hashing)!r})"
        environment = {**os.environ, "PYTHONHASHSEED": hashing}
        runs.append(subprocess.Popen([sys.executable, "-c", run], cwd=ROOT, env=environment, stdout=subprocess.PIPE))
    first, *others = [run.communicate(timeout=60)[0].decode().splitlines() for run in runs]
    assert not any(run.returncode for run in runs)
    assert len(first) > STEPS * SEEDS
    assert all(other == first for other in others)


def histories(directory: str) -> None:
    """Tell what happens with each seed, line by line."""
    for seed in range(SEEDS):
        campaign = Campaign(seed, Path(directory) / str(seed))
        campaign.run(STEPS)
        campaign.settle()
        print(*campaign.world.trace, sep="\n")
        print(*campaign.world.store.changes_after(0, 10**6), sep="\n")
