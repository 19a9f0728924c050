"""Store with many listeners, as in an installation: categories in layers, most listeners up, some not.

The store itself writes everything before a server runs on it. All addresses are on the loopback, where no program
listens: a server that probes a listener that is down finds it down.
"""

from __future__ import annotations

import math
import time

from compass.model.names import format_endpoint
from compass.model.rows import Alert, Category, Change, Dependency, Host, Listener, Policy, Row, Service, State
from compass.store.store import Store

BATCH = 1_000
LAYERS = {
    "web": ("openuss", "openuso", "search", "session"),
    "mobile": ("openuss", "openuso", "session", "push"),
    "forum": ("openuss", "openuso"),
    "admin": ("openuso", "billing"),
    "search": ("index", "cache"),
    "push": ("queue",),
    "billing": ("ledger", "queue"),
    "session": ("cache",),
    "openuss": ("blob",),
    "openuso": ("ledger", "cache"),
}
"""A category, and those that it depends on."""
BACKUPS = {"openuss": "emergency.rescue", "blob": "emergency.rescue", "openuso": "standby.rescue"}
SERVICES = ("north", "south", "east", "west", "central", "coast", "hill", "lake", "river", "island")
POLICY = Policy(recovery_seconds=60.0, witnesses=0)


def categories() -> list[str]:
    """Return the categories of all layers, in order."""
    names = [*LAYERS, *(name for uses in LAYERS.values() for name in uses), "rescue"]
    return list(dict.fromkeys(names))


def rows(listeners: int, now: float) -> list[Row]:
    """Return the rows of the store: about one in eighty listeners is not up."""
    names = categories()
    share = max(1, math.ceil(listeners / len(names) / 8))
    services = [f"{service}.{name}" for name in names[:-1] for service in SERVICES[: min(share, len(SERVICES))]]
    made: list[Row] = [Category(name, BACKUPS.get(name, ""), POLICY) for name in names]
    services += ["emergency.rescue", "standby.rescue"]
    made += [Service(id) for id in services]
    made += [Dependency(name, on) for name, uses in LAYERS.items() for on in uses]
    alerts: list[Row] = []
    hosts: dict[str, set[str]] = {}
    for number in range(listeners):
        service = (
            services[number * 7 % len(services)] if listeners < len(services) else services[number % len(services)]
        )
        host = f"{service.partition('.')[2]}{number % 40 + 1}.example.net"
        hosts.setdefault(host, set()).add(service)
        listener = _listener(service, host, number, listeners, now)
        made.append(listener)
        if listener.state == "down":
            where = format_endpoint(listener.address, listener.port)
            text = f"listener {where} of {service} is down: {listener.cause}"
            alerts.append(Alert(f"failure {service} {where}", "failure", listener.changed_at, text))
    made += [Host(name, services=tuple(sorted(of))) for name, of in hosts.items()]
    return [*made, *alerts[:40]]


def _listener(service: str, host: str, number: int, of: int, now: float) -> Listener:
    address = f"127.{100 + number // 65_000}.{number // 250 % 256}.{number % 250 + 1}"
    state, cause = _state(number, of)
    changed = now - 40 - (number * 7919 % 900 if state != "up" else 3600 + number * 7919 % 900_000)
    port = 2028 + number % 4
    return Listener(service, address, port, state, changed, number + 1, host, 1, {}, cause, state == "draining")


def _state(number: int, of: int) -> tuple[State, str]:
    if number % 83 == 5:
        return "down", "no answer to 2 probes: connection refused"
    if number % 241 == 8:
        return "draining", "drained by alice"
    if number % 401 == 12:
        return "slow", "reported slow by web3.example.net"
    if number % 167 == 11:
        return "offline", "deregistered"
    return "up", "registered"


def fill(url: str, listeners: int) -> None:
    """Write the rows into a new store."""
    write(url, rows(listeners, time.time()))


def write(url: str, all_rows: list[Row]) -> None:
    """Write any rows into a new store."""
    now = time.time()
    opened = Store.open(url)
    try:
        topics: dict[str, int] = {}
        for first in range(0, len(all_rows), BATCH):
            changes = []
            for revision, row in enumerate(all_rows[first : first + BATCH], first + 1):
                topic = row.service if isinstance(row, Listener) else ""
                changes.append(Change(revision, topics.get(topic, 0), now - 60, f"{_noun(row)}-add", row))
                topics[topic] = revision
            opened.commit(first, changes, (), ())
    finally:
        opened.close()


def _noun(row: Row) -> str:
    return "register" if isinstance(row, Listener) else type(row).__name__.lower()
