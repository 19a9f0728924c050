"""HAProxy and nginx with the listeners that compass knows: once through files, once through DNS."""

from __future__ import annotations

import shutil

import pytest

from tests.e2e.balancers import KINDS, Balancer, come_and_go, judged, told
from tests.e2e.deployment import Deployment


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_clients_of_a_balancer_see_no_failure_while_listeners_come_and_go(deployment: Deployment, kind: str) -> None:
    """The balancers keep serving with 0 failed requests while listeners are added, drained, killed and restarted;
    a kill may cost the requests in flight on that listener."""
    if not shutil.which(KINDS[kind]):
        pytest.skip(f"{KINDS[kind]} is not installed (Debian: {KINDS[kind]})")
    balancer = Balancer(deployment, kind)
    load = come_and_go(balancer, rounds=1)
    print(told(balancer, load))
    lost, failed = judged(balancer, load)
    assert not failed
    assert load.answered > 100
    # One for each client at most: what is in flight on the one that was killed.
    assert len(lost) <= 4 * len(balancer.kills)
    balancer.clear_away()
