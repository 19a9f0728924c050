"""HAProxy and nginx with the listeners that compass knows: once through files, once through DNS."""

from __future__ import annotations

import shutil

import pytest

from tests.e2e.balancers import KINDS, Balancer, come_and_go, judged, stand_still, told
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


@pytest.mark.parametrize(("dns", "expected"), [("", 40), ("udp@", 15)])
def test_haproxy_takes_no_healthy_server_out(deployment: Deployment, dns: str, expected: int) -> None:
    """DNS gives it more listeners than an answer over UDP has room for: all of them over TCP, and always the same
    ones over UDP. `make balancers` does it with 100 for a minute."""
    if not shutil.which("haproxy"):
        pytest.skip("haproxy is not installed (Debian: haproxy)")
    balancer = Balancer(deployment, "haproxy-dns", slots=40, dns=dns)
    assert stand_still(balancer, 40, expected, 2.0) == 0
    balancer.clear_away()
