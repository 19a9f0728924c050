"""The host's daemon: session, replica, disk, book and feed put together, and what local programs can ask of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger

from compass.agent.hooks.runner import HookRunner
from compass.agent.registration.journal import RegistrationJournal
from compass.agent.registration.probe_responder import Probe, ProbeResponder
from compass.agent.registration.registrar import Registrar, RegistrarDependencies, Watcher
from compass.agent.registration.states import TRANSIENT
from compass.agent.replica.change_feed import ChangeFeed, Deliver
from compass.agent.replica.disk_cache import Cache, CachedReplica
from compass.agent.replica.replica import Replica
from compass.agent.replica.shared_view import SharedMemoryWriter
from compass.agent.replica.suspicions import ANEW_SECONDS, Suspicions
from compass.agent.replica.sync import ReplicaSync
from compass.agent.upstream.connector import Dial
from compass.agent.upstream.report_relay import ReportRelay
from compass.agent.upstream.server_selector import Candidate, ServerSelector
from compass.agent.upstream.upstream import Mode, PeerOf, Upstream
from compass.model.backoff import Backoff
from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.interest import snapshot
from compass.model.catalogue.lookup_scope import LookupScope
from compass.model.host_api import (
    HostStatus,
    LocalDeregister,
    LocalDrain,
    LocalLoad,
    LocalRegister,
    LocalReport,
    Outcome,
    RegistrationStatus,
    Resolved,
)
from compass.model.interfaces import Clock, Timer
from compass.model.metrics import AgentMetrics
from compass.model.names import InvalidName, parse_address, parse_port, parse_service_id
from compass.model.replies import CategoryView, Dependencies, Refusal, Reply, Reported, ServiceView
from compass.model.requests import Report
from compass.model.rows import USABLE, Change, ListenerKey
from compass.model.selection.policies import Location
from compass.model.selection.selector import Selector
from compass.wire.messages import Suspicion
from compass.wire.shared_view import Shared

SOFTWARE = "opengnscd"
REFRESH_SECONDS: dict[Mode, float] = {"keep": 3600.0, "short": 300.0}
"""Seconds between two checks that the host's view is complete; an error of push is found after this time."""


class AgentDependencies(msgspec.Struct, frozen=True, kw_only=True):
    """Dependencies of an agent, which the daemon's assembly hands in."""

    clock: Clock
    now: Callable[[], float]
    random: Callable[[], float]
    """Random numbers from 0 to 1; handed in, as all randomness is."""
    state_directory: Path
    host_name: str
    default_address: str
    """Address of listeners whose programs name none."""
    choice: ServerSelector
    dial: Dial
    process_watch: Watcher
    peer_of: PeerOf
    update_port: int = 0
    """Port at which servers reach this host; 0: none."""
    mode: Mode = "keep"
    refresh_seconds: float | None = None
    """Seconds between two checks that the view is complete; None: the default of the mode."""
    software: str = SOFTWARE
    probe: Probe | None = None
    """Asks a listener whether it serves; without it the host answers no inquiries."""
    zone: str = ""
    """Zone of the host."""
    services: Sequence[str] = ()
    """Services on whose behalf the host receives changes from the start, whether they register and ask here or not."""
    view: Path | None = None
    """The directory in which its view is shared."""
    view_group: int | None = None
    """Group that may read the view; None: every user."""
    reactions: HookRunner | None = None
    """The hooks and templates that follow what may be looked up here."""


