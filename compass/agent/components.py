"""The components of opengnscd, and the one place where they are put together."""

from __future__ import annotations

from compass.agent.asked_services import AskedServices
from compass.agent.changes import Changes, ViewReader
from compass.agent.dependencies import REFRESH_SECONDS, AgentDependencies
from compass.agent.local_users import LocalUsers
from compass.agent.registration.comparison import Comparison
from compass.agent.registration.host_address import HostAddress
from compass.agent.registration.journal import RegistrationJournal
from compass.agent.registration.own_checks import OwnChecks
from compass.agent.registration.own_probe import OwnProbes
from compass.agent.registration.probe_responder import ProbeResponder
from compass.agent.registration.registrar import Registrar
from compass.agent.replica.change_feed import ChangeFeed
from compass.agent.replica.disk_cache import Cache, ReplicaContent
from compass.agent.replica.replica import Replica
from compass.agent.replica.shared_view import SharedMemoryWriter
from compass.agent.replica.suspicions import Suspicions
from compass.agent.replica.sync import ReplicaSync, SyncSettings
from compass.agent.replica.view import View
from compass.agent.replica.wanted_services import WantedServices
from compass.agent.report_checks import ReportChecks
from compass.agent.reports import Reports
from compass.agent.upstream.report_relay import ReportRelay
from compass.agent.upstream.upstream import Upstream
from compass.model.selection.policies import Location
from compass.model.selection.selector import Selector


class Components:
    """The parts of one agent. None of them does anything before it is started."""

    def __init__(self, parts: AgentDependencies) -> None:
        clock = parts.clock
        self.dependencies = parts
        self.upstream = Upstream(parts)
        self.journal = RegistrationJournal(parts.state_directory, parts.machine)
        self.replica = Replica()
        self.users = LocalUsers(clock, parts.trusted_users, parts.connections_max)
        self.wanted = WantedServices(self.journal, parts.services, parts.trusted_users)
        selector = Selector(parts.random, Location(parts.host_name, parts.zone))
        self.view = View(clock, self.replica, Suspicions(), selector)
        self.feed = ChangeFeed(self.view)
        self.cache = Cache(clock, parts.state_directory, ReplicaContent(self.replica, self.wanted))
        self.cache.written_again = self.journal.write_again
        self.shared_view = SharedMemoryWriter(clock, parts.view, parts.view_group, self.view)
        readers: list[ViewReader] = [self.shared_view] if parts.view is not None else []
        if parts.reactions is not None:
            readers.append(parts.reactions)
        responder = ProbeResponder(self.replica, parts.probe, self.upstream) if parts.probe else None
        self.changes = Changes(clock, self.view, readers, self.cache, self.feed, responder)
        self.address = address = HostAddress(parts)
        settings = _sync_settings(parts, address)
        self.sync = ReplicaSync(clock, self.upstream, self.replica, self.wanted, self.changes, settings)
        self.asked = AskedServices(clock, self.upstream, self.sync, parts.trusted_users)
        self.checks = OwnChecks(clock, self.journal, parts.checks, address)
        self.registrar = Registrar(parts, self.checks, self.upstream, self.sync, address)
        self.own_probes = OwnProbes(clock, self.journal, self.replica, parts.own_probe)
        if parts.own_probe is not None:
            self.registrar.on_registered = self.own_probes.registered
        self.comparison = Comparison(parts.host_name, self.journal, self.upstream, self.registrar)
        self.sync.book = self.comparison
        address.follow(self.upstream)
        address.follow(self.registrar)
        relay = ReportRelay(parts, self.upstream)
        checks = ReportChecks(self.replica, parts.probe, self.users)
        self.reports = Reports(parts, self.upstream, relay, self.view, self.changes, checks)
        self.upstream.add_listener(self.registrar)
        self.upstream.add_listener(self.reports)
        self.upstream.add_listener(self.asked)


def _sync_settings(parts: AgentDependencies, address: HostAddress) -> SyncSettings:
    return SyncSettings(
        refresh_seconds=REFRESH_SECONDS[parts.mode] if parts.refresh_seconds is None else parts.refresh_seconds,
        polls=parts.mode == "short",
        address=address,
        update_port=parts.update_port,
        probes=parts.probe is not None,
        instance=parts.instance,
    )
