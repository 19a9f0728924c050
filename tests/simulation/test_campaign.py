"""Random histories on virtual time: the promises at their end, and the same trace from the same seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.campaign import Campaign

SEEDS = 12
STEPS = 60


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happens_everybody_ends_with_the_same_view(seed: int, tmp_path: Path) -> None:
    """P1, P2, P3, P4: nothing answered is lost, one log without gaps, every host ends equal to a pull."""
    campaign = Campaign(seed, tmp_path)
    campaign.run(STEPS)
    campaign.settle()
    campaign.verify()


def test_the_same_seed_gives_the_same_trace(tmp_path: Path) -> None:
    """What a seed found can be found again."""
    traces = []
    for run in ("first", "second"):
        campaign = Campaign(99, tmp_path / run)
        campaign.run(STEPS)
        log = [(change.time, change.operation, change.row) for change in campaign.world.store.changes_after(0, 10**6)]
        traces.append((campaign.world.trace, log))
    assert traces[0] == traces[1]
