"""What both HTTP APIs tell of the daemon itself: whether it runs, whether it can serve, and its metrics."""

from __future__ import annotations

import msgspec

from compass.gateway.http.openapi import TEXT, Operation


class Health(msgspec.Struct, frozen=True):
    """That the daemon runs, and whether what it relies on is there."""

    status: str
    store: str
    """`available`, or `away`. Of a server: its store took the last write or did not, and reads and pushes go on from
    memory. Of a host: it has a session with a server, or had one and left it in order; or no server can be reached, and
    lookups go on from memory."""


HEALTH = Operation(
    method="GET", path="/healthz", summary="The process runs and answers.", answers=Health, no_authentication=True
)
READY = Operation(
    method="GET",
    path="/readyz",
    summary="What it serves is loaded: it can answer (else 503).",
    answers=Health,
    no_authentication=True,
)
METRICS = Operation(
    method="GET",
    path="/metrics",
    summary="Metrics for Prometheus: text 0.0.4, or OpenMetrics where Accept asks for it.",
    media=TEXT,
)
