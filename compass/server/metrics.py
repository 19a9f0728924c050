"""A server in numbers, gathered from its components on request: each function returns fields of `ServerMetrics`.

Nothing here walks through the catalogue. What grows with the number of sessions is one pass over them, a fraction of
a microsecond for each.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from compass.model.metrics import PeerMetrics
from compass.server.commit.committer import Committer
from compass.server.components import Components
from compass.server.push.publisher import Publisher
from compass.server.sessions.connection_limits import ConnectionLimits


def session_metrics(connections: ConnectionLimits) -> dict[str, Any]:
    """Return the figures of sessions, and of those that read slowly."""
    known = +connections.by_role
    return {
        "sessions": {**known, "unknown": len(connections.sessions) - known.total()},
        "sessions_behind": sum(session.behind for session in connections.sessions),
        "push_queue_octets": sum(session.queued_octets for session in connections.sessions),
        "connections_refused": connections.refused,
    }


def loaded_metrics(components: Components) -> dict[str, Any]:
    """Return the figures that there are once the catalogue is loaded."""
    return {
        "changes": components.changes.operations,
        "alerts_pending": {way.name: way.pending for way in components.alerts.status().ways if way.tells},
        **commit_metrics(components.committer),
        **push_metrics(components.publisher),
        **_failure_metrics(components),
        **_subscription_metrics(components),
        **_cluster_metrics(components),
    }


def commit_metrics(committer: Committer) -> dict[str, Any]:
    """Return the figures of the store and its queue, and the number of rows."""
    return {
        "revision": committer.catalogue.revision,
        "rows": committer.replica.counts.rows,
        "listeners": committer.replica.counts.listeners,
        "incidents": committer.replica.counts.incidents,
        "commits": committer.writer.counts["batches"],
        "commits_again": committer.writer.counts["again"],
        "commits_put_off": committer.writer.counts["put off"],
        "batch_sizes": committer.writer.batch_sizes,
        "commit_seconds": committer.writer.commit_seconds,
        "queue_length": committer.queue_length,
        "notes_waiting": len(committer.security_log),
        "security_entries": committer.security_log.added,
    }


def push_metrics(publisher: Publisher) -> dict[str, Any]:
    """Return the figures of push."""
    hosts_awaited, open_seconds = publisher.awaited()
    return {
        "watching": publisher.watching,
        "hosts_lagging": publisher.doubtful,
        "hosts_awaited": hosts_awaited,
        "lag_open_seconds": open_seconds,
        "push_lag": publisher.push_lag,
        "notices": publisher.notices,
        "deliveries": publisher.deliveries,
    }


def _failure_metrics(components: Components) -> dict[str, Any]:
    detector = components.detector
    return {
        "probes": detector.records.probes,
        "findings": detector.records.found,
        "inquiries": detector.open_inquiries,
        "checks": detector.open_checks,
        "doubting": detector.local_health.is_in_doubt,
        "suspicions_told": len(components.pending_suspicions),
    }


def _subscription_metrics(components: Components) -> dict[str, Any]:
    subscriptions = components.subscriptions
    return {
        "admission": subscriptions.admission.turns,
        "admission_wait_seconds": subscriptions.admission.wait_seconds,
        "snapshots_made": subscriptions.snapshots.made,
        "followers": components.change_feed.followers,
    }


def _cluster_metrics(components: Components) -> dict[str, Any]:
    """Return the figures of the servers over the same store: the others' are those of their last heartbeats."""
    cluster, name = components.cluster, components.identity.name
    revision = components.committer.catalogue.revision
    others = [peer.line for id, peer in cluster.peers.items() if id != cluster.id]
    newest = max([revision, *(beat.revision for beat in others)])
    roster = {
        beat.name: PeerMetrics(beat.name, beat.sessions, beat.watching, newest - beat.revision)
        for beat in sorted(others, key=lambda beat: beat.started_at)
    }
    # A server that was restarted leaves a silent heartbeat of the same name for a while; the younger one counts.
    sessions, watching = len(components.connections.sessions), components.publisher.watching
    roster[name] = PeerMetrics(name, sessions, watching, newest - revision)
    return {
        "servers": Counter(cluster.role(id) for id in {cluster.id, *cluster.peers}),
        "roster": tuple(roster.values()),
    }
