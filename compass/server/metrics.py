"""Figures of a server, gathered from its components on request: each function returns fields of `ServerMetrics`.

Nothing here walks through the catalogue. What grows with the number of sessions is one pass over them, a fraction of
a microsecond for each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, get_args

import msgspec

from compass.model.metrics import (
    BATCH_BOUNDS,
    CERTIFICATE_SECONDS,
    CERTIFICATES_INVALID,
    COMMIT_BOUNDS,
    LAG_BOUNDS,
    Counts,
    Histogram,
    counter,
    gauge,
    histogram,
)
from compass.model.names import category_of
from compass.model.replies import CODES
from compass.model.rows import State
from compass.server.commit.committer import Committer
from compass.server.commit.replica import Replica
from compass.server.commit.row_counts import DIED
from compass.server.components import Components
from compass.server.push.publisher import Publisher
from compass.server.sessions.connection_limits import ConnectionLimits


class ServerMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one `opengnssd` process since its start, each declared as the metric `opengns_server_FIELD`.

    Their order is that in which they are read during an incident.
    """

    ready: Annotated[bool, gauge("1 when the catalogue is loaded and requests are answered.")]
    store_reachable: Annotated[
        bool,
        gauge(
            "1 when the store accepted the last write. 0: writes are refused, reads and pushes continue from memory."
        ),
    ]
    certificate_seconds: Annotated[Mapping[str, float], CERTIFICATE_SECONDS] = {}
    certificates_invalid: Annotated[int, CERTIFICATES_INVALID] = 0
    host_certificate_seconds: Annotated[
        float | None,
        gauge(
            "Time until the first certificate ends that a host with a session here has shown, its own or one above it. "
            "Without a host there is no such line."
        ),
    ] = None
    revision: Annotated[int, gauge("The revision of the catalogue.")] = 0
    incidents_open: Annotated[
        Counts,
        gauge("Open incidents of which administrators were notified, by kind.", "kind", known=("failure", "slow")),
    ] = {}
    alerts_pending: Annotated[
        Counts,
        gauge(
            "Incidents with unsent messages, by channel to administrators; on the server that sends by the channel.",
            "way",
        ),
    ] = {}
    listeners: Annotated[
        Counts,
        gauge(
            "Listeners in the catalogue, by state; died: offline because they failed, with an open incident; offline: "
            "deregistered.",
            "state",
            known=(*get_args(State), DIED),
        ),
    ] = {}
    services_lost: Annotated[
        Counts,
        gauge(
            "Services of which a listener died, is down or is suspect, and that have no other one left; by what their "
            "users have: nothing (none), a backup service (backup), or there are no users, for no category depends on "
            "them (unused).",
            "left",
            known=("none", "backup", "unused"),
        ),
    ] = {}
    services_unanswered: Annotated[
        int,
        gauge(
            "Services and categories that programs look up again and again by this server's DNS, and that have neither "
            "a listener nor a backup with one."
        ),
    ] = 0
    rows: Annotated[
        Counts,
        gauge(
            "Rows in the catalogue, by kind.",
            "kind",
            known=("category", "service", "listener", "dependency", "credential", "host", "alert"),
        ),
    ] = {}
    # Push.
    push_lag_seconds: Annotated[
        Histogram,
        histogram("From a commit to a dependant's acknowledgement; each dependant times one notice after another."),
    ] = Histogram(LAG_BOUNDS)
    push_lag_open_seconds: Annotated[
        float, gauge("How long the oldest timed notice waits for a dependant's acknowledgement; 0: there is none.")
    ] = 0.0
    hosts_awaited: Annotated[int, gauge("Hosts that have a timed notice to acknowledge.")] = 0
    hosts_lagging: Annotated[
        int, gauge("Hosts with a session that may lag, at the last check (each second), counted up to 1,001.")
    ] = 0
    sessions_behind: Annotated[
        int, gauge("Sessions that read too slowly, and get no notices until they read again.")
    ] = 0
    push_queue_bytes: Annotated[
        int, gauge("Octets that wait in sessions for their transport: the backlog of push.")
    ] = 0
    notices: Annotated[int, counter("Changes with at least one dependant.")] = 0
    deliveries: Annotated[
        int, counter("Notices written to sessions: one notice to a thousand hosts counts a thousand times.")
    ] = 0
    # Who is here.
    sessions: Annotated[
        Counts,
        gauge(
            "OpenGNSP sessions, by the role that the peer has proven; unknown: the peer has sent nothing yet.",
            "role",
            known=("host", "admin", "unknown"),
        ),
    ] = {}
    watching: Annotated[int, gauge("Hosts with a session and a subscription.")] = 0
    hosts_lost: Annotated[
        int, gauge("Hosts that have lost their session, at any server over the store, and are not back.")
    ] = 0
    followers: Annotated[int, gauge("Consoles and programs that follow the event stream over HTTPS.")] = 0
    connections_refused: Annotated[
        int, counter("Connections that were refused: too many, or too many failures from the same address.")
    ] = 0
    handshakes_refused: Annotated[
        int,
        counter(
            "TLS handshakes of both ports that failed because of a certificate: expired, of another authority, "
            "missing, or refused by the peer. The security log names address, subject and reason of each."
        ),
    ] = 0
    admissions: Annotated[
        Counts,
        counter(
            "Turns of hosts that needed a snapshot: granted at-once, after a wait (waited), or refused for a "
            "retry later (sent-away).",
            "turn",
            known=("at-once", "waited", "sent-away"),
        ),
    ] = {}
    admission_wait_seconds: Annotated[
        float, gauge("Time that the next host that needs a snapshot would wait for its turn.")
    ] = 0.0
    snapshots_made: Annotated[
        int, counter("Snapshots that were encoded; one serves all hosts with the same interest.")
    ] = 0
    # What is asked and written.
    requests: Annotated[Counts, counter("Requests, over OpenGNSP and HTTPS, by message.", "message")] = {}
    refusals: Annotated[
        Counts, counter("Requests that were answered with a refusal, by its code.", "code", known=CODES)
    ] = {}
    security_entries: Annotated[
        int,
        counter(
            "Entries for the security log other than refused requests: bad certificates and tokens, sums of refusals."
        ),
    ] = 0
    changes: Annotated[
        Counts,
        counter(
            "Changes in the log since the start of this process, whichever server committed them, by operation: "
            "register, report (suspect), confirm (found dead), retract (was wrong), recover, …",
            "operation",
            known=("register", "report", "confirm", "retract", "recover"),
        ),
    ] = {}
    commits: Annotated[int, counter("Transactions that this server committed.")] = 0
    commits_again: Annotated[
        int,
        counter(
            "Transactions of this server that were decided again, because another server had committed in between."
        ),
    ] = 0
    commits_put_off: Annotated[
        int, counter("Batches that started over, because this server was too far behind another one.")
    ] = 0
    commit_seconds: Annotated[Histogram, histogram("Time of a transaction in the store.")] = Histogram(COMMIT_BOUNDS)
    commit_batch_size: Annotated[Histogram, histogram("Requests in a transaction.")] = Histogram(BATCH_BOUNDS)
    commit_queue_length: Annotated[
        int, gauge("Requests that wait for a transaction; at 20,000 they are refused as busy.")
    ] = 0
    security_notes_waiting: Annotated[int, gauge("Entries for the security log that wait for the store.")] = 0
    # Failures.
    probes: Annotated[
        Counts, counter("Probes of listeners by this server, by result.", "result", known=("answered", "failed"))
    ] = {}
    findings: Annotated[
        Counts, counter("What hosts found that were asked to probe a listener.", "result", known=("alive", "dead"))
    ] = {}
    inquiries_open: Annotated[
        int, gauge("Listeners that this server checks because they are suspect, down or slow.")
    ] = 0
    checks_open: Annotated[
        int, gauge("Listeners in use that this server probes because of a report or a lost session.")
    ] = 0
    suspicions_told: Annotated[
        int, gauge("Listeners that were announced to hosts as suspect before the store could record it.")
    ] = 0
    doubting: Annotated[
        bool, gauge("1 while this server distrusts its own probes: most fail, and no host confirms them.")
    ] = False
    # The others.
    draining: Annotated[bool, gauge("1 while hosts are sent to other servers.")] = False
    known_servers: Annotated[
        Counts,
        gauge(
            "Servers (and workers) over the same store as this one knows them, itself included, by role.",
            "role",
            known=("keeper", "bystander", "silent"),
        ),
    ] = {}
    roster_sessions: Annotated[
        Counts, gauge("Sessions of each server (and worker) over the same store, at its last heartbeat.", "server")
    ] = {}
    roster_watching: Annotated[Counts, gauge("Subscribed hosts of each of them.", "server")] = {}
    roster_revisions_behind: Annotated[
        Counts, gauge("Revisions by which each server (and worker) lags the newest.", "server")
    ] = {}


