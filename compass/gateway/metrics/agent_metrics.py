"""The metrics of `opengnscd`: one line for each, in the order in which an incident is looked at."""

from __future__ import annotations

from typing import get_args

from compass.gateway.metrics.exposition import SnapshotMetric, counter, gauge
from compass.model.host_api import Source

SESSIONS = ("open", "connecting", "waiting", "stopped")
WAYS = ("open", "connecting", "ready", "asked-to-wait", "backing-off")
SOURCES: tuple[str, ...] = get_args(Source)
STANDINGS = ("pending", "registered", "leaving", "refused")
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
        "How long no server has vouched for the view: 0 while this host is in step with one, and with session = short "
        "until refresh_seconds after it left. After a restart with no server: since the view on disk was written. "
        "Without a view there is no such line.",
        lambda now: now.view_age_seconds,
    ),
    gauge("opengns_host_revision", "Everything up to here is held.", lambda now: now.revision),
    counter(
        "opengns_host_sessions_opened",
        "Sessions with servers that were opened; all but the first are reconnects.",
        lambda now: now.sessions_opened,
    ),
    gauge("opengns_host_servers", "Ways to servers, by state.", lambda now: now.servers, ("state",), WAYS),
    gauge(
        "opengns_host_servers_known",
        "The same ways, by where they are known from.",
        lambda now: now.sources,
        ("source",),
        SOURCES,
    ),
    gauge("opengns_host_services", "Services on whose behalf this host is told.", lambda now: now.services),
    gauge("opengns_host_listeners", "Listeners that are held.", lambda now: now.listeners),
    gauge(
        "opengns_host_registrations",
        "Registrations of this host in the daemon's book, by state; pending and leaving wait for a server.",
        lambda now: now.registrations,
        ("state",),
        STANDINGS,
    ),
    counter(
        "opengns_host_lookups",
        "Lookups over HTTP by where the listeners came from; backup: none of the service's own is left; none: there "
        "was nobody to give; refused: the name is unknown or nothing is loaded.",
        lambda now: now.lookups,
        ("source",),
        LOOKUPS,
    ),
    counter(
        "opengns_host_notices",
        "Notices, by what came of them; each gap was mended by asking for everything anew.",
        lambda now: now.notices,
        ("result",),
        ("applied", "duplicate", "gap"),
    ),
    counter("opengns_host_snapshots", "Whole views that were taken from servers.", lambda now: now.snapshots),
    counter(
        "opengns_host_cache_writes",
        "Writes of the view to disk.",
        lambda now: now.cache_writes,
        ("result",),
        ("done", "failed"),
    ),
    counter(
        "opengns_host_reports",
        "Failure reports of programs, by what became of them; those that are pending are delivered later.",
        lambda now: now.reports,
        ("result",),
        ("delivered", "pending", "refused"),
    ),
    gauge(
        "opengns_host_suspicions",
        "Listeners treated as suspect beside the log: found dead here, or told so by a server.",
        lambda now: now.suspicions,
        ("found",),
        ("here", "server"),
    ),
    counter(
        "opengns_host_reactions",
        "Turns of hooks and templates, by result.",
        lambda now: now.reactions,
        ("kind", "result"),
    ),
    gauge(
        "opengns_host_reactions_failing",
        "Hooks and templates whose last turn failed.",
        lambda now: now.reactions_failing,
    ),
    gauge("opengns_host_watchers", "Programs that watch for changes.", lambda now: now.watchers),
)
