"""Metrics of `opengnscd`: the figures that the agent gathers on request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, get_args

import msgspec

from compass.model.host_api import Source
from compass.model.metrics import CERTIFICATE_SECONDS, CERTIFICATES_INVALID, Counts, counter, gauge


class AgentMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one `opengnscd` since its start, each declared as the metric `opengns_host_FIELD`.

    Their order is that in which they are read during an incident.
    """

    loaded: Annotated[bool, gauge("1 when there is a view to answer lookups from.")]
    session: Annotated[
        str,
        gauge(
            "1 for the state that the session with a server is in.",
            "state",
            known=("open", "connecting", "waiting", "stopped"),
        ),
    ]
    view_age_seconds: Annotated[
        float | None,
        gauge(
            "Time since a server last confirmed the view: 0 while this host is synchronized with a server, and "
            "with session = short until refresh_seconds after it disconnected. After a restart without a server: "
            "age of the view on disk. Without a view there is no such line."
        ),
    ]
    revision: Annotated[int, gauge("Revision up to which the view is complete.")]
    sessions_opened: Annotated[
        int, counter("Sessions with servers that were opened; all but the first are reconnects.")
    ]
    servers: Annotated[
        Counts,
        gauge(
            "Addresses of servers, by state of the connection.",
            "state",
            known=("open", "connecting", "ready", "asked-to-wait", "backing-off"),
        ),
    ]
    servers_known: Annotated[
        Counts, gauge("Addresses of servers, by the source that named them.", "source", known=get_args(Source))
    ]
    services: Annotated[int, gauge("Services for which this host subscribes.")]
    listeners: Annotated[int, gauge("Listeners in the view.")]
    registrations: Annotated[
        Counts,
        gauge(
            "Registrations of this host in the daemon's journal, by state; pending and leaving wait for a server.",
            "state",
            known=("pending", "registered", "leaving", "refused"),
        ),
    ]
    lookups: Annotated[
        Counts,
        counter(
            "Lookups over HTTP, by the source of the listeners; backup: none of the service's own listeners is "
            "left; none: there was no listener to return; refused: the name is unknown or nothing is loaded.",
            "source",
            known=("service", "backup", "draining", "suspect", "none", "refused"),
        ),
    ]
    services_unanswered: Annotated[
        int,
        gauge(
            "Services and categories that programs look up again and again (4 times within 5 minutes, over HTTP, DNS "
            "or the client library), or that templates render, and that have neither a listener nor a backup with one."
        ),
    ]
    notices: Annotated[
        Counts,
        counter(
            "Notices, by result; each gap was repaired by reading everything again.",
            "result",
            known=("applied", "duplicate", "gap"),
        ),
    ]
    snapshots: Annotated[int, counter("Whole views that were received from servers.")]
    cache_writes: Annotated[Counts, counter("Writes of the view to disk.", "result", known=("done", "failed"))]
    state_unwritten: Annotated[
        int,
        gauge("Files of the state directory whose last write failed: the view, the journal of registrations, or both."),
    ]
    reports: Annotated[
        Counts,
        counter(
            "Failure reports of programs, by result; pending reports are delivered later.",
            "result",
            known=("delivered", "pending", "refused"),
        ),
    ]
    suspicions: Annotated[
        Counts,
        gauge(
            "Listeners treated as suspect without an entry in the log: found dead here, or announced by a server.",
            "found",
            known=("here", "server"),
        ),
    ]
    reactions: Annotated[
        Mapping[tuple[str, str], int], counter("Runs of hooks and templates, by result.", "kind", "result")
    ]
    reactions_failing: Annotated[int, gauge("Hooks and templates whose last run failed.")]
    watchers: Annotated[int, gauge("Programs that watch for changes.")]
    certificate_seconds: Annotated[Mapping[str, float], CERTIFICATE_SECONDS] = {}
    certificates_invalid: Annotated[int, CERTIFICATES_INVALID] = 0
