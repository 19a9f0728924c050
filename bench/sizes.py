"""The next sizes, on paper: what 100,000 hosts on 10 servers need, from the unit costs that one run has measured.

Every figure is a product of measured costs and of what is assumed below; the same sums for 10,000 hosts on one server
stand beside what was measured with 10,000 hosts, so that it can be seen how far such sums can be trusted.
"""

from __future__ import annotations

from typing import Any

import msgspec

NOTICE_OCTETS = 260
"""A notice on the wire, with TLS and TCP around it, and the acknowledgement that comes back for it."""
CHANGES_A_SECOND = 10.0
"""Of the whole deployment: a change for each of 100,000 hosts every three hours."""
AUDIENCE = 0.1
"""Share of all hosts that a change concerns."""
CORES = 2
"""That a server's machine has; one of them runs the server's sessions."""


class Needs(msgspec.Struct, frozen=True):
    """What each server of a deployment needs."""

    hosts: int
    servers: int
    sessions: float
    memory_mb: float
    notices_a_second: float
    cpu_share: float
    """Of one core, for notices and their acknowledgements."""
    bandwidth_kbit: float
    change_to_last_ms: float
    """If every host depended on what changes."""
    start_seconds: float
    """All hosts come at once, full handshakes."""
    loss_seconds: float
    """One server dies, and its hosts come to the others at once, full handshakes; with one server: its restart."""


class Costs(msgspec.Struct, frozen=True):
    """Unit costs as measured, with TLS."""

    notice_cpu_us: float
    notice_ms: float
    """Of time to the last, for each watcher."""
    session_kb: float
    base_mb: float
    host_start_ms: float
    """Of time until all are in step, for each host."""


def costs_of(results: list[dict[str, Any]]) -> Costs | None:
    """From the rows of a run; None when they are not all there. The smaller fan-out gives the costs of a notice, so
    that the larger one can check them."""

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
