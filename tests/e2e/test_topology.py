"""The declared part of the catalogue as a file, what a host pulls of it, and who depends on whom."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compass.client.core.blocking_api import ApiProblem
from compass.model.replies import Rows
from compass.model.requests import Fetch
from compass.model.rows import Row
from tests.e2e.conftest import Deploy
from tests.e2e.deployment import Deployment
from tests.e2e.processes import ROOT

EXAMPLE = ROOT / "examples" / "uss.toml"
MISTAKEN = """
[category.web]
depends_on = ["nothing"]

[category.-bad-]

[category.openuss]
services = ["north_east"]
backup = "emergency.nowhere"
probe = "ftp:/"
"""


def declared(deployment: Deployment) -> tuple[tuple[Row, ...], ...]:
    """Categories, services and dependencies."""
    return tuple(deployment.ask(Fetch(kind), Rows).rows for kind in ("category", "service", "dependency"))


def test_an_export_applied_to_an_empty_server_gives_the_same_catalogue(deploy: Deploy, tmp_path: Path) -> None:
    """Issue 2, line 9: "opengnsadmin export then apply on an empty server gives the same catalogue"."""
    one, other = deploy(), deploy()
    one.start(EXAMPLE.read_text())
    other.start(topology="")
    exported = tmp_path / "exported.toml"
    one.opengnsadmin("export", "--output", str(exported))
    assert declared(other) == ((), (), ())
    other.opengnsadmin("apply", str(exported), "--yes")
    assert declared(other) == declared(one)
    assert other.opengnsadmin("export") == exported.read_text()


def test_a_plan_shows_a_difference_and_changes_nothing(deploy: Deploy, tmp_path: Path) -> None:
    """Issue 2, line 9: "plan shows a diff and changes nothing"; what is planned is what applying it then does."""
    deployment = deploy()
    deployment.start(EXAMPLE.read_text())
    before, revision = declared(deployment), deployment.revision
    wanted = tmp_path / "wanted.toml"
    wanted.write_text(EXAMPLE.read_text().replace('"northwest"]', '"southwest"]'))
    planned = deployment.opengnsadmin("plan", str(wanted), "--prune", "--detailed-exitcode", status=10)
    assert "southwest.openuss" in planned
    assert "northwest.openuss" in planned
    assert (declared(deployment), deployment.revision) == (before, revision)
    steps = json.loads(deployment.opengnsadmin("--json", "plan", str(wanted), "--prune"))
    done = json.loads(deployment.opengnsadmin("--json", "apply", str(wanted), "--prune", "--yes"))
    assert {**done, "applied": False, "revision": 0} == {**steps, "applied": False, "revision": 0}
    assert deployment.revision == revision + 2
    # Without an exit status of its own: there is nothing to change any more.
    deployment.opengnsadmin("plan", str(wanted), "--prune", "--detailed-exitcode")


def test_a_topology_with_five_mistakes_is_refused_with_all_of_them(deploy: Deploy, tmp_path: Path) -> None:
    """Bad input: "a topology file with five mistakes (all five reported, with their lines, nothing applied)"."""
    deployment = deploy()
    deployment.start(EXAMPLE.read_text())
    before, revision = declared(deployment), deployment.revision
    file = tmp_path / "mistaken.toml"
    file.write_text(MISTAKEN)
    said = deployment.opengnsadmin("apply", str(file), "--yes", status=6)
    for line in (3, 5, 8, 9, 10):
        assert f"{file}:{line}: " in said
    assert (declared(deployment), deployment.revision) == (before, revision)


def test_a_pull_is_exact_and_an_unknown_name_is_another_answer(deploy: Deploy) -> None:
    """G7: "2 categories x 3 services x 3 listeners come back exactly; unknown id is a distinct error"; P5: "not loaded
    yet", "no such name" and "none registered" are three answers.
    """
    names = ("one", "two", "three")
    listed = ", ".join(f'"{name}"' for name in names)
    deployment = deploy()
    deployment.start(
        f'[category.web]\ndepends_on = ["first", "second"]\nservices = ["portal"]\n\n[category.first]\n'
        f'services = [{listed}]\nbackup = "emergency.rescue"\n\n[category.second]\nservices = [{listed}]\n\n'
        '[category.rescue]\nservices = ["emergency"]\n'
    )
    web, provider = deployment.add_hosts("web", "provider")
    backup = deployment.register(provider, "emergency.rescue")
    registered = {
        f"{name}.{category}": sorted(deployment.register(provider, f"{name}.{category}").port for _ in range(3))
        for category in ("first", "second")
        for name in names
    }
    pulled = web.api.dependencies("portal.web")
    assert [category.category for category in pulled.categories] == ["first", "second"]
    found = {s.id: sorted(peer.port for peer in s.listeners) for c in pulled.categories for s in c.services}
    assert found == registered
    assert [category.backup for category in pulled.categories] == ["emergency.rescue", ""]
    assert [[peer.port for peer in category.backup_listeners] for category in pulled.categories] == [[backup.port], []]
    assert {(peer.address, peer.state) for c in pulled.categories for s in c.services for peer in s.listeners} == {
        (provider.address, "up")
    }
    for name, code in (("nobody.web", "unknown-service"), ("portal.nowhere", "unknown-category")):
        with pytest.raises(ApiProblem) as problem:
            web.api.dependencies(name)
        assert problem.value.code == code


def test_peers_of_one_service_hear_nothing_of_another_that_does_not_concern_them(deploy: Deploy) -> None:
    """G8: "web needs openuso and openuss; those two hear nothing of each other". Counted on the wire."""
    deployment = deploy()
    deployment.start()
    relays = {name: deployment.relay() for name in ("openuso", "openuss")}
    for name, relay in relays.items():
        deployment.add_host(name, port=relay.port)
    web = deployment.add_host("web")
    for host in deployment.hosts.values():
        host.in_session()
    services = {"openuso": "account.openuso", "openuss": "northeast.openuss"}
    for name, service in services.items():
        deployment.register(deployment.hosts[name], service)
    dependant = deployment.watch(web)
    for name, other in (("openuso", "openuss"), ("openuss", "openuso")):
        deployment.quiet(deployment.hosts[other])
        before = relays[other].octets
        assert before > 0
        outcome = deployment.register(deployment.hosts[name], services[name])
        dependant.told(services[name], "up", outcome.port)
        lag = deployment.holds(web, outcome.revision)
        assert lag.pending == 0
        assert relays[other].octets == before
    told = deployment.opengnsadmin("impact", "account.openuso")
    assert "web" in told
    assert "openuss" not in told