class Agent:
    """Agent: one per machine. Lookups are answered at once from memory; requests go into the journal and to a
    server."""

    _log = Logger()

    def __init__(self, parts: AgentDependencies) -> None:
        self._parts = parts
        clock, random = parts.clock, parts.random
        self._vouched_until: float | None = None
        """End of the last session that was up to date, in the clock's seconds; None: there was none."""
        look = REFRESH_SECONDS[parts.mode] if parts.refresh_seconds is None else parts.refresh_seconds
        self._looks_every = look if parts.mode == "short" else 0.0
        """Seconds between polls in the mode `short`, where no session is kept; 0 in all other modes."""
        self._in_step = False
        self._lookups = Counter[str]()
        self._reported = Counter[str]()
        self.pools = Selector(random, Location(parts.host_name, parts.zone))
        """Selector for every kind of lookup on this host, with the memory of policies that take turns."""
        self._replica = Replica()
        self._evidence = Suspicions()
        self._book = RegistrationJournal(parts.state_directory)
        self._cache = Cache(clock, parts.state_directory, self._cached)
        probe = parts.probe
        self._witness = (
            ProbeResponder(self._replica, probe, lambda request: self._upstream.ask(request)) if probe else None
        )
        self._publisher = SharedMemoryWriter(clock, parts.view, parts.view_group, self._shared)
        self._published: tuple[LookupScope, frozenset[str], Shared] | None = None
        self._feed = ChangeFeed(lambda service: self._replica.dependencies(service, self._overlay))
        self._following = ReplicaSync(
            clock,
            self._replica,
            look,
            (parts.default_address if parts.update_port else "", parts.update_port),
            self._changed,
            self._replaced,
            self._settled,
            self._lost,
            lambda: self._book.services().union(parts.services),
            self._suspected,
            self._witness.inquired if self._witness else None,
        )
        self._upstream = Upstream(
            clock, parts.choice, parts.dial, self._following, parts.software, parts.mode, peer_of=parts.peer_of
        )
        self._following.upstream = self._upstream
        self._registrar = Registrar(
            RegistrarDependencies(
                clock=clock,
                now=parts.now,
                random=random,
                journal=self._book,
                server=self._upstream,
                subscriptions=self,
                processes=parts.process_watch,
                default_address=parts.default_address,
                zone=parts.zone,
            )
        )
        self._elsewhere = ReportRelay(
            clock, self._upstream.others, parts.dial, self._upstream.problem_with, parts.software, self._told_elsewhere
        )
        self._pauses = Backoff(random)
        self._repeat: Timer | None = None
        self._retold: dict[str, Timer] = {}
        """Timers by service id: when programs are notified that suspicions about its listeners have expired."""

    # Life -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Answer from what the disk has, and go for a session."""
        try:
            self._parts.state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            self._log.warn("cannot make {path}: {error}", path=self._parts.state_directory, error=error)
        cached = self._cache.load()
        self._book.load()
        if cached is not None and cached.loaded:
            self._replica.restore(cached.store, cached.services, cached.held)
            self._vouched_until = self._parts.clock.seconds() - self._cache.age_seconds(self._parts.now())
            self._feed.replaced(self._replica.catalogue)
        wanted = dict.fromkeys(
            [*self._parts.services, *(cached.wanted if cached else ()), *sorted(self._book.services())]
        )
        self._following.start(wanted)
        self._publisher.start()
        if self._parts.reactions is not None:
            self._parts.reactions.start(self.sight)
        self._registrar.start()
        self._upstream.start()

    def stop(self) -> Deferred[None]:
        """Leave the server, keep everything: services stay registered, and the next run goes on from the disk."""
        self._registrar.stop()
        self._following.stop()
        self._publisher.stop()
        if self._parts.reactions is not None:
            self._parts.reactions.stop()
        self._elsewhere.stop()
        for timer in (self._repeat, *self._retold.values()):
            if timer is not None and timer.active():
                timer.cancel()
        stopped = self._upstream.stop()
        self._cache.close()
        return stopped

    def update_factory(self) -> IProtocolFactory:
        """Return the factory for the Update listener that servers dial."""
        return cast(IProtocolFactory, self._upstream.update_factory())

    def servers_found(self, origin: str, offers: Sequence[Candidate]) -> None:
        """Replace the servers that one origin, DNS or announcements, has proposed."""
        self._upstream.offer(origin, offers)

    # What local programs ask ------------------------------------------------------------------------------

    def dependencies(self, service: str) -> Deferred[Dependencies | Refusal]:
        """Function 2.3; fires at once when it is known here, else when a server has answered or cannot."""
        try:
            service = parse_service_id(service)
        except InvalidName as problem:
            return succeed(Refusal(problem.code, str(problem)))
        refusal = self.want(service)
        if refusal is not None:
            return succeed(refusal)
        known = self._replica.dependencies(service, self._overlay)
        if not (isinstance(known, Refusal) and known.code == "not-ready"):
            return succeed(known)

        def answered(result: None) -> Dependencies | Refusal:
            answer = self._replica.dependencies(service, self._overlay)
            if isinstance(answer, Refusal) and answer.code == "not-ready" and self._upstream.problem:
                text = f"{answer.message} ({self._upstream.problem})"
                return Refusal("not-ready", text, answer.retry_after_seconds)
            return answer

        return self._following.when_watched(service).addCallback(answered)

    def resolve(self, name: str) -> Resolved | Refusal:
        """The listeners to use now for a service or a category, best first; from memory, always at once."""
        found = self._replica.resolve(name, self.pools, self._overlay)
        self._lookups["refused" if isinstance(found, Refusal) else found.source] += 1
        return found

    def sight(self) -> LookupScope | None:
        """Return the scope of lookups here, the same object until a change, or None if the view is not loaded yet."""
        return self._replica.sight(self._overlay)

    def category(self, name: str) -> CategoryView | Refusal:
        """All registered listeners of a category, whatever their state; from memory."""
        return self._replica.category(name, self._overlay)

    def service(self, id: str) -> ServiceView | Refusal:
        """All registered listeners of a service, whatever their state; from memory. The id is parsed."""
        return self._replica.service(id, self._overlay)

    def register(self, request: LocalRegister) -> Deferred[Outcome | Refusal]:
        """Function 2.1."""
        return self._registrar.register(request)

    def deregister(self, request: LocalDeregister) -> Deferred[Outcome | Refusal]:
        """Function 2.2."""
        return self._registrar.deregister(request)

    def report_load(self, request: LocalLoad) -> Deferred[Outcome | Refusal]:
        """Report the load of a listener of this host."""
        return self._registrar.report_load(request)

    def drain(self, request: LocalDrain) -> Deferred[Outcome | Refusal]:
        """Set whether a listener of this host accepts new users."""
        return self._registrar.drain(request)

    def released(self, outcome: Outcome) -> None:
        """The connection that a registration with `hold` was asked on is closed."""
        self._registrar.connection_closed(outcome)

    def report(self, request: LocalReport) -> Deferred[Outcome | Refusal]:
        """Function 2.5; this host stops using the listener at once, whatever a server will find."""
        try:
            key = (
                parse_service_id(request.service),
                parse_address(request.address),
                parse_port(request.port),
            )
        except InvalidName as problem:
            return succeed(Refusal(problem.code, str(problem)))
        row = self._replica.catalogue.listener(*key)
        suspects = request.state == "unreachable" and row is not None and row.state in USABLE
        if suspects and row is not None:
            self._evidence.add(request, row, self._parts.clock.seconds())
            self._seen_anew()
        return self._deliver_report(request, key, suspects)

    def watch(self, service: str, since: int | None, deliver: Deliver) -> Deferred[Callable[[], None] | Refusal]:
        """Deliver what `service` depends on, now and at every change; fires with what ends it, or a refusal."""

        def answered(known: Dependencies | Refusal) -> Callable[[], None] | Refusal:
            if isinstance(known, Refusal):
                return known
            catalogue = self._replica.catalogue
            # No revision shows what a program has missed outside the log.
            resumes = since if self._overlay(catalogue) is catalogue else None
            return self._feed.subscribe(known.service, resumes, catalogue, deliver)

        return self.dependencies(service).addCallback(answered)

    def status(self) -> HostStatus:
        """The daemon in figures."""
        return HostStatus(
            host=self._parts.host_name,
            session=self._upstream.status,
            server=self._upstream.server,
            store=self._replica.store,
            revision=self._replica.revision,
            loaded=self._replica.loaded,
            services=tuple(sorted(self._following.wanted)),
            listeners=sum(len(peers) for peers in self._replica.catalogue.listeners.values()),
            registrations=tuple(
                RegistrationStatus(
                    entry.service,
                    entry.address,
                    entry.port,
                    entry.epoch,
                    entry.state,
                    entry.pid,
                    entry.hold,
                    entry.problem,
                )
                for entry in self._book.all()
            ),
            problem=self._upstream.problem,
            zone=self._parts.zone,
            servers=self._upstream.servers(),
            view=str(self._parts.view) if self._publisher.published else "",
            reactions=self._parts.reactions.status() if self._parts.reactions is not None else (),
        )

    def tally(self) -> AgentMetrics:
        """The daemon in numbers."""
        ways = self._upstream.servers()
        reactions = self._parts.reactions
        return AgentMetrics(
            host=self._parts.host_name,
            loaded=self._replica.loaded,
            revision=self._replica.revision,
            view_age_seconds=self._view_age(),
            session=self._upstream.status,
            sessions_opened=self._upstream.opened_count,
            servers=Counter(way.state for way in ways),
            sources=Counter(way.source for way in ways),
            services=len(self._following.wanted),
            listeners=sum(map(len, self._replica.catalogue.listeners.values())),
            registrations=Counter(entry.state for entry in self._book.all()),
            lookups=self._lookups,
            notices=self._following.notices,
            snapshots=self._following.snapshots,
            cache_writes=self._cache.writes,
            reports=self._reported,
            suspicions=self._evidence.counts,
            reactions=reactions.turns if reactions is not None else {},
            reactions_failing=reactions.failing if reactions is not None else 0,
            watchers=len(self._feed),
        )

    def _view_age(self) -> float | None:
        """Return the seconds since a server last confirmed the view, or None if there is no view."""
        if not self._replica.loaded:
            return None
        if self._in_step or self._vouched_until is None:
            return 0.0
        return max(0.0, self._parts.clock.seconds() - self._vouched_until - self._looks_every)

    # Between the parts ------------------------------------------------------------------------------------

    def _overlay(self, catalogue: Catalogue) -> Catalogue:
        return self._evidence.apply_to(catalogue, self._parts.clock.seconds())

    def want(self, service: str) -> Refusal | None:
        """Watch for this service too."""
        before = self._following.wanted
        refusal = self._following.want(service)
        if set(before) != set(self._following.wanted):
            self._cache.changed()
        return refusal

    def _seen_anew(self) -> None:
        """Notify everything that depends on the scope of lookups of a change."""
        self._publisher.changed()
        if self._parts.reactions is not None:
            self._parts.reactions.changed()

    def _changed(self, change: Change) -> None:
        self._seen_anew()
        self._cache.changed()
        self._feed.changed(change, self._replica.catalogue)

    def _replaced(self) -> None:
        self._seen_anew()
        self._cache.changed()
        self._feed.replaced(self._replica.catalogue)

    def _settled(self) -> None:
        self._in_step = True
        self._registrar.session_settled()
        self._pauses.reset()
        self._repeat_reports()

    def _lost(self) -> None:
        if self._in_step:
            self._in_step, self._vouched_until = False, self._parts.clock.seconds()
        self._registrar.session_ended()

    def _suspected(self, suspicion: Suspicion | None) -> None:
        """Apply a suspicion of a server that its store cannot write now; None: the server starts again."""
        now = self._parts.clock.seconds()
        self._seen_anew()
        if suspicion is None:
            self._evidence.renew_notified(now)
            for service in self._retold:
                self._retell(service, ANEW_SECONDS)
            return
        row = self._replica.catalogue.listener(suspicion.service, suspicion.address, suspicion.port)
        if row is not None and row.epoch == suspicion.epoch:
            seconds = self._evidence.add_notified(suspicion, row, now)
            self._feed.suspected(row.service)
            if seconds:
                self._retell(row.service, seconds)

    def _retell(self, service: str, seconds: float) -> None:
        timer = self._retold.get(service)
        if timer is not None and timer.active():
            timer.cancel()
        self._retold[service] = self._parts.clock.callLater(seconds, self._feed.suspected, service)

    def _told_elsewhere(self, report: Report, reply: Reply) -> None:
        if isinstance(reply, Reported):
            key = report.service, report.address, report.port
            self._evidence.delivered(key, reply.state, self._parts.clock.seconds())

    def _repeat_reports(self) -> None:
        for report in self._evidence.undelivered(self._replica.catalogue, self._parts.clock.seconds()):
            self._deliver_report(report, (report.service, report.address, report.port), suspects=True, again=True)

    def _repeat_later(self, refusal: Refusal) -> None:
        """No server has taken a report; a session that is made meanwhile begins with it."""
        if self._repeat is None or not self._repeat.active():
            pause = self._pauses.next(refusal.retry_after_seconds)
            self._repeat = self._parts.clock.callLater(pause, self._repeat_reports)

    def _deliver_report(
        self, request: LocalReport, key: ListenerKey, suspects: bool, again: bool = False
    ) -> Deferred[Outcome | Refusal]:
        def answered(reply: Reply) -> Outcome | Refusal:
            if isinstance(reply, Reported):
                self._pauses.reset()
                self._reported["delivered"] += 1
                self._evidence.delivered(key, reply.state, self._parts.clock.seconds())
                return Outcome(reply.state, *key, revision=reply.revision)
            refusal = reply if isinstance(reply, Refusal) else Refusal("out-of-turn", f"the server answered {reply}")
            if refusal.code not in TRANSIENT:
                self._evidence.dismiss(key)
            elif suspects:
                self._reported["pending"] += not again
                if refusal.code == "store-unavailable" and not again:
                    self._elsewhere.send(report)
                self._repeat_later(refusal)
                return Outcome("pending", *key)
            self._reported["refused"] += 1
            return refusal

        service, address, port = key
        report = Report(service, address, port, request.state, request.reporter, request.detail)
        return self._upstream.ask(report).addCallback(answered)

    def _cached(self) -> CachedReplica:
        return CachedReplica(
            store=self._replica.store,
            services=tuple(sorted(self._replica.services)),
            held=self._replica.held(),
            loaded=self._replica.loaded,
            wanted=self._following.wanted,
        )

    def _shared(self) -> Shared | None:
        """Return what programs find in memory, the same object until a change."""
        sight, services = self.sight(), self._replica.services
        if sight is None:
            return None
        last = self._published
        if last is None or last[0] is not sight or last[1] is not services:
            held = snapshot(sight.catalogue, sight.catalogue.topics)
            held = msgspec.structs.replace(held, revision=self._replica.revision)
            shared = Shared(self._parts.host_name, self._parts.zone, self._replica.store, tuple(sorted(services)), held)
            self._published = last = sight, services, shared
        return last[2]
