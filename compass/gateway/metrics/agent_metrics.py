"""Metrics of `opengnscd` from its snapshot, in the order in which one looks at them during an incident."""

from __future__ import annotations

from typing import get_args

from compass.gateway.metrics.exposition import SnapshotMetric, counter, gauge
from compass.model.host_api import Source

SESSIONS = ("open", "connecting", "waiting", "stopped")
SERVER_STATES = ("open", "connecting", "ready", "asked-to-wait", "backing-off")
SOURCES: tuple[str, ...] = get_args(Source)
REGISTRATION_STATES = ("pending", "registered", "leaving", "refused")
LOOKUPS = ("service", "backup", "draining", "suspect", "none", "refused")

HOST: tuple[SnapshotMetric, ...] = (
    gauge("opengns_host_loaded", "1 when there is a view to answer lookups from.", lambda now: now.loaded),
    gauge(
        "opengns_host_session",
        "1 for the state that the session with a server is in.",
        lambda now: {now.session: 1},
        ("state",),
        SESSIONS,
    ),
    gauge(
        "opengns_host_view_age_seconds",
        "Time since a server last confirmed the view: 0 while this host is synchronized with a server, and with "
        "session = short until refresh_seconds after it disconnected. After a restart without a server: age of the "
        "view on disk. Without a view there is no such line.",
        lambda now: now.view_age_seconds,
    ),
    gauge("opengns_host_revision", "Revision up to which the view is complete.", lambda now: now.revision),
    counter(
        "opengns_host_sessions_opened",
        "Sessions with servers that were opened; all but the first are reconnects.",
        lambda now: now.sessions_opened,
    ),
    gauge(
        "opengns_host_servers",
        "Addresses of servers, by state of the connection.",
        lambda now: now.servers,
        ("state",),
        SERVER_STATES,
    ),
    gauge(
        "opengns_host_servers_known",
        "Addresses of servers, by the source that named them.",
        lambda now: now.sources,
        ("source",),
        SOURCES,
    ),
    gauge("opengns_host_services", "Services for which this host subscribes.", lambda now: now.services),
    gauge("opengns_host_listeners", "Listeners in the view.", lambda now: now.listeners),
    gauge(
        "opengns_host_registrations",
        "Registrations of this host in the daemon's journal, by state; pending and leaving wait for a server.",
        lambda now: now.registrations,
        ("state",),
        REGISTRATION_STATES,
    ),
    counter(
        "opengns_host_lookups",
        "Lookups over HTTP, by the source of the listeners; backup: none of the service's own listeners is left; none: "
        "there was no listener to return; refused: the name is unknown or nothing is loaded.",
        lambda now: now.lookups,
        ("source",),
        LOOKUPS,
    ),
    counter(
        "opengns_host_notices",
        "Notices, by result; each gap was repaired by reading everything again.",
        lambda now: now.notices,
        ("result",),
        ("applied", "duplicate", "gap"),
    ),
    counter("opengns_host_snapshots", "Whole views that were received from servers.", lambda now: now.snapshots),
    counter(
        "opengns_host_cache_writes",
        "Writes of the view to disk.",
        lambda now: now.cache_writes,
        ("result",),
        ("done", "failed"),
    ),
    counter(
        "opengns_host_reports",
        "Failure reports of programs, by result; pending reports are delivered later.",
        lambda now: now.reports,
        ("result",),
        ("delivered", "pending", "refused"),
    ),
    gauge(
        "opengns_host_suspicions",
        "Listeners treated as suspect without an entry in the log: found dead here, or announced by a server.",
        lambda now: now.suspicions,
        ("found",),
        ("here", "server"),
    ),
    counter(
        "opengns_host_reactions",
        "Runs of hooks and templates, by result.",
        lambda now: now.reactions,
        ("kind", "result"),
    ),
    gauge(
        "opengns_host_reactions_failing",
        "Hooks and templates whose last run failed.",
        lambda now: now.reactions_failing,
    ),
    gauge("opengns_host_watchers", "Programs that watch for changes.", lambda now: now.watchers),
)