def session_metrics(connections: ConnectionLimits, now: float) -> dict[str, Any]:
    """Return the figures of sessions, of those that read slowly, and of the certificates of hosts."""
    known = +connections.by_role
    ends = [session.certificate_end for session in connections.sessions if session.asker.role == "host"]
    end = min((end for end in ends if end is not None), default=None)
    return {
        "host_certificate_seconds": None if end is None else end - now,
        "sessions": {**known, "unknown": len(connections.sessions) - known.total()},
        "sessions_behind": sum(session.behind for session in connections.sessions),
        "push_queue_bytes": sum(session.queued_octets for session in connections.sessions),
        "connections_refused": connections.refused,
        "handshakes_refused": connections.refused_handshakes,
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
        "services_lost": _services_lost(committer.replica),
        "incidents_open": committer.replica.counts.incidents,
        "commits": committer.writer.counts["batches"],
        "commits_again": committer.writer.counts["again"],
        "commits_put_off": committer.writer.counts["put off"],
        "commit_batch_size": committer.writer.batch_sizes,
        "commit_seconds": committer.writer.commit_seconds,
        "commit_queue_length": committer.queue_length,
        "security_notes_waiting": len(committer.security_log),
        "security_entries": committer.security_log.added,
    }


def _services_lost(replica: Replica) -> Counter[str]:
    """Count the services without a listener by what their users have in their place."""
    catalogue, counts = replica.catalogue, replica.counts
    found = Counter[str]()
    for service in counts.lost_services:
        name = category_of(service)
        category = catalogue.categories.get(name)
        users = catalogue.dependants.get(name) or service in catalogue.backed
        has_backup = category is not None and counts.has_listener(category.backup)
        found["unused" if not users else "backup" if has_backup else "none"] += 1
    return found


