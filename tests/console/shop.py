"""A shop on real daemons, for pictures and tests of the console: from three services to ten incidents.

Nothing listens at the registered addresses: a server that probes a listener after a report finds it dead.
"""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

from compass.model.host_api import LocalRegister, LocalReport
from tests.e2e.deployment import Deployment, Host
from tests.e2e.processes import eventually

SMALL = """
[category.front]
depends_on = ["shop"]
services = ["page"]

[category.shop]
depends_on = ["pay"]
services = ["cart"]

[category.pay]
services = ["cards"]
"""
LARGE = """
[category.front]
depends_on = ["shop", "auth"]
services = ["page", "blog"]

[category.mail]
depends_on = ["front", "auth"]
services = ["letters"]

[category.shop]
depends_on = ["stock", "pay", "auth"]
services = ["cart", "list", "orders", "reviews", "search"]
backup = "sorry.spare"
recovery_seconds = 60.0

[category.stock]
depends_on = ["log"]
services = ["bread", "cake", "flour", "count"]
recovery_seconds = 60.0

[category.pay]
depends_on = ["log"]
services = ["cards", "ledger"]
recovery_seconds = 60.0

[category.auth]
services = ["users"]
recovery_seconds = 60.0

[category.log]
services = ["lines"]
recovery_seconds = 60.0

[category.spare]
services = ["sorry"]
"""
FIRST_PORT = 9_000
FEW = {"cart.shop": 3, "list.shop": 2, "ledger.pay": 1, "sorry.spare": 2}
"""Services with few listeners; the others share the rest."""
NEXT_LOST = {"cart.shop": 3, "list.shop": 2, "bread.stock": 2, "users.auth": 1, "lines.log": 1}
"""Listeners that are lost after that of the first incident."""
MANY = (
    *("page.front", "blog.front", "letters.mail", "orders.shop", "reviews.shop", "search.shop", "bread.stock"),
    *("cake.stock", "flour.stock", "count.stock", "cards.pay", "users.auth", "lines.log"),
)


class Shop:
    """Shop in a deployment, which grows and breaks step by step."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.hosts: list[Host] = []
        self.places: dict[str, list[tuple[Host, int]]] = {}
        self._port = FIRST_PORT
        self._stale: Host | None = None
        """Host that registers nothing and only watches."""

    def open(self) -> None:
        """Start with three services on three hosts."""
        self.deployment.start(SMALL)
        self.hosts = self.deployment.add_hosts("node1", "node2", "node3")
        for host, service in zip(self.hosts, ("page.front", "cart.shop", "cards.pay"), strict=True):
            self._register(host, service)

    def grow(self, listeners: int) -> None:
        """Register that many listeners of all services on five hosts."""
        self.deployment.apply(LARGE)
        self.hosts += self.deployment.add_hosts("node4", "node5")
        self._stale = self.deployment.add_host("till1", services=("page.front",))
        self._stale.in_session()
        plan = [service for service, number in FEW.items() for _ in range(number - len(self.places.get(service, [])))]
        have = sum(map(len, self.places.values()))
        plan += [MANY[number % len(MANY)] for number in range(listeners - have - len(plan))]
        for service in {*plan}:
            self.deployment.token(service)
        of_host = {host.name: plan[number :: len(self.hosts)] for number, host in enumerate(self.hosts)}

        def register(host: Host) -> None:
            for service in of_host[host.name]:
                self._register(host, service)

        with ThreadPoolExecutor(len(self.hosts)) as pool:
            list(pool.map(register, self.hosts))

    def break_one(self) -> None:
        """Lose the only listener of a service."""
        self._lose("ledger.pay", 1)

    def break_ten(self) -> None:
        """Lose two more services and some listeners of others: ten incidents, while one host does not read."""
        assert self._stale is not None
        os.kill(self._stale.daemon.pid, signal.SIGSTOP)
        for service, number in (
            ("cart.shop", 3),
            ("list.shop", 2),
            ("bread.stock", 2),
            ("users.auth", 1),
            ("lines.log", 1),
        ):
            self._lose(service, number)

    def _register(self, host: Host, service: str) -> None:
        self._port += 1
        port = self._port
        host.api.register(LocalRegister(service, port, self.deployment.token(service)))
        self.places.setdefault(service, []).append((host, port))

    def _lose(self, service: str, number: int) -> None:
        """Report listeners of a service by a host that uses it, until the server has found them dead."""
        reporter, name = self._reporter(service)
        for host, port in self.places[service][:number]:
            reporter.api.report(LocalReport(service, host.address, port, reporter=name, detail="connection refused"))

            def is_down(port: int = port) -> bool:
                return self.deployment.listeners(service)[service, port].state == "down"

            eventually(is_down, f"{service} at port {port} is down")

    def _reporter(self, service: str) -> tuple[Host, str]:
        uses = {"pay": "shop", "stock": "shop", "auth": "front", "log": "stock", "shop": "front"}
        category = uses[service.partition(".")[2]]
        for name, places in self.places.items():
            for host, _ in places:
                if name.endswith(f".{category}"):
                    return host, name
        raise AssertionError(f"no host uses {service}")
