"""Metrics of a server: name, meaning and the component that counts, in the order of their use during an incident.

Nothing here walks through the catalogue. What grows with the number of sessions is one pass over them, a fraction of
a microsecond for each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import get_args

from compass.model.cluster import Heartbeat, Role
from compass.model.metrics import BATCH_BOUNDS, COMMIT_BOUNDS, LAG_BOUNDS, Histogram, Kind, MetricSpec, Registry, Value
from compass.model.replies import CODES
from compass.model.rows import State
from compass.server.components import Components
from compass.server.https_api import HttpsApi

LISTENER_STATES: tuple[str, ...] = get_args(State)

Metric = tuple[MetricSpec, Callable[[HttpsApi], Value]]


def declare_metrics(registry: Registry, api: HttpsApi) -> None:
    """Declare all metrics of a server; each is read when the registry is rendered."""
    for spec, read in SERVER:
        registry.declare(spec, partial(read, api))


def _early(
    kind: Kind,
    name: str,
    about: str,
    read: Callable[[HttpsApi], Value],
    labels: tuple[str, ...] = (),
    known: tuple[str, ...] = (),
) -> Metric:
    """Return a metric that has a value before the catalogue is loaded."""
    return MetricSpec(name, kind, about, labels, known), read


def _metric(
    kind: Kind,
    name: str,
    about: str,
    read: Callable[[Components], Value],
    labels: tuple[str, ...] = (),
    known: tuple[str, ...] = (),
    absent: Histogram | None = None,
) -> Metric:
    """Return a metric that has the value 0, or `absent`, until the catalogue is loaded."""
    empty: Value = absent or ({} if labels else 0)
    return _early(kind, name, about, lambda api: read(api.router.components) if api.router else empty, labels, known)


def _sessions(api: HttpsApi) -> Value:
    known = +api.connections.by_role
    return {**known, "unknown": len(api.connections.sessions) - known.total()}


def _requests(api: HttpsApi) -> Value:
    asked = api.router.asked if api.router is not None else {}
    return {str(kind.__struct_config__.tag): number for kind, number in asked.items()}


def _others(c: Components) -> list[Heartbeat]:
    """Return the last heartbeats of the other servers over the store, oldest server first.

    A server that was restarted leaves a silent heartbeat of the same name for a while; the younger one counts.
    """
    beats = [peer.line for id, peer in c.cluster.peers.items() if id != c.cluster.id]
    return sorted(beats, key=lambda beat: beat.started_at)


def _behind(c: Components) -> Value:
    revisions = {beat.name: beat.revision for beat in _others(c)}
    newest = max([c.committer.catalogue.revision, *(beat.revision for beat in _others(c))])
    revisions[c.identity.name] = c.committer.catalogue.revision
    return {name: newest - revision for name, revision in revisions.items()}


_gauge, _counter = partial(_metric, "gauge"), partial(_metric, "counter")
_histogram = partial(_metric, "histogram")
_early_gauge, _early_counter = partial(_early, "gauge"), partial(_early, "counter")

SERVER: tuple[Metric, ...] = (
    _early_gauge(
        "opengns_server_ready",
        "1 when the catalogue is loaded and requests are answered.",
        lambda api: api.router is not None,
    ),
    _early_gauge(
        "opengns_server_store_reachable",
        "1 when the store accepted the last write. 0: writes are refused, reads and pushes continue from memory.",
        lambda api: api.store_answers,
    ),
    _gauge("opengns_server_revision", "The revision of the catalogue.", lambda c: c.committer.catalogue.revision),
    _gauge(
        "opengns_server_incidents_open",
        "Open incidents of which administrators were notified, by kind.",
        lambda c: c.committer.replica.counts.incidents,
        ("kind",),
        ("failure", "slow"),
    ),
    _gauge(
        "opengns_server_alerts_pending",
        "Incidents with unsent messages, by channel to administrators; on the server that sends by the channel.",
        lambda c: {way.name: way.pending for way in c.alerts.status().ways if way.tells},
        ("way",),
    ),
    _gauge(
        "opengns_server_listeners",
        "Listeners in the catalogue, by state.",
        lambda c: c.committer.replica.counts.listeners,
        ("state",),
        LISTENER_STATES,
    ),
    _gauge(
        "opengns_server_rows",
        "Rows in the catalogue, by kind.",
        lambda c: c.committer.replica.counts.rows,
        ("kind",),
        ("category", "service", "listener", "dependency", "credential", "host", "alert"),
    ),
    # Push.
    _histogram(
        "opengns_server_push_lag_seconds",
        "From a commit to a dependant's acknowledgement; each dependant times one notice after another.",
        lambda c: c.publisher.push_lag,
        absent=Histogram(LAG_BOUNDS),
    ),
    _gauge(
        "opengns_server_push_lag_open_seconds",
        "How long the oldest timed notice waits for a dependant's acknowledgement; 0: there is none.",
        lambda c: c.publisher.awaited()[1],
    ),
    _gauge(
        "opengns_server_hosts_awaited",
        "Hosts that have a timed notice to acknowledge.",
        lambda c: c.publisher.awaited()[0],
    ),
    _gauge(
        "opengns_server_hosts_lagging",
        "Hosts with a session that may lag, at the last check (each second), counted up to 1,001.",
        lambda c: c.publisher.doubtful,
    ),
    _early_gauge(
        "opengns_server_sessions_behind",
        "Sessions that read too slowly, and get no notices until they read again.",
        lambda api: sum(session.behind for session in api.connections.sessions),
    ),
    _early_gauge(
        "opengns_server_push_queue_bytes",
        "Octets that wait in sessions for their transport: the backlog of push.",
        lambda api: sum(session.queued_octets for session in api.connections.sessions),
    ),
    _counter("opengns_server_notices", "Changes with at least one dependant.", lambda c: c.publisher.notices),
    _counter(
        "opengns_server_deliveries",
        "Notices written to sessions: one notice to a thousand hosts counts a thousand times.",
        lambda c: c.publisher.deliveries,
    ),
    # Who is here.
    _early_gauge(
        "opengns_server_sessions",
        "OpenGNSP sessions, by the role that the peer has proven; unknown: the peer has sent nothing yet.",
        _sessions,
        ("role",),
        ("host", "admin", "unknown"),
    ),
    _gauge("opengns_server_watching", "Hosts with a session and a subscription.", lambda c: c.publisher.watching),
    _gauge(
        "opengns_server_followers",
        "Consoles and programs that follow the event stream over HTTPS.",
        lambda c: c.change_feed.followers,
    ),
    _early_counter(
        "opengns_server_connections_refused",
        "Connections that were refused: too many, or too many failures from the same address.",
        lambda api: api.connections.refused,
    ),
    _counter(
        "opengns_server_admissions",
        "Turns of hosts that needed a snapshot: granted at-once, after a wait (waited), or refused for a retry later "
        "(sent-away).",
        lambda c: c.subscriptions.admission.turns,
        ("turn",),
        ("at-once", "waited", "sent-away"),
    ),
    _gauge(
        "opengns_server_admission_wait_seconds",
        "Time that the next host that needs a snapshot would wait for its turn.",
        lambda c: c.subscriptions.admission.wait_seconds,
    ),
    _counter(
        "opengns_server_snapshots_made",
        "Snapshots that were encoded; one serves all hosts with the same interest.",
        lambda c: c.subscriptions.snapshots.made,
    ),
    # What is asked and written.
    _early_counter(
        "opengns_server_requests", "Requests, over OpenGNSP and HTTPS, by message.", _requests, ("message",)
    ),
    _early_counter(
        "opengns_server_refusals",
        "Requests that were answered with a refusal, by its code.",
        lambda api: api.sessions.refusals,
        ("code",),
        CODES,
    ),
    _counter(
        "opengns_server_security_entries",
        "Entries for the security log other than refused requests: bad certificates and tokens, sums of refusals.",
        lambda c: c.committer.security_log.added,
    ),
    _counter(
        "opengns_server_changes",
        "Changes in the log since the start of this process, whichever server committed them, by operation: register, "
        "report (suspect), confirm (found dead), retract (was wrong), recover, …",
        lambda c: c.changes.operations,
        ("operation",),
        ("register", "report", "confirm", "retract", "recover"),
    ),
    _counter(
        "opengns_server_commits",
        "Transactions that this server committed.",
        lambda c: c.committer.writer.counts["batches"],
    ),
    _counter(
        "opengns_server_commits_again",
        "Transactions of this server that were decided again, because another server had committed in between.",
        lambda c: c.committer.writer.counts["again"],
    ),
    _counter(
        "opengns_server_commits_put_off",
        "Batches that started over, because this server was too far behind another one.",
        lambda c: c.committer.writer.counts["put off"],
    ),
    _histogram(
        "opengns_server_commit_seconds",
        "Time of a transaction in the store.",
        lambda c: c.committer.writer.commit_seconds,
        absent=Histogram(COMMIT_BOUNDS),
    ),
    _histogram(
        "opengns_server_commit_batch_size",
        "Requests in a transaction.",
        lambda c: c.committer.writer.batch_sizes,
        absent=Histogram(BATCH_BOUNDS),
    ),
    _gauge(
        "opengns_server_commit_queue_length",
        "Requests that wait for a transaction; at 20,000 they are refused as busy.",
        lambda c: c.committer.queue_length,
    ),
    _gauge(
        "opengns_server_security_notes_waiting",
        "Entries for the security log that wait for the store.",
        lambda c: len(c.committer.security_log),
    ),
    # Failures.
    _counter(
        "opengns_server_probes",
        "Probes of listeners by this server, by result.",
        lambda c: c.detector.records.probes,
        ("result",),
        ("answered", "failed"),
    ),
    _counter(
        "opengns_server_findings",
        "What hosts found that were asked to probe a listener.",
        lambda c: c.detector.records.found,
        ("result",),
        ("alive", "dead"),
    ),
    _gauge(
        "opengns_server_inquiries_open",
        "Listeners that this server checks because they are suspect, down or slow.",
        lambda c: c.detector.open_inquiries,
    ),
    _gauge(
        "opengns_server_checks_open",
        "Listeners in use that this server probes because of a report or a lost session.",
        lambda c: c.detector.open_checks,
    ),
    _gauge(
        "opengns_server_suspicions_told",
        "Listeners that were announced to hosts as suspect before the store could record it.",
        lambda c: len(c.pending_suspicions),
    ),
    _gauge(
        "opengns_server_doubting",
        "1 while this server distrusts its own probes: most fail, and no host confirms them.",
        lambda c: c.detector.local_health.is_in_doubt,
    ),
    # The others.
    _early_gauge(
        "opengns_server_draining",
        "1 while hosts are sent to other servers.",
        lambda api: api.drain.redirect is not None,
    ),
    _gauge(
        "opengns_server_known_servers",
        "Servers (and workers) over the same store as this one knows them, itself included, by role.",
        lambda c: Counter[str](c.cluster.role(id) for id in {c.cluster.id, *c.cluster.peers}),
        ("role",),
        get_args(Role),
    ),
    _gauge(
        "opengns_server_roster_sessions",
        "Sessions of each server (and worker) over the same store, at its last heartbeat.",
        lambda c: {beat.name: beat.sessions for beat in _others(c)} | {c.identity.name: len(c.connections.sessions)},
        ("server",),
    ),
    _gauge(
        "opengns_server_roster_watching",
        "Subscribed hosts of each of them.",
        lambda c: {beat.name: beat.watching for beat in _others(c)} | {c.identity.name: c.publisher.watching},
        ("server",),
    ),
    _gauge(
        "opengns_server_roster_revisions_behind",
        "Revisions by which each server (and worker) lags the newest.",
        _behind,
        ("server",),
    ),
)
