"""Two servers written to at once: the short form of `make servers`."""

from __future__ import annotations

import pytest

from tests.cluster.servers import Several
from tests.cluster.writers import play

pytestmark = pytest.mark.long

SECONDS = 2.0


def test_two_servers_written_to_at_once_keep_one_order(several: Several) -> None:
    """P2: every answered change is in the log once, without a gap, and both have the catalogue that it comes to."""
    result = play(several, ("gns1", "gns2"), 12, SECONDS)
    assert not result.problems
    assert result.answered > 0 and result.batches > 0
