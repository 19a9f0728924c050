"""Status: a server in figures, those over the same store, and how far their hosts are (function 2.6, P12)."""

from __future__ import annotations

import msgspec

from compass.model.catalogue.catalogue import Catalogue
from compass.model.cluster import BEHIND_MAX, ClusterView, Heartbeat
from compass.model.replies import HostLag, KnownServer, Lags, ServerStatus
from compass.model.rows import Host
from compass.server.commit.row_counts import RowCounts
from compass.server.push.publisher import Publisher

COUNTED = ("category", "service", "listener", "dependency", "credential", "host")
"""Kinds of rows that the status counts; of alerts it has each."""


class ServerInfo(msgspec.Struct, frozen=True):
    """What only the server itself knows of itself."""

    server: str
    software: str
    store: str
    started_at: float
    sessions: int
    watching: int
    engine: str
    trouble: str
    away: bool
    ways: tuple[str, ...] = ()
    """The names of those by which it can tell administrators."""


def status_of(
    catalogue: Catalogue, census: RowCounts, figures: ServerInfo, known: ClusterView, own: Heartbeat
) -> ServerStatus:
    """The reply to status; `own`: this server's line as it is now."""
    rows = census.rows
    return ServerStatus(
        server=figures.server,
        software=figures.software,
        store=figures.store,
        revision=catalogue.revision,
        started_at=figures.started_at,
        sessions=figures.sessions,
        watching=figures.watching,
        counts={kind: rows.get(kind, 0) for kind in COUNTED},
        states=dict(+census.listeners),
        alerts=tuple(sorted(catalogue.alerts.values(), key=lambda alert: (alert.opened_at, alert.id))),
        engine=figures.engine,
        servers=_servers(known, own),
        away=figures.away,
        trouble=figures.trouble,
    )


def _servers(known: ClusterView, own: Heartbeat) -> tuple[KnownServer, ...]:
    lines = {id: (heard.line, heard.silent_seconds) for id, heard in known.heard.items()} | {own.id: (own, 0.0)}
    newest = max(line.revision for line, _ in lines.values())
    return tuple(
        KnownServer(
            server=line.name,
            id=line.id,
            software=line.software,
            role=known.role(line.id),
            revision=line.revision,
            lag=newest - line.revision,
            sessions=line.sessions,
            watching=line.watching,
            started_at=line.started_at,
            silent_seconds=round(silent, 3),
        )
        for line, silent in sorted(lines.values(), key=lambda one: (one[0].name, one[0].started_at))
    )


def heartbeat_of(catalogue: Catalogue, figures: ServerInfo, push: Publisher, id: str, *, able: bool) -> Heartbeat:
    """What a server says of itself with a beat. Hosts that hold everything, as nearly all do, cost it no words."""
    doubtful = push.lagging(BEHIND_MAX)
    push.doubtful = len(doubtful)
    lags = [push.lag(row) for row in map(catalogue.hosts.get, doubtful) if row is not None]
    return Heartbeat(
        id=id,
        name=figures.server,
        software=figures.software,
        started_at=figures.started_at,
        revision=catalogue.revision,
        sessions=figures.sessions,
        watching=figures.watching,
        able=able,
        held=catalogue.revision if len(doubtful) <= BEHIND_MAX else -1,
        behind=tuple(lags[:BEHIND_MAX]),
        ways=figures.ways,
    )


def lags_of(catalogue: Catalogue, push: Publisher, known: ClusterView, name: str) -> Lags:
    """The reply to lag, of the server called `name`: its own hosts as it sees them, the others' as those said with
    their last beat."""
    hosts = (catalogue.hosts[host] for host in sorted(catalogue.hosts))
    return Lags(catalogue.revision, tuple(_lag(host, push, known, name) for host in hosts))


def _lag(host: Host, push: Publisher, known: ClusterView, name: str) -> HostLag:
    entry = known.where(host.name)
    if push.session_of(host.name) is not None or (entry is not None and entry.server == known.id):
        return msgspec.structs.replace(push.lag(host), server=name)
    if entry is None:
        return push.lag(host)
    if entry.state == "here":
        return known.lag_of(host.name) or push.lag(host)
    heard = known.heard.get(entry.server)
    return msgspec.structs.replace(push.lag_of(host, entry.held), server=heard.line.name if heard else "")
