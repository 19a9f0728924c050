"""Interface for programs on the host: implements the gateway's HostApi."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred, succeed

from compass.agent.components import Components
from compass.agent.metrics import AgentMetrics
from compass.agent.registration.journal import Registration
from compass.agent.replica.change_feed import Deliver
from compass.agent.upstream.refusals import TRANSIENT
from compass.model.host_api import (
    CertificateStatus,
    HostStatus,
    LocalCheckResult,
    LocalDeregister,
    LocalDrain,
    LocalLoad,
    LocalRegister,
    LocalReport,
    Outcome,
    RegistrationStatus,
    Resolved,
    UnansweredName,
)
from compass.model.names import InvalidName, parse_service_id
from compass.model.replies import CategoryView, Dependencies, Refusal, Reply
from compass.model.requests import Pull
from compass.model.rules.certificates import condition_of, problems_of, seconds_left
from compass.system.peer_credentials import UNKNOWN_USER


class LocalApi:
    """Requests of local programs, each handed to the component that answers it."""

    def __init__(self, components: Components) -> None:
        self._parts = components.dependencies
        self._components = components
        self._view = components.view
        self._sync = components.sync
        self._registrar = components.registrar
        self._users = components.users

    def dependencies(self, service: str, user: int = UNKNOWN_USER) -> Deferred[Dependencies | Refusal]:
        """Function 2.3. Fires at once if the answer is known, else when a server has answered or cannot be asked."""
        try:
            service = parse_service_id(service)
        except InvalidName as problem:
            return succeed(Refusal(problem.code, str(problem)))
        if service in self._components.wanted or self._view.replica.catalogue.service(service) is not None:
            return self._followed(service, user)
        pulled: Deferred[Reply] = self._users.ask(user, lambda _: self._components.upstream.ask(Pull(service)))
        return pulled.addCallback(self._pulled, service, user)

    def _pulled(self, reply: Reply, service: str, user: int) -> Deferred[Dependencies | Refusal]:
        """Follow a service that a server knows; what does not exist changes nothing on this host or on a server.

        If no server can be asked, one is asked on the next session.
        """
        if isinstance(reply, Dependencies):
            return self._followed(service, user)
        known = self._watched(None, service)
        if isinstance(reply, Refusal) and reply.code not in TRANSIENT:
            return succeed(known if isinstance(known, Refusal) and known.code == reply.code else reply)
        if isinstance(reply, Refusal) and reply.code == "busy":
            return succeed(reply)
        self._components.asked.add(service, user)
        return succeed(known)

    def _followed(self, service: str, user: int) -> Deferred[Dependencies | Refusal]:
        refusal = self._sync.want(service, user)
        if refusal is not None:
            return succeed(refusal)
        known = self._view.dependencies(service)
        if not (isinstance(known, Refusal) and known.code == "not-ready"):
            return succeed(known)
        return self._sync.when_watched(service).addCallback(self._watched, service)

    def resolve(self, name: str) -> Resolved | Refusal:
        """Return the listeners to use now for a service or a category, best first."""
        return self._view.resolve(name)

    def category(self, name: str) -> CategoryView | Refusal:
        """Return all registered listeners of a category, whatever their state."""
        return self._view.category(name)

    def register(self, request: LocalRegister, user: int = UNKNOWN_USER) -> Deferred[Outcome | Refusal]:
        """Function 2.1."""
        if self._parts.development and not request.credential and user not in self._parts.trusted_users:
            what = f"register {request.service} without a credential"
            message = f"{what}: in development mode only programs of the user that runs 'opengns dev' may do that"
            return succeed(Refusal("forbidden", message))
        return self._users.ask(user, partial(self._registrar.register, request, user))

    def deregister(self, request: LocalDeregister, user: int = UNKNOWN_USER) -> Deferred[Outcome | Refusal]:
        """Function 2.2."""
        return self._users.ask(user, lambda _: self._registrar.deregister(request))

    def report_load(self, request: LocalLoad, user: int = UNKNOWN_USER) -> Deferred[Outcome | Refusal]:
        """Set the load of a listener of this host."""
        return self._users.ask(user, lambda _: self._registrar.report_load(request))

    def report_check(self, request: LocalCheckResult, user: int = UNKNOWN_USER) -> Deferred[Outcome | Refusal]:
        """Record the result of a check that a program makes of its own listener."""
        return self._users.ask(user, lambda _: succeed(self._components.checks.reported(request)))

    def drain(self, request: LocalDrain, user: int = UNKNOWN_USER) -> Deferred[Outcome | Refusal]:
        """Stop sending new users to a listener of this host, or send them again."""
        return self._users.ask(user, lambda _: self._registrar.drain(request))

    def released(self, outcome: Outcome) -> None:
        """End a registration with `hold`: the connection on which it was asked for is closed."""
        self._registrar.connection_closed(outcome)

    def report(self, request: LocalReport, user: int = UNKNOWN_USER) -> Deferred[Outcome | Refusal]:
        """Function 2.5."""
        return self._components.reports.report(request, user)

    def watch(
        self, service: str, since: int | None, deliver: Deliver, user: int = UNKNOWN_USER
    ) -> Deferred[Callable[[], None] | Refusal]:
        """Deliver what `service` depends on, now and at every change. Fires with what ends it, or a refusal."""

        def answered(known: Dependencies | Refusal) -> Callable[[], None] | Refusal:
            if isinstance(known, Refusal):
                return known
            return self._users.watch(user, lambda: self._components.feed.subscribe(known.service, since, deliver))

        return self.dependencies(service, user).addCallback(answered)

    def status(self) -> HostStatus:
        """Return the agent's state for people."""
        its, parts = self._components, self._parts
        upstream, replica = its.upstream, its.replica
        return HostStatus(
            host=parts.host_name,
            session=upstream.status,
            server=upstream.server,
            store=replica.store,
            revision=replica.catalogue.revision,
            loaded=replica.loaded,
            services=tuple(sorted(its.wanted.all)),
            listeners=self._listeners(),
            registrations=tuple(map(self._registration, its.journal.all())),
            problem=upstream.problem,
            zone=parts.zone,
            address=its.address.current,
            servers=upstream.servers(),
            view=str(parts.view) if its.shared_view.published else "",
            reactions=parts.reactions.status() if parts.reactions is not None else (),
            warnings=tuple(filter(None, (*its.comparison.warnings(), *self._unwritten(), parts.process_watch.problem))),
            certificates=self._certificates(),
            development=parts.development,
            unanswered=tuple(self._unanswered()),
            dns=parts.dns,
            dns_zone=parts.dns_zone,
        )

    def _unanswered(self) -> list[UnansweredName]:
        """Return the names without a listener that programs ask for, or that templates render."""
        reactions = self._parts.reactions
        of_templates = [one for one in reactions.status() if one.kind == "template"] if reactions is not None else []
        return self._view.unanswered(name for one in of_templates for name in one.on)

    def _registration(self, entry: Registration) -> RegistrationStatus:
        problem = entry.problem or self._components.own_probes.problem(entry)
        check = self._components.checks.status(entry.key)
        values = (entry.epoch, entry.state, entry.pid, entry.hold, problem, entry.unverified, check)
        return RegistrationStatus(entry.service, entry.address, entry.port, *values)

    def _unwritten(self) -> list[str]:
        """Return what this host cannot write to its state directory."""
        return [
            problem for problem in (self._components.cache.problem, self._components.journal.write_problem) if problem
        ]

    def _certificates(self) -> tuple[CertificateStatus, ...]:
        now = self._parts.now()
        return tuple(
            CertificateStatus(
                one.role,
                one.subject,
                one.file,
                one.not_after,
                condition_of((one,), now),
                one.problem(now) or one.notice(now),
            )
            for one in self._parts.certificates()
        )

    def metrics(self) -> AgentMetrics:
        """Return the agent's figures."""
        its, parts, reactions = self._components, self._parts, self._parts.reactions
        servers = its.upstream.servers()
        return AgentMetrics(
            loaded=its.replica.loaded,
            revision=its.replica.catalogue.revision,
            view_age_seconds=its.sync.view_age(),
            session=its.upstream.status,
            sessions_opened=its.upstream.opened_count,
            servers=Counter(server.state for server in servers),
            servers_known=Counter(server.source for server in servers),
            services=len(its.wanted),
            listeners=self._listeners(),
            registrations=Counter(entry.state for entry in its.journal.all()),
            lookups=its.view.lookups,
            services_unanswered=len(self._unanswered()),
            notices=its.sync.notices,
            snapshots=its.sync.snapshots,
            cache_writes=its.cache.writes,
            state_unwritten=len(self._unwritten()),
            reports=its.reports.counts,
            suspicions=its.view.suspicions.counts,
            reactions=reactions.turns if reactions is not None else {},
            reactions_failing=reactions.failing if reactions is not None else 0,
            watchers=len(its.feed),
            certificate_seconds=seconds_left(parts.certificates(), parts.now()),
            certificates_invalid=len(problems_of(parts.certificates(), parts.now())),
        )

    def _watched(self, result: None, service: str) -> Dependencies | Refusal:
        answer, problem = self._view.dependencies(service), self._components.upstream.problem
        if isinstance(answer, Refusal) and answer.code == "not-ready" and problem:
            return Refusal("not-ready", f"{answer.message} ({problem})", answer.retry_after_seconds)
        return answer

    def _listeners(self) -> int:
        return sum(map(len, self._components.replica.catalogue.listeners.values()))
