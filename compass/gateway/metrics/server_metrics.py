"""Metrics of `opengnssd` from its snapshot, in the order in which one looks at them during an incident."""

from __future__ import annotations

from typing import Any, get_args

from compass.gateway.metrics.exposition import SnapshotMetric, counter, gauge, histogram
from compass.model.replies import CODES
from compass.model.rows import State

LISTENER_STATES: tuple[str, ...] = get_args(State)
ROLES = ("host", "admin", "unknown")
INCIDENTS = ("failure", "slow")
SERVER_ROLES = ("keeper", "bystander", "silent")


def _roster(field: str) -> Any:
    return lambda now: {one.server: getattr(one, field) for one in now.roster}


SERVER: tuple[SnapshotMetric, ...] = (
    gauge("opengns_server_ready", "1 when the catalogue is loaded and requests are answered.", lambda now: now.ready),
    gauge(
        "opengns_server_store_reachable",
        "1 when the store accepted the last write. 0: writes are refused, reads and pushes continue from memory.",
        lambda now: now.store_reachable,
    ),
    gauge("opengns_server_revision", "The revision of the catalogue.", lambda now: now.revision),
    gauge(
        "opengns_server_incidents_open",
        "Open incidents of which administrators were notified, by kind.",
        lambda now: now.incidents,
        ("kind",),
        INCIDENTS,
    ),
    gauge(
        "opengns_server_alerts_pending",
        "Incidents with unsent messages, by channel to administrators; on the server that sends by the channel.",
        lambda now: now.alerts_pending,
        ("way",),
    ),
    gauge(
        "opengns_server_listeners",
        "Listeners in the catalogue, by state.",
        lambda now: now.listeners,
        ("state",),
        LISTENER_STATES,
    ),
    gauge(
        "opengns_server_rows",
        "Rows in the catalogue, by kind.",
        lambda now: now.rows,
        ("kind",),
        ("category", "service", "listener", "dependency", "credential", "host", "alert"),
    ),
    # Push.
    histogram(
        "opengns_server_push_lag_seconds",
        "From a commit to a dependant's acknowledgement; each dependant times one notice after another.",
        lambda now: now.push_lag,
    ),
    gauge(
        "opengns_server_push_lag_open_seconds",
        "How long the oldest timed notice waits for a dependant's acknowledgement; 0: there is none.",
        lambda now: now.lag_open_seconds,
    ),
    gauge(
        "opengns_server_hosts_awaited",
        "Hosts that have a timed notice to acknowledge.",
        lambda now: now.hosts_awaited,
    ),
    gauge(
        "opengns_server_hosts_lagging",
        "Hosts with a session that may lag, at the last check (each second), counted up to 1,001.",
        lambda now: now.hosts_lagging,
    ),
    gauge(
        "opengns_server_sessions_behind",
        "Sessions that read too slowly, and get no notices until they read again.",
        lambda now: now.sessions_behind,
    ),
    gauge(
        "opengns_server_push_queue_bytes",
        "Octets that wait in sessions for their transport: the backlog of push.",
        lambda now: now.push_queue_octets,
    ),
    counter("opengns_server_notices", "Changes with at least one dependant.", lambda now: now.notices),
    counter(
        "opengns_server_deliveries",
        "Notices written to sessions: one notice to a thousand hosts counts a thousand times.",
        lambda now: now.deliveries,
    ),
    # Who is here.
    gauge(
        "opengns_server_sessions",
        "OpenGNSP sessions, by the role that the peer has proven; unknown: the peer has sent nothing yet.",
        lambda now: now.sessions,
        ("role",),
        ROLES,
    ),
    gauge("opengns_server_watching", "Hosts with a session and a subscription.", lambda now: now.watching),
    gauge(
        "opengns_server_followers",
        "Consoles and programs that follow the event stream over HTTPS.",
        lambda now: now.followers,
    ),
    counter(
        "opengns_server_connections_refused",
        "Connections that were refused: too many, or too many failures from the same address.",
        lambda now: now.connections_refused,
    ),
    counter(
        "opengns_server_admissions",
        "Turns of hosts that needed a snapshot: granted at-once, after a wait (waited), or refused for a retry later "
        "(sent-away).",
        lambda now: now.admission,
        ("turn",),
        ("at-once", "waited", "sent-away"),
    ),
    gauge(
        "opengns_server_admission_wait_seconds",
        "Time that the next host that needs a snapshot would wait for its turn.",
        lambda now: now.admission_wait_seconds,
    ),
    counter(
        "opengns_server_snapshots_made",
        "Snapshots that were encoded; one serves all hosts with the same interest.",
        lambda now: now.snapshots_made,
    ),
    # What is asked and written.
    counter(
        "opengns_server_requests",
        "Requests, over OpenGNSP and HTTPS, by message.",
        lambda now: now.requests,
        ("message",),
    ),
    counter(
        "opengns_server_refusals",
        "Requests that were answered with a refusal, by its code.",
        lambda now: now.refusals,
        ("code",),
        CODES,
    ),
    counter(
        "opengns_server_security_entries",
        "Entries for the security log other than refused requests: bad certificates and tokens, sums of refusals.",
        lambda now: now.security_entries,
    ),
    counter(
        "opengns_server_changes",
        "Changes in the log since the start of this process, whichever server committed them, by operation: register, "
        "report (suspect), confirm (found dead), retract (was wrong), recover, …",
        lambda now: now.changes,
        ("operation",),
        ("register", "report", "confirm", "retract", "recover"),
    ),
    counter("opengns_server_commits", "Transactions that this server committed.", lambda now: now.commits),
    counter(
        "opengns_server_commits_again",
        "Transactions of this server that were decided again, because another server had committed in between.",
        lambda now: now.commits_again,
    ),
    counter(
        "opengns_server_commits_put_off",
        "Batches that started over, because this server was too far behind another one.",
        lambda now: now.commits_put_off,
    ),
    histogram("opengns_server_commit_seconds", "Time of a transaction in the store.", lambda now: now.commit_seconds),
    histogram("opengns_server_commit_batch_size", "Requests in a transaction.", lambda now: now.batch_sizes),
    gauge(
        "opengns_server_commit_queue_length",
        "Requests that wait for a transaction; at 20,000 they are refused as busy.",
        lambda now: now.queue_length,
    ),
    gauge(
        "opengns_server_security_notes_waiting",
        "Entries for the security log that wait for the store.",
        lambda now: now.notes_waiting,
    ),
    # Failures.
    counter(
        "opengns_server_probes",
        "Probes of listeners by this server, by result.",
        lambda now: now.probes,
        ("result",),
        ("answered", "failed"),
    ),
    counter(
        "opengns_server_findings",
        "What hosts found that were asked to probe a listener.",
        lambda now: now.findings,
        ("result",),
        ("alive", "dead"),
    ),
    gauge(
        "opengns_server_inquiries_open",
        "Listeners that this server checks because they are suspect, down or slow.",
        lambda now: now.inquiries,
    ),
    gauge(
        "opengns_server_checks_open",
        "Listeners in use that this server probes because of a report or a lost session.",
        lambda now: now.checks,
    ),
    gauge(
        "opengns_server_suspicions_told",
        "Listeners that were announced to hosts as suspect before the store could record it.",
        lambda now: now.suspicions_told,
    ),
    gauge(
        "opengns_server_doubting",
        "1 while this server distrusts its own probes: most fail, and no host confirms them.",
        lambda now: now.doubting,
    ),
    # The others.
    gauge("opengns_server_draining", "1 while hosts are sent to other servers.", lambda now: now.draining),
    gauge(
        "opengns_server_known_servers",
        "Servers (and workers) over the same store as this one knows them, itself included, by role.",
        lambda now: now.servers,
        ("role",),
        SERVER_ROLES,
    ),
    gauge(
        "opengns_server_roster_sessions",
        "Sessions of each server (and worker) over the same store, at its last heartbeat.",
        _roster("sessions"),
        ("server",),
    ),
    gauge("opengns_server_roster_watching", "Subscribed hosts of each of them.", _roster("watching"), ("server",)),
    gauge(
        "opengns_server_roster_revisions_behind",
        "Revisions by which each server (and worker) lags the newest.",
        _roster("lag"),
        ("server",),
    ),
)
