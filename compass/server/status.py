"""Status: a server in figures (function 2.6)."""

from __future__ import annotations

from collections import Counter

import msgspec

from compass.model.catalogue import Catalogue
from compass.model.replies import ServerStatus


class Figures(msgspec.Struct, frozen=True):
    """What only the server itself knows of itself."""

    server: str
    software: str
    store: str
    started_at: float
    sessions: int
    watching: int
    engine: str


def status_of(catalogue: Catalogue, figures: Figures) -> ServerStatus:
    """The reply to status."""
    listeners = [row for peers in catalogue.listeners.values() for row in peers.values()]
    return ServerStatus(
        server=figures.server,
        software=figures.software,
        store=figures.store,
        revision=catalogue.revision,
        started_at=figures.started_at,
        sessions=figures.sessions,
        watching=figures.watching,
        counts={
            "category": len(catalogue.categories),
            "service": sum(map(len, catalogue.services.values())),
            "listener": len(listeners),
            "dependency": sum(map(len, catalogue.needs.values())),
            "credential": sum(map(len, catalogue.credentials.values())),
            "host": len(catalogue.hosts),
        },
        states=dict(Counter(row.state for row in listeners)),
        alerts=tuple(sorted(catalogue.alerts.values(), key=lambda alert: (alert.opened_at, alert.id))),
        engine=figures.engine,
    )
