"""A server in numbers, gathered from its parts when somebody asks: each function gives fields of `ServerMetrics`.

Nothing here walks through the catalogue. What grows with the number of sessions is one pass over them, a fraction of
a microsecond for each.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from compass.model.cluster import ClusterView
from compass.model.metrics import PeerMetrics
from compass.server.commit.committer import Committer
from compass.server.failure.detector import FailureDetector
from compass.server.failure.pending_suspicions import PendingSuspicions
from compass.server.push.change_feed import ChangeFeed
from compass.server.push.publisher import Publisher
from compass.server.push.subscriptions import Subscriptions
from compass.server.sessions.connection_limits import ConnectionLimits


def of_sessions(gate: ConnectionLimits) -> dict[str, Any]:
    """Who is connected, and how far the slow ones are behind."""
    known = +gate.by_role
    return {
        "sessions": {**known, "unknown": len(gate.sessions) - known.total()},
        "sessions_behind": sum(session.behind for session in gate.sessions),
        "push_queue_octets": sum(session.queued_octets for session in gate.sessions),
        "connections_refused": gate.refused,
    }


def commit_metrics(commits: Committer) -> dict[str, Any]:
    """The store, what waits for it, and what is in it."""
    return {
        "revision": commits.catalogue.revision,
        "rows": commits.replica.counts.rows,
        "listeners": commits.replica.counts.listeners,
        "incidents": commits.replica.counts.incidents,
        "commits": commits.writer.counts["batches"],
        "commits_again": commits.writer.counts["again"],
        "commits_put_off": commits.writer.counts["put off"],
        "batch_sizes": commits.writer.batch_sizes,
        "commit_seconds": commits.writer.commit_seconds,
        "queue_length": commits.queue_length,
        "notes_waiting": len(commits.security_log),
        "security_entries": commits.security_log.added,
    }


def of_push(push: Publisher) -> dict[str, Any]:
    """How changes reach those who depend on them."""
    return {
        "watching": push.watching,
        "hosts_lagging": push.doubtful,
        "hosts_awaited": push.way.hosts,
        "lag_open_seconds": push.way.open_seconds,
        "push_lag": push.way.spread,
        "notices": push.notices,
        "deliveries": push.deliveries,
    }


def of_failures(desk: FailureDetector, unwritten: PendingSuspicions) -> dict[str, Any]:
    """What is being found out."""
    return {
        "probes": desk.records.probes,
        "findings": desk.records.found,
        "inquiries": desk.open_inquiries,
        "checks": desk.open_checks,
        "doubting": desk.local_health.is_in_doubt,
        "suspicions_told": len(unwritten),
    }


def of_watches(watches: Subscriptions, visitors: ChangeFeed) -> dict[str, Any]:
    """How hosts come in, and who follows."""
    return {
        "admission": watches.admission.turns,
        "admission_wait_seconds": watches.admission.wait_seconds,
        "snapshots_made": watches.snapshots.made,
        "followers": visitors.followers,
    }


def of_servers(known: ClusterView, name: str, sessions: int, watching: int, revision: int) -> dict[str, Any]:
    """The servers over the same store: this one as it is, the others as they said with their last beat."""
    others = [heard.line for id, heard in known.heard.items() if id != known.id]
    newest = max([revision, *(line.revision for line in others)])
    roster = {
        line.name: PeerMetrics(line.name, line.sessions, line.watching, newest - line.revision)
        for line in sorted(others, key=lambda line: line.started_at)
    }
    # A server that was started again leaves a silent line of the same name for a while; the younger one counts.
    roster[name] = PeerMetrics(name, sessions, watching, newest - revision)
    return {
        "servers": Counter(known.role(id) for id in {known.id, *known.heard}),
        "roster": tuple(roster.values()),
    }
