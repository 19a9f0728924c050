"""The metrics of `opengnscd`: one line for each, in the order in which an incident is looked at."""

from __future__ import annotations

from typing import get_args

from compass.gateway.metrics.exposition import MetricSpec
from compass.model.host_api import Source

SESSIONS = ("open", "connecting", "waiting", "stopped")
WAYS = ("open", "connecting", "ready", "asked-to-wait", "backing-off")
SOURCES: tuple[str, ...] = get_args(Source)
STANDINGS = ("pending", "registered", "leaving", "refused")
LOOKUPS = ("service", "backup", "draining", "suspect", "none", "refused")

HOST: tuple[MetricSpec, ...] = (
    MetricSpec(
        "opengns_host_loaded",
        "gauge",
        "1 when there is a view to answer lookups from.",
        lambda tally: tally.loaded,
    ),
    MetricSpec(
        "opengns_host_session",
        "gauge",
        "1 for the state that the session with a server is in.",
        lambda tally: {tally.session: 1},
        ("state",),
        SESSIONS,
    ),
    MetricSpec(
        "opengns_host_view_age_seconds",
        "gauge",
        "How long no server has vouched for the view: 0 while this host is in step with one, and with session = short "
        "until refresh_seconds after it left. After a restart with no server: since the view on disk was written. "
        "Without a view there is no such line.",
        lambda tally: tally.view_age_seconds,
    ),
    MetricSpec("opengns_host_revision", "gauge", "Everything up to here is held.", lambda tally: tally.revision),
    MetricSpec(
        "opengns_host_sessions_opened",
        "counter",
        "Sessions with servers that were opened; all but the first are reconnects.",
        lambda tally: tally.sessions_opened,
    ),
    MetricSpec(
        "opengns_host_servers",
        "gauge",
        "Ways to servers, by state.",
        lambda tally: tally.servers,
        ("state",),
        WAYS,
    ),
    MetricSpec(
        "opengns_host_servers_known",
        "gauge",
        "The same ways, by where they are known from.",
        lambda tally: tally.sources,
        ("source",),
        SOURCES,
    ),
    MetricSpec(
        "opengns_host_services",
        "gauge",
        "Services on whose behalf this host is told.",
        lambda tally: tally.services,
    ),
    MetricSpec("opengns_host_listeners", "gauge", "Listeners that are held.", lambda tally: tally.listeners),
    MetricSpec(
        "opengns_host_registrations",
        "gauge",
        "Registrations of this host in the daemon's book, by state; pending and leaving wait for a server.",
        lambda tally: tally.registrations,
        ("state",),
        STANDINGS,
    ),
    MetricSpec(
        "opengns_host_lookups",
        "counter",
        "Lookups over HTTP by where the listeners came from; backup: none of the service's own is left; none: there "
        "was nobody to give; refused: the name is unknown or nothing is loaded.",
        lambda tally: tally.lookups,
        ("source",),
        LOOKUPS,
    ),
    MetricSpec(
        "opengns_host_notices",
        "counter",
        "Notices, by what came of them; each gap was mended by asking for everything anew.",
        lambda tally: tally.notices,
        ("result",),
        ("applied", "duplicate", "gap"),
    ),
    MetricSpec(
        "opengns_host_snapshots",
        "counter",
        "Whole views that were taken from servers.",
        lambda tally: tally.snapshots,
    ),
    MetricSpec(
        "opengns_host_cache_writes",
        "counter",
        "Writes of the view to disk.",
        lambda tally: tally.cache_writes,
        ("result",),
        ("done", "failed"),
    ),
    MetricSpec(
        "opengns_host_reports",
        "counter",
        "Failure reports of programs, by what became of them; those that are pending are delivered later.",
        lambda tally: tally.reports,
        ("result",),
        ("delivered", "pending", "refused"),
    ),
    MetricSpec(
        "opengns_host_suspicions",
        "gauge",
        "Listeners treated as suspect beside the log: found dead here, or told so by a server.",
        lambda tally: tally.suspicions,
        ("found",),
        ("here", "server"),
    ),
    MetricSpec(
        "opengns_host_reactions",
        "counter",
        "Turns of hooks and templates, by result.",
        lambda tally: tally.reactions,
        ("kind", "result"),
    ),
    MetricSpec(
        "opengns_host_reactions_failing",
        "gauge",
        "Hooks and templates whose last turn failed.",
        lambda tally: tally.reactions_failing,
    ),
    MetricSpec("opengns_host_watchers", "gauge", "Programs that watch for changes.", lambda tally: tally.watchers),
)
