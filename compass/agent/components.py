"""The components of opengnscd: what they are made of, and the one place where they are put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from compass.agent.changes import Changes, ViewReader
from compass.agent.hooks.runner import HookRunner
from compass.agent.local_users import CONNECTIONS_MAX, LocalUsers
from compass.agent.registration.journal import RegistrationJournal
from compass.agent.registration.probe_responder import Probe, ProbeResponder
from compass.agent.registration.process_watch import Watcher
from compass.agent.registration.registrar import Registrar, RegistrarDependencies
from compass.agent.replica.change_feed import ChangeFeed
from compass.agent.replica.disk_cache import Cache, ReplicaContent
from compass.agent.replica.replica import Replica
from compass.agent.replica.shared_view import SharedMemoryWriter
from compass.agent.replica.suspicions import Suspicions
from compass.agent.replica.sync import ReplicaSync, SyncSettings
from compass.agent.replica.view import View
from compass.agent.replica.wanted_services import WantedServices
from compass.agent.report_checks import ReportChecks
from compass.agent.reports import Reports, ReportsDependencies
from compass.agent.upstream.connector import Dial
from compass.agent.upstream.report_relay import ReportRelay
from compass.agent.upstream.server_selector import ServerSelector
from compass.agent.upstream.upstream import Mode, PeerOf, Upstream
from compass.model.interfaces import Clock
from compass.model.selection.policies import Location
from compass.model.selection.selector import Selector

SOFTWARE = "opengnscd"
REFRESH_SECONDS: dict[Mode, float] = {"keep": 3600.0, "short": 300.0}
"""Pause between watches; a change of which a host got no notice is seen after this time."""


class AgentDependencies(msgspec.Struct, frozen=True, kw_only=True):
    """Dependencies of an agent, which the daemon's assembly hands in."""

    clock: Clock
    now: Callable[[], float]
    """Wall clock."""
    random: Callable[[], float]
    """Source of random numbers from 0 to 1."""
    state_directory: Path
    host_name: str
    default_address: str
    """Address of the listeners whose programs name none."""
    selector: ServerSelector
    dial: Dial
    process_watch: Watcher
    peer_of: PeerOf
    update_port: int = 0
    """Port at which servers dial this host; 0: they cannot."""
    mode: Mode = "keep"
    refresh_seconds: float | None = None
    """Pause between watches; None: as the mode needs it."""
    software: str = SOFTWARE
    probe: Probe | None = None
    """Probe of a listener; without it the host answers no inquiries."""
    zone: str = ""
    services: Sequence[str] = ()
    """Services to watch for from the start, whether programs register or ask for them or not."""
    view: Path | None = None
    """Directory in which the view is shared."""
    view_group: int | None = None
    """Group that may read the shared view; None: every user may."""
    reactions: HookRunner | None = None
    """Hooks and templates."""
    trusted_users: frozenset[int] = frozenset()
    """Users of this machine without limits of their own: root, and the daemon's."""
    connections_max: int = CONNECTIONS_MAX
    """Connections of local programs at once."""


class Components(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of one agent."""

    dependencies: AgentDependencies
    upstream: Upstream
    replica: Replica
    wanted: WantedServices
    view: View
    feed: ChangeFeed
    cache: Cache
    shared_view: SharedMemoryWriter
    changes: Changes
    sync: ReplicaSync
    journal: RegistrationJournal
    registrar: Registrar
    reports: Reports
    users: LocalUsers


def build(parts: AgentDependencies) -> Components:
    """Make all components; none of them does anything before it is started."""
    clock = parts.clock
    users = LocalUsers(clock, parts.trusted_users, parts.connections_max)
    upstream = Upstream(clock, parts.selector, parts.dial, parts.peer_of, parts.software, parts.mode)
    journal = RegistrationJournal(parts.state_directory)
    replica, wanted = Replica(), WantedServices(journal, parts.services, parts.trusted_users)
    selector = Selector(parts.random, Location(parts.host_name, parts.zone))
    view = View(clock, replica, Suspicions(), selector)
    feed = ChangeFeed(view)
    cache = Cache(clock, parts.state_directory, ReplicaContent(replica, wanted))
    shared_view = SharedMemoryWriter(clock, parts.view, parts.view_group, view)
    readers: list[ViewReader] = [shared_view] if parts.view is not None else []
    if parts.reactions is not None:
        readers.append(parts.reactions)
    responder = ProbeResponder(replica, parts.probe, upstream) if parts.probe else None
    changes = Changes(clock, view, readers, cache, feed, responder)
    sync = ReplicaSync(clock, upstream, replica, wanted, changes, _sync_settings(parts))
    registrar = Registrar(
        RegistrarDependencies(
            clock=clock,
            now=parts.now,
            random=parts.random,
            journal=journal,
            server=upstream,
            subscriptions=sync,
            processes=parts.process_watch,
            default_address=parts.default_address,
            zone=parts.zone,
        )
    )
    relay = ReportRelay(clock, upstream, parts.dial, parts.software)
    reports = Reports(
        ReportsDependencies(
            clock=clock,
            random=parts.random,
            server=upstream,
            relay=relay,
            view=view,
            listener=changes,
            users=users,
            checks=ReportChecks(replica, parts.probe) if parts.probe is not None else None,
        )
    )
    upstream.add_listener(registrar)
    upstream.add_listener(reports)
    return Components(
        dependencies=parts,
        upstream=upstream,
        replica=replica,
        wanted=wanted,
        view=view,
        feed=feed,
        cache=cache,
        shared_view=shared_view,
        changes=changes,
        sync=sync,
        journal=journal,
        registrar=registrar,
        reports=reports,
        users=users,
    )


def _sync_settings(parts: AgentDependencies) -> SyncSettings:
    return SyncSettings(
        refresh_seconds=REFRESH_SECONDS[parts.mode] if parts.refresh_seconds is None else parts.refresh_seconds,
        polls=parts.mode == "short",
        update_address=parts.default_address if parts.update_port else "",
        update_port=parts.update_port,
        probes=parts.probe is not None,
    )
