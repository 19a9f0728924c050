"""Operations of both HTTP APIs that concern the daemon itself: liveness, readiness, metrics."""

from __future__ import annotations

import msgspec

from compass.gateway.http.openapi import TEXT, Operation
from compass.model.host_api import Condition


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """Health of a daemon, and availability of what it depends on."""

    status: str
    store: str
    """`available` or `away`. For a server: whether its store accepted the last write; reads and pushes continue from
    memory. For a host: whether it has a session with a server, or had one and closed it in order; lookups continue
    from memory."""
    certificates: Condition = "valid"
    """Worst condition of the certificates that the daemon's sessions need. `ends-soon`: within 30 days. `invalid`:
    expired, or not valid yet by the clock of the machine; the daemon then answers from memory and continues to try."""
    warnings: tuple[str, ...] = ()
    """Conditions of the host that an administrator should change, for instance a full disk of the state directory."""


HEALTH = Operation(
    method="GET",
    path="/healthz",
    summary="Liveness: the process runs and answers.",
    answers=Health,
    no_authentication=True,
)
READY = Operation(
    method="GET",
    path="/readyz",
    summary="Readiness: the daemon has loaded its data and can answer (else 503).",
    answers=Health,
    no_authentication=True,
)
METRICS = Operation(
    method="GET",
    path="/metrics",
    summary="Metrics for Prometheus: text 0.0.4, or OpenMetrics where Accept asks for it.",
    media=TEXT,
)