def push_metrics(publisher: Publisher) -> dict[str, Any]:
    """Return the figures of push."""
    hosts_awaited, open_seconds = publisher.awaited()
    return {
        "watching": publisher.watching,
        "hosts_lagging": publisher.doubtful,
        "hosts_awaited": hosts_awaited,
        "push_lag_open_seconds": open_seconds,
        "push_lag_seconds": publisher.push_lag,
        "notices": publisher.notices,
        "deliveries": publisher.deliveries,
    }


def _failure_metrics(components: Components) -> dict[str, Any]:
    detector = components.detector
    return {
        "probes": detector.records.probes,
        "findings": detector.records.found,
        "inquiries_open": detector.open_inquiries,
        "checks_open": detector.open_checks,
        "doubting": detector.local_health.is_in_doubt,
        "suspicions_told": len(components.pending_suspicions),
    }


def _subscription_metrics(components: Components) -> dict[str, Any]:
    subscriptions = components.subscriptions
    return {
        "admissions": subscriptions.admission.turns,
        "admission_wait_seconds": subscriptions.admission.wait_seconds,
        "snapshots_made": subscriptions.snapshots.made,
        "followers": components.change_feed.followers,
        "hosts_lost": len(components.lost_hosts),
    }


def _cluster_metrics(components: Components) -> dict[str, Any]:
    """Return the figures of the servers over the same store: the others' are those of their last heartbeats."""
    cluster, name = components.cluster, components.identity.name
    revision = components.committer.catalogue.revision
    shown = {id: peer for id, peer in cluster.peers.items() if id != cluster.id and not cluster.has_successor(id)}
    others = [peer.line for peer in shown.values()]
    newest = max([revision, *(beat.revision for beat in others)])
    # A server that was restarted leaves a silent heartbeat of the same name for a while; the younger one counts.
    roster = {
        beat.name: (beat.sessions, beat.watching, beat.revision)
        for beat in sorted(others, key=lambda beat: beat.started_at)
    }
    roster[name] = len(components.connections.sessions), components.publisher.watching, revision
    return {
        "known_servers": Counter(cluster.role(id) for id in {cluster.id, *shown}),
        "roster_sessions": {server: sessions for server, (sessions, _, _) in roster.items()},
        "roster_watching": {server: watching for server, (_, watching, _) in roster.items()},
        "roster_revisions_behind": {server: newest - reached for server, (_, _, reached) in roster.items()},
    }
