"""The metrics of `opengnssd`: one line for each, in the order in which an incident is looked at."""

from __future__ import annotations

from typing import Any, get_args

from compass.gateway.metrics.exposition import MetricSpec
from compass.model.replies import CODES
from compass.model.rows import State

LISTENER_STATES: tuple[str, ...] = get_args(State)
ROLES = ("host", "admin", "unknown")
INCIDENTS = ("failure", "slow")
SERVER_ROLES = ("keeper", "bystander", "silent")


def _roster(field: str) -> Any:
    return lambda tally: {one.server: getattr(one, field) for one in tally.roster}


SERVER: tuple[MetricSpec, ...] = (
    MetricSpec(
        "opengns_server_ready",
        "gauge",
        "1 when the catalogue is loaded and requests are answered.",
        lambda tally: tally.ready,
    ),
    MetricSpec(
        "opengns_server_store_reachable",
        "gauge",
        "1 when the store took the last write. 0: writes are refused, reads and pushes go on from memory.",
        lambda tally: tally.store_reachable,
    ),
    MetricSpec("opengns_server_revision", "gauge", "The revision of the catalogue.", lambda tally: tally.revision),
    MetricSpec(
        "opengns_server_incidents_open",
        "gauge",
        "Incidents that administrators were told of and that are not over, by kind.",
        lambda tally: tally.incidents,
        ("kind",),
        INCIDENTS,
    ),
    MetricSpec(
        "opengns_server_alerts_pending",
        "gauge",
        "Incidents with something still to be told, by way to administrators; at the server that tells by it.",
        lambda tally: tally.alerts_pending,
        ("way",),
    ),
    MetricSpec(
        "opengns_server_listeners",
        "gauge",
        "Listeners in the catalogue, by state.",
        lambda tally: tally.listeners,
        ("state",),
        LISTENER_STATES,
    ),
    MetricSpec(
        "opengns_server_rows",
        "gauge",
        "Rows in the catalogue, by kind.",
        lambda tally: tally.rows,
        ("kind",),
        ("category", "service", "listener", "dependency", "credential", "host", "alert"),
    ),
    # Push.
    MetricSpec(
        "opengns_server_push_lag_seconds",
        "histogram",
        "From a commit to a dependant's acknowledgement; each dependant times one notice after another.",
        lambda tally: tally.push_lag,
    ),
    MetricSpec(
        "opengns_server_push_lag_open_seconds",
        "gauge",
        "How long the oldest timed notice waits for a dependant's acknowledgement; 0: there is none.",
        lambda tally: tally.lag_open_seconds,
    ),
    MetricSpec(
        "opengns_server_hosts_awaited",
        "gauge",
        "Hosts that have a timed notice to acknowledge.",
        lambda tally: tally.hosts_awaited,
    ),
    MetricSpec(
        "opengns_server_hosts_lagging",
        "gauge",
        "Hosts with a session that may not hold everything, when last looked (each second), counted to 1,001.",
        lambda tally: tally.hosts_lagging,
    ),
    MetricSpec(
        "opengns_server_sessions_behind",
        "gauge",
        "Sessions that read so slowly that they were taken off the stream until they read again.",
        lambda tally: tally.sessions_behind,
    ),
    MetricSpec(
        "opengns_server_push_queue_bytes",
        "gauge",
        "Octets that wait in sessions for their transport to take them: the backlog of push.",
        lambda tally: tally.push_queue_octets,
    ),
    MetricSpec(
        "opengns_server_notices",
        "counter",
        "Changes that somebody depends on.",
        lambda tally: tally.notices,
    ),
    MetricSpec(
        "opengns_server_deliveries",
        "counter",
        "Notices handed to sessions: one notice to a thousand hosts counts a thousand times.",
        lambda tally: tally.deliveries,
    ),
    # Who is here.
    MetricSpec(
        "opengns_server_sessions",
        "gauge",
        "OpenGNSP sessions, by the role that the peer has proven; unknown: it has said nothing yet.",
        lambda tally: tally.sessions,
        ("role",),
        ROLES,
    ),
    MetricSpec(
        "opengns_server_watching",
        "gauge",
        "Hosts with a session that are pushed to.",
        lambda tally: tally.watching,
    ),
    MetricSpec(
        "opengns_server_followers",
        "gauge",
        "Consoles and programs that follow the event stream over HTTPS.",
        lambda tally: tally.followers,
    ),
    MetricSpec(
        "opengns_server_connections_refused",
        "counter",
        "Connections that were not taken: too many, or too much came to nothing from there.",
        lambda tally: tally.connections_refused,
    ),
    MetricSpec(
        "opengns_server_admissions",
        "counter",
        "Turns of hosts that needed a snapshot: given at-once, waited for, or sent-away to come later.",
        lambda tally: tally.admission,
        ("turn",),
        ("at-once", "waited", "sent-away"),
    ),
    MetricSpec(
        "opengns_server_admission_wait_seconds",
        "gauge",
        "How long the next host that needs a snapshot would wait for its turn.",
        lambda tally: tally.admission_wait_seconds,
    ),
    MetricSpec(
        "opengns_server_snapshots_made",
        "counter",
        "Snapshots that were encoded; one serves all hosts of a kind.",
        lambda tally: tally.snapshots_made,
    ),
    # What is asked and written.
    MetricSpec(
        "opengns_server_requests",
        "counter",
        "Requests, over OpenGNSP and HTTPS, by message.",
        lambda tally: tally.requests,
        ("message",),
    ),
    MetricSpec(
        "opengns_server_refusals",
        "counter",
        "Requests that were answered with a refusal, by its code.",
        lambda tally: tally.refusals,
        ("code",),
        CODES,
    ),
    MetricSpec(
        "opengns_server_security_entries",
        "counter",
        "What was noted for the security log besides refused requests: bad certificates and tokens, sums of refusals.",
        lambda tally: tally.security_entries,
    ),
    MetricSpec(
        "opengns_server_changes",
        "counter",
        "Changes in the log since this process began, whichever server committed them, by operation: register, "
        "report (suspect), confirm (found dead), retract (was wrong), recover, …",
        lambda tally: tally.changes,
        ("operation",),
        ("register", "report", "confirm", "retract", "recover"),
    ),
    MetricSpec(
        "opengns_server_commits", "counter", "Transactions that this server committed.", lambda tally: tally.commits
    ),
    MetricSpec(
        "opengns_server_commits_again",
        "counter",
        "Of them, decided again because another server had committed in between.",
        lambda tally: tally.commits_again,
    ),
    MetricSpec(
        "opengns_server_commits_put_off",
        "counter",
        "Batches that were too far behind another server, and tried anew.",
        lambda tally: tally.commits_put_off,
    ),
    MetricSpec(
        "opengns_server_commit_seconds",
        "histogram",
        "Time of a transaction in the store.",
        lambda tally: tally.commit_seconds,
    ),
    MetricSpec(
        "opengns_server_commit_batch_size",
        "histogram",
        "Requests in a transaction.",
        lambda tally: tally.batch_sizes,
    ),
    MetricSpec(
        "opengns_server_commit_queue_length",
        "gauge",
        "Requests that wait for a transaction; at 20,000 they are refused as busy.",
        lambda tally: tally.queue_length,
    ),
    MetricSpec(
        "opengns_server_security_notes_waiting",
        "gauge",
        "Entries for the security log that wait for the store.",
        lambda tally: tally.notes_waiting,
    ),
    # Failures.
    MetricSpec(
        "opengns_server_probes",
        "counter",
        "Probes of listeners by this server, by result.",
        lambda tally: tally.probes,
        ("result",),
        ("answered", "failed"),
    ),
    MetricSpec(
        "opengns_server_findings",
        "counter",
        "What hosts found that were asked to probe a listener.",
        lambda tally: tally.findings,
        ("result",),
        ("alive", "dead"),
    ),
    MetricSpec(
        "opengns_server_inquiries_open",
        "gauge",
        "Listeners that this server finds out about because they are suspect, down or slow.",
        lambda tally: tally.inquiries,
    ),
    MetricSpec(
        "opengns_server_checks_open",
        "gauge",
        "Listeners in use that this server probes because of a report or a lost session.",
        lambda tally: tally.checks,
    ),
    MetricSpec(
        "opengns_server_suspicions_told",
        "gauge",
        "Listeners that hosts were told are suspect and that the store has not judged yet.",
        lambda tally: tally.suspicions_told,
    ),
    MetricSpec(
        "opengns_server_doubting",
        "gauge",
        "1 while this server does not believe its own probes: most fail, and no host finds the same.",
        lambda tally: tally.doubting,
    ),
    # The others.
    MetricSpec(
        "opengns_server_draining", "gauge", "1 while hosts are sent to other servers.", lambda tally: tally.draining
    ),
    MetricSpec(
        "opengns_server_known_servers",
        "gauge",
        "Servers (and workers) over the same store as this one knows them, itself included, by role.",
        lambda tally: tally.servers,
        ("role",),
        SERVER_ROLES,
    ),
    MetricSpec(
        "opengns_server_roster_sessions",
        "gauge",
        "Sessions of each server (and worker) over the same store, as it said with its last beat.",
        _roster("sessions"),
        ("server",),
    ),
    MetricSpec(
        "opengns_server_roster_watching",
        "gauge",
        "Hosts that each of them pushes to.",
        _roster("watching"),
        ("server",),
    ),
    MetricSpec(
        "opengns_server_roster_revisions_behind",
        "gauge",
        "Revisions that each of them is behind the newest.",
        _roster("lag"),
        ("server",),
    ),
)
