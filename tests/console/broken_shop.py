"""Store of a shop with ten incidents: two services of one category and one of another are lost, others in part."""

from __future__ import annotations

import time

from compass.model.names import format_endpoint
from compass.model.rows import Alert, Category, Dependency, Host, Listener, Policy, Row, Service
from tests.console.large_catalogue import write

POLICY = Policy(recovery_seconds=60.0, witnesses=0)
SERVICES = {
    "front": ("page",),
    "mail": ("letters",),
    "shop": ("cart", "list", "orders"),
    "pay": ("ledger",),
    "stock": ("bread", "cake", "flour"),
    "auth": ("users",),
    "spare": ("sorry",),
}
USES = {"front": ("shop",), "mail": ("front",), "shop": ("pay", "stock", "auth")}
LOST = {
    "cart.shop": 3,
    "list.shop": 2,
    "ledger.pay": 1,
    "bread.stock": 1,
    "cake.stock": 1,
    "flour.stock": 1,
    "users.auth": 1,
}
"""Numbers of listeners with an incident; of the first three services those are all."""
LEFT = 150
"""Listeners in use of each other service."""
WHOLE = ("cart.shop", "list.shop", "ledger.pay")
BEGAN_SECONDS = 185


def fill_broken(url: str) -> None:
    """Write the rows into a new store."""
    now = time.time()
    rows: list[Row] = [Category(name, "sorry.spare" if name == "shop" else "", POLICY) for name in SERVICES]
    ids = [f"{label}.{category}" for category, labels in SERVICES.items() for label in labels]
    rows += [Service(id) for id in ids]
    rows += [Dependency(name, on) for name, uses in USES.items() for on in uses]
    rows += [
        Host(f"node{number}", services=("page.front",) if number < 3 else ("letters.mail",)) for number in range(4)
    ]
    alerts: list[Row] = []
    for place, id in enumerate(ids):
        lost = LOST.get(id, 0)
        for number in range(lost + (0 if id in WHOLE else LEFT)):
            listener = _listener(id, f"127.96.{place}.{number % 250 + 1}", number, number < lost, now)
            rows.append(listener)
            if number < lost:
                where = format_endpoint(listener.address, listener.port)
                text = f"listener {id} at {where} on host {listener.host} ended without deregistering"
                alerts.append(Alert(f"failure {id} {where}", "failure", listener.changed_at, text))
    write(url, [*rows, *alerts])


def _listener(id: str, address: str, number: int, died: bool, now: float) -> Listener:
    changed = now - (BEGAN_SECONDS if died else 7_200)
    cause = "its process ended" if died else "registered"
    return Listener(
        id, address, 9_000, "offline" if died else "up", changed, number + 1, f"node{number % 4}", 1, {}, cause
    )
