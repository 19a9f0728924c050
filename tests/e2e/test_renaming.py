"""Renaming with real processes: no listener is lost, tokens stay valid, DNS and HTTP know the new name."""

from __future__ import annotations

import dns.rcode
import pytest

from compass.client.core.blocking_api import ApiProblem
from compass.model.host_api import LocalDeregister, LocalRegister
from compass.model.replies import ServerStatus
from compass.model.requests import Status
from tests.e2e.containers import serving
from tests.e2e.deployment import Deployment, free_port
from tests.e2e.processes import eventually
from tests.e2e.resolvers import Resolver

OLD, NEW = "chinaserver.openuss", "north.openuss"


def test_a_service_moves_to_its_new_name_without_a_pause(deployment: Deployment) -> None:
    """A listener stays under one of the names at each step; host, books and DNS agree, also after a restart."""
    user, host = deployment.add_host("user", dns=True, services=("portal.web",)), deployment.add_host("serves")
    user.in_session()
    host.in_session()
    resolver = Resolver(user.address, user.dns_port)
    port, token = free_port(host.address), deployment.token(OLD)

    def register(service: str, pid: int) -> None:
        outcome = host.api.register(LocalRegister(service, port, token, pid=pid))
        assert outcome.state == "up", outcome

    with serving(host, port) as process:
        eventually(lambda: resolver.addresses("openuss.gns") == [], "there is none yet")
        register(OLD, process.pid)
        user.resolves(OLD, "service", [port])
        refused = deployment.opengnsadmin("service", "rename", OLD, NEW, status=5)
        assert f"{host.address}:{port}" in refused and "--begin" in refused
        deployment.opengnsadmin("service", "rename", OLD, NEW, "--begin")
        register(NEW, process.pid)
        user.resolves(NEW, "service", [port])
        assert user.resolved(OLD) == ("service", [port])
        assert resolver.addresses(f"{NEW}.gns") == resolver.addresses(f"{OLD}.gns") == [host.address]
        host.api.deregister(LocalDeregister(OLD, port, token))
        user.resolves(OLD, "none", [])
        deployment.opengnsadmin("service", "rename", OLD, NEW, "--end")
        eventually(lambda: resolver.ask(f"{OLD}.gns").rcode() == dns.rcode.NXDOMAIN, "the old name is unknown")
        assert resolver.addresses(f"{NEW}.gns") == [host.address] and user.resolved(NEW) == ("service", [port])
        with pytest.raises(ApiProblem, match="there is no service"):
            user.api.resolve(OLD)
        host.restart()
        host.in_session()
        assert deployment.listeners(NEW)[NEW, port].state == "up"
        assert not any("does not hold it" in alert.text for alert in deployment.ask(Status(), ServerStatus).alerts)
    eventually(lambda: deployment.listeners(NEW)[NEW, port].state == "offline", "its end is noticed under the new name")


def test_a_category_is_renamed_in_one_step(deployment: Deployment) -> None:
    """A token of the old name registers under the new one; a dependant sees it at once, by HTTP and DNS."""
    user, host = deployment.add_host("user2", dns=True, services=("portal.web",)), deployment.add_host("serves2")
    user.in_session()
    host.in_session()
    port, token = free_port(host.address), deployment.token("account.openuso")
    with serving(host, port) as process:
        given = LocalRegister("account.openuso", port, token, pid=process.pid)
        host.api.register(given)
        user.resolves("openuso", "service", [port])
        host.api.deregister(LocalDeregister("account.openuso", port, token))
        deployment.opengnsadmin("category", "rename", "openuso", "accounts")
        user.resolves("accounts", "none", [])
        with pytest.raises(ApiProblem, match="openuso"):
            user.api.resolve("openuso")
        host.api.register(LocalRegister("account.accounts", port, token, pid=process.pid))
        user.resolves("account.accounts", "service", [port])
        assert Resolver(user.address, user.dns_port).addresses("accounts.gns") == [host.address]
    log = [entry.operation for entry in deployment.updates()]
    assert {"rename-add", "rename-remove"} <= set(log)
