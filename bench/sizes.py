"""Estimate of the next sizes: needs of 100,000 hosts on 10 servers, from the unit costs that one run has measured.

Every figure is a product of measured costs and of the assumptions below. The same sums for 10,000 hosts on one server
are printed next to the measured values for 10,000 hosts, to show the error of such sums.
"""

from __future__ import annotations

from typing import Any

import msgspec

NOTICE_OCTETS = 260
"""A notice on the wire, with TLS and TCP around it, and the acknowledgement that comes back for it."""
CHANGES_A_SECOND = 10.0
"""Rate of the whole deployment: a change for each of 100,000 hosts every three hours."""
AUDIENCE = 0.1
"""Share of all hosts that a change concerns."""
CORES = 2
"""That a server's machine has; one of them runs the server's sessions."""


class Needs(msgspec.Struct, frozen=True):
    """Needs of each server of a deployment."""

    hosts: int
    servers: int
    sessions: float
    memory_mb: float
    notices_a_second: float
    cpu_share: float
    """Share of one core for notices and their acknowledgements."""
    bandwidth_kbit: float
    change_to_last_ms: float
    """If every host depended on what changes."""
    start_seconds: float
    """All hosts come at once, full handshakes."""
    loss_seconds: float
    """Time after the death of a server until its hosts have connected to the others, with full handshakes; with one
    server: its restart."""


class Costs(msgspec.Struct, frozen=True):
    """Unit costs as measured, with TLS."""

    notice_cpu_us: float
    notice_ms: float
    """Time to the last watcher, divided by the number of watchers."""
    session_kb: float
    base_mb: float
    host_start_ms: float
    """Time until all hosts are up to date, divided by the number of hosts."""


def costs_of(results: list[dict[str, Any]]) -> Costs | None:
    """Return the costs from the rows of a run; None if rows are missing.

    The costs of a notice come from the smaller fan-out, so that the larger one can check them."""

    def median(workload: str, metric: str, clients: int) -> float | None:
        for row in results:
            key = row["workload"], row["system"], row["metric"], row["clients"], row["tls"]
            if key == (workload, "compass", metric, clients, True):
                value: float = row["median"]
                return value
        return None

    hosts = max((row["clients"] for row in results if row["workload"] == "B4 cold start"), default=0)
    values = (
        median("B2 fan-out", "cpu", 1_000),
        median("B2 fan-out", "to the last", 1_000),
        median("B2 fan-out", "memory a session", 1_000),
        median("B5 idle", "memory", max((r["clients"] for r in results if r["workload"] == "B5 idle"), default=0)),
        median("B4 cold start", "all in step", hosts),
    )
    if any(value is None for value in values):
        return None
    cpu, last, memory, _, start = (value or 0.0 for value in values)
    return Costs(cpu, last / 1_000, memory, 60.0, start * 1_000 / hosts)


def needs(costs: Costs, hosts: int, servers: int) -> Needs:
    """The sums."""
    sessions = hosts / servers
    notices = CHANGES_A_SECOND * AUDIENCE * sessions
    moving = hosts / servers / max(servers - 1, 1)
    return Needs(
        hosts=hosts,
        servers=servers,
        sessions=sessions,
        memory_mb=costs.base_mb + sessions * costs.session_kb / 1_000,
        notices_a_second=notices,
        cpu_share=notices * costs.notice_cpu_us / 1e6,
        bandwidth_kbit=notices * NOTICE_OCTETS * 8 / 1_000,
        change_to_last_ms=sessions * costs.notice_ms,
        start_seconds=sessions * costs.host_start_ms / 1_000,
        loss_seconds=moving * costs.host_start_ms / 1_000,
    )
