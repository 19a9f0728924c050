"""Incidents about the server's own certificates: 30, 7 and 1 days before the end of any of them, on virtual time."""

from __future__ import annotations

import pytest

from compass.model.rules.certificates import OwnCertificate
from compass.server.alerts.certificates import CHECK_SECONDS
from tests.server.conftest import Uss

DAY = 86400.0


def own(role: str, ends: float, begins: float = 0.0) -> OwnCertificate:
    return OwnCertificate(role, f"CN={role}", f"/etc/{role}.crt", begins, ends, "renew it")  # type: ignore[arg-type]


def open_incidents(world: Uss) -> list[str]:
    return sorted(world.servers["gns1"].nameserver.catalogue.alerts)


@pytest.mark.parametrize("role", ["leaf", "intermediate", "authority"])
def test_each_certificate_of_the_chain_has_an_incident_at_30_7_and_1_days(world: Uss, role: str) -> None:
    """While the server runs; each message once, and all are over when the certificate is renewed."""
    others = [own(other, world.now() + 4000 * DAY) for other in ("leaf", "intermediate", "authority") if other != role]
    chain = [*others, own(role, world.now() + 30 * DAY + 90)]
    server = world.server("gns1", certificates=lambda: chain)
    world.wait(server.started)
    ids = [f"failure certificates of gns1 {which}" for which in ("(30 days)", "(7 days)", "(1 days)", "(invalid)")]
    world.run(CHECK_SECONDS / 2)
    assert open_incidents(world) == []
    world.run(2 * CHECK_SECONDS)
    assert open_incidents(world) == ids[:1]
    alert = server.nameserver.catalogue.alerts[ids[0]]
    assert f"'CN={role}' in /etc/{role}.crt expires in 30 days" in alert.text and "renew it" in alert.text
    for left, expected in ((7.5, ids[:1]), (6.9, ids[:2]), (0.9, ids[:3]), (-0.1, ids)):
        chain[-1] = own(role, world.now() + left * DAY)
        world.run(2 * CHECK_SECONDS)
        assert set(open_incidents(world)) == set(expected)
    chain[-1] = own(role, world.now() + 400 * DAY)
    world.run(2 * CHECK_SECONDS)
    assert open_incidents(world) == []


def test_a_server_that_starts_late_reports_the_nearest_limit_only(world: Uss) -> None:
    """Five days before the end there is one message, not two; a certificate that is not valid yet is one, too."""
    chain = [own("leaf", world.now() + 5 * DAY), own("authority", world.now() + 900 * DAY, world.now() + 60)]
    world.wait(world.server("gns1", certificates=lambda: chain).started)
    world.run(1.0)
    assert open_incidents(world) == ["failure certificates of gns1 (7 days)", "failure certificates of gns1 (invalid)"]
    world.run(3 * CHECK_SECONDS)
    assert open_incidents(world) == ["failure certificates of gns1 (7 days)"]


def test_of_several_workers_one_reports(world: Uss) -> None:
    """The others have the same files."""
    server = world.server("gns1", certificates=lambda: [own("leaf", 1.0)], reports_certificates=False)
    world.wait(server.started)
    world.run(2 * CHECK_SECONDS)
    assert open_incidents(world) == []
