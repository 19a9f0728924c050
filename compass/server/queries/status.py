"""Status: a server in figures, the servers over the same store, and how far their hosts are (function 2.6, P12)."""

from __future__ import annotations

from collections import Counter

import msgspec

from compass.model.cluster import BEHIND_MAX, ClusterView, Heartbeat
from compass.model.limits import PAGE_OCTETS_MAX
from compass.model.replies import CatalogueDigest, HostLag, KnownServer, Lags, Refusal, ServerStatus
from compass.model.requests import Digest, Lag
from compass.model.rows import Host
from compass.server.commit.committer import Committer
from compass.server.commit.row_counts import DIED
from compass.server.failure.local_health import LocalHealthMonitor
from compass.server.push.publisher import Publisher
from compass.server.queries.host_sessions import HostSessionTracker
from compass.server.sessions.connection_limits import ConnectionLimits
from compass.server.sessions.drain import HostDrain
from compass.server.sessions.identity import ServerIdentity

ALERTS_SHOWN_MAX = 1_000
"""Incidents in a status, the oldest; a failure of many machines opens more, and `fetch` lists all of them in pages."""
LAG_OCTETS = 160
"""Octets of a host's lag without its name."""
COUNTED = ("category", "service", "listener", "dependency", "credential", "host")
"""Kinds of rows that the status counts; alerts are in it one by one."""


class StatusSources(msgspec.Struct, frozen=True):
    """The components that a status is made of."""

    committer: Committer
    publisher: Publisher
    cluster: ClusterView
    health: LocalHealthMonitor
    connections: ConnectionLimits
    drain: HostDrain
    hosts: HostSessionTracker


class StatusReporter:
    """Answers status, digest and lag, and makes this server's heartbeats."""

    def __init__(self, identity: ServerIdentity, sources: StatusSources) -> None:
        self._identity = identity
        self._sources = sources

    def status(self) -> ServerStatus:
        """Return the reply to `status`."""
        identity, sources = self._identity, self._sources
        committer = sources.committer
        catalogue, census = committer.catalogue, committer.replica.counts
        alerts = sorted(catalogue.alerts.values(), key=lambda alert: (alert.opened_at, alert.id))
        return ServerStatus(
            server=identity.name,
            software=identity.software,
            store=identity.store,
            revision=catalogue.revision,
            started_at=identity.started_at,
            sessions=len(sources.connections.sessions),
            watching=sources.publisher.watching,
            counts={kind: census.rows.get(kind, 0) for kind in COUNTED},
            states=_states(census.listeners),
            alerts=tuple(alerts[:ALERTS_SHOWN_MAX]),
            more_alerts=max(0, len(alerts) - ALERTS_SHOWN_MAX),
            engine=identity.engine,
            servers=self._servers(),
            away=sources.drain.redirect is not None,
            trouble=committer.outage,
            trouble_seconds=round(committer.outage_seconds, 3),
            died=census.listeners[DIED],
            lost_services=len(census.lost_services),
        )

    def heartbeat(self) -> Heartbeat:
        """Return this server's heartbeat. Hosts that hold everything, as nearly all do, need no entry in it."""
        identity, publisher = self._identity, self._sources.publisher
        catalogue = self._sources.committer.catalogue
        doubtful = publisher.lagging(BEHIND_MAX)
        publisher.doubtful = len(doubtful)
        lags = [publisher.lag(row) for row in map(catalogue.hosts.get, doubtful) if row is not None]
        return Heartbeat(
            id=identity.id,
            name=identity.name,
            software=identity.software,
            started_at=identity.started_at,
            revision=catalogue.revision,
            sessions=len(self._sources.connections.sessions),
            watching=publisher.watching,
            able=publisher.watching > 0 and not self._sources.health.is_in_doubt,
            held=catalogue.revision if len(doubtful) <= BEHIND_MAX else -1,
            behind=tuple(lags[:BEHIND_MAX]),
            ways=identity.channels,
        )

    def digest(self, request: Digest) -> CatalogueDigest | Refusal:
        """Return the reply to `digest`."""
        committer = self._sources.committer
        revision = request.revision or committer.catalogue.revision
        digest = committer.replica.digests.at(revision)
        if digest is None:
            now = committer.catalogue.revision
            text = f"this server is at revision {now} and knows no digest of revision {revision}"
            return Refusal("bad-value", text)
        return CatalogueDigest(self._identity.name, self._identity.store, revision, digest)

    def lags(self, request: Lag) -> Lags:
        """Return the reply to `lag`: this server's hosts as it knows them, the others' as of the last heartbeats."""
        catalogue = self._sources.committer.catalogue
        names = sorted(name for name in catalogue.hosts if name > request.cursor)
        lags: list[HostLag] = []
        octets = 0
        for name in names:
            if octets >= PAGE_OCTETS_MAX and (request.pages or request.cursor):
                return Lags(catalogue.revision, tuple(lags), lags[-1].host)
            lags.append(self._with_session(self._lag_with_loss(catalogue.hosts[name])))
            octets += LAG_OCTETS + len(name)
        return Lags(catalogue.revision, tuple(lags))

    def _with_session(self, lag: HostLag) -> HostLag:
        known = self._sources.hosts.of(lag.host)
        if known is None or (known.state == "open") != lag.session:
            return lag
        return msgspec.structs.replace(lag, since=known.since, origin=known.origin, software=known.software)

    def _lag_with_loss(self, host: Host) -> HostLag:
        """Return the lag of a host; its status says if the host has lost its session and is not back."""
        lag, entry = self._lag(host), self._sources.cluster.where(host.name)
        is_lost = entry is not None and entry.state == "lost" and not lag.session and not host.barred
        return msgspec.structs.replace(lag, status="lost") if is_lost else lag

    def _lag(self, host: Host) -> HostLag:
        publisher, cluster = self._sources.publisher, self._sources.cluster
        entry = cluster.where(host.name)
        if publisher.session_of(host.name) is not None or (entry is not None and entry.server == cluster.id):
            return msgspec.structs.replace(publisher.lag(host), server=self._identity.name)
        if entry is None:
            return publisher.lag(host)
        if entry.state == "here":
            return cluster.lag_of(host.name) or publisher.lag(host)
        heard = cluster.peers.get(entry.server)
        return msgspec.structs.replace(publisher.lag_of(host, entry.held), server=heard.line.name if heard else "")

    def _servers(self) -> tuple[KnownServer, ...]:
        cluster, own = self._sources.cluster, self.heartbeat()
        beats = {id: (heard.line, heard.silent_seconds) for id, heard in cluster.peers.items()} | {own.id: (own, 0.0)}
        # A server that was killed and started again is one server.
        beats = {id: beat for id, beat in beats.items() if id == own.id or not cluster.has_successor(id)}
        newest = max(beat.revision for beat, _ in beats.values())
        return tuple(
            KnownServer(
                server=beat.name,
                id=beat.id,
                software=beat.software,
                role=cluster.role(beat.id),
                revision=beat.revision,
                lag=newest - beat.revision,
                sessions=beat.sessions,
                watching=beat.watching,
                started_at=beat.started_at,
                silent_seconds=round(silent, 3),
            )
            for beat, silent in sorted(beats.values(), key=lambda one: (one[0].name, one[0].started_at))
        )


def _states(conditions: Counter[str]) -> dict[str, int]:
    """Return the listeners in each state of the protocol: those that died are offline."""
    states = Counter({state: number for state, number in conditions.items() if state != DIED})
    states["offline"] += conditions[DIED]
    return dict(+states)
