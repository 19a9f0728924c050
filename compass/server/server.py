"""The name server: composes the commit loop, push, sessions, dialler and failure desk, and routes each request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import cast

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from compass.model.catalogue.catalogue import Catalogue, catalogue_of
from compass.model.catalogue.interest import audience
from compass.model.cluster import ClusterStore, ClusterView, Heartbeat, MembershipChange
from compass.model.interfaces import Clock, Store, StoreState, Timer
from compass.model.metrics import ServerMetrics
from compass.model.replies import CatalogueDigest, Refusal, Reply, SecurityEntry, ServerStatus
from compass.model.requests import (
    Deregister,
    Digest,
    Drain,
    Examine,
    Fetch,
    Findings,
    Impact,
    Lag,
    Pull,
    ReadLog,
    Register,
    Report,
    Request,
    ShellRequest,
    Status,
    Steer,
    TryWays,
    Undecided,
    Watch,
    Ways,
)
from compass.model.rows import Change, Host, Listener
from compass.model.rules.decide import permit
from compass.model.rules.draft import Decision, Principal
from compass.server.alerts.notifier import AlertNotifier, Channel, NotifierDependencies
from compass.server.cluster.membership import ClusterAccess, Membership
from compass.server.commit.anti_entropy import AntiEntropy
from compass.server.commit.committer import Committer
from compass.server.commit.log_reader import LogReader
from compass.server.commit.log_trimmer import LogTrimmer
from compass.server.commit.replica import Replica
from compass.server.commit.security_log import SecurityLog
from compass.server.commit.store_access import STORE_WAIT_SECONDS, RunInDatabase, StoreAccess
from compass.server.commit.transaction import Decider
from compass.server.failure.detector import DetectorDependencies, FailureDetector, Probe, SessionInfo
from compass.server.failure.pending_suspicions import PendingSuspicions
from compass.server.metrics import commit_metrics, of_failures, of_push, of_servers, of_sessions, of_watches
from compass.server.push.change_feed import RECENT_MAX, ChangeFeed, Deliver, Visit, plain
from compass.server.push.dialer import Dialer
from compass.server.push.publisher import TAIL_MAX, Publisher
from compass.server.push.subscriptions import Subscriptions
from compass.server.queries.handler import QueryHandler
from compass.server.queries.status import ServerInfo, heartbeat_of, lags_of, status_of
from compass.server.sessions.connection_limits import ConnectionLimits
from compass.server.sessions.drain import HostDrain, Redirect
from compass.server.sessions.session import Answer, CatchUp, PeerOf, Session, origin_of
from compass.wire.messages import Acknowledge

TAIL_EVERY_SECONDS = 0.5
"""How often a server looks for what other servers over the same store have committed, in case that nobody told it: one
indexed read. Well below the second within which a killed process is gone everywhere (P9)."""

_NOT_READY = Refusal("not-ready", "this server has not loaded its catalogue yet", retry_after_seconds=1.0)


class ServerDependencies(msgspec.Struct, frozen=True):
    """What assembly hands to a name server."""

    clock: Clock
    now: Callable[[], float]
    token: Callable[[], str]
    storage: Store
    in_database: RunInDatabase
    peer_of: PeerOf
    probe: Probe
    connect: Callable[[str, str, int, Callable[[], Session]], Deferred[Session]]
    """Connects to a host's Update listener: name, address, port, and what makes the session."""
    id: str
    """Of this run of the server, unlike any other's over the same store."""
    roster: ClusterStore
    beside: RunInDatabase
    """Runs the roster's functions, on a thread of their own: they neither wait for a commit nor hold one up."""
    random: Callable[[], float] = lambda: 0.5
    """Of 0 to 1, spreads repetitions; handed in, as all chance is."""
    ways: tuple[Channel, ...] = ()
    """By which administrators are told."""
    keep_updates: int = 1_000_000
    keep_others: int = 100_000
    store_wait_seconds: float = STORE_WAIT_SECONDS


class Server(Factory):
    """One server; also the factory of its sessions."""

    log = Logger()
    noisy = False

    def __init__(self, name: str, software: str, parts: ServerDependencies) -> None:
        self.name = name
        self.software = software
        self._parts = parts
        self._gate = ConnectionLimits(parts.clock, parts.now, self.note)
        self._steering = HostDrain(parts.clock, lambda: self._gate.sessions)
        self._loaded: StoreState | None = None
        self._commits: Committer | None = None
        self._tail: Timer | None = None
        self._started_at = 0.0
        self._asked = Counter[type[msgspec.Struct]]()
        self._refused = Counter[str]()
        self._committed_by = Counter[str]()

    async def start(self) -> None:
        """Load the catalogue; until then every session is told to come back (P5). Raises StoreUnavailable."""
        parts = self._parts
        loaded: StoreState = await parts.in_database(parts.storage.load)
        catalogue = catalogue_of(loaded.rows, loaded.topics, loaded.revision)
        after = max(loaded.floor - 1, loaded.revision - TAIL_MAX)
        recent: list[Change] = await parts.in_database(parts.storage.changes_after, after, TAIL_MAX)
        self._started_at = parts.now()
        self._push = Publisher(catalogue, self._reach_absent, self._part, parts.clock.seconds)
        recent = [change for change in recent if change.revision <= loaded.revision]
        self._push.preload(recent, catalogue)
        self._compose(catalogue, loaded.store)
        self._visitors.recall(recent[-RECENT_MAX:])
        # Who else is there decides what this server looks after; only then is it ready.
        await self._neighbours.join()
        self._loaded = loaded
        self._desk.start(catalogue)
        self._dialler.start()
        self._trimming.start()
        self._agreement.start(loaded.digest)
        self._alerts.ownership_changed()
        self._tail = parts.clock.callLater(TAIL_EVERY_SECONDS, self._follow)
        self.log.info(
            "{name} serves store {store} at revision {revision}",
            name=self.name,
            store=loaded.store,
            revision=loaded.revision,
        )

    def _compose(self, catalogue: Catalogue, store: str) -> None:
        parts = self._parts
        access = StoreAccess(parts.storage, parts.in_database, parts.clock, parts.store_wait_seconds)
        replica = Replica(catalogue, access, self)
        security_log = SecurityLog(self._gate.should_log)
        decider = Decider(parts.now, parts.token)
        commits = Committer(access, replica, security_log, decider, parts.clock)
        self._unwritten = PendingSuspicions(parts.clock, decider, commits, self._push)
        commits.overdue_handler = self._unwritten
        self._known = known = ClusterView(parts.id)
        self._neighbours = Membership(
            parts.clock, ClusterAccess(parts.roster, parts.beside), known, self._line, self._is_here, self._turned
        )
        around = SessionInfo(self._able, self._is_present, self._watching, known.owns)
        detecting = DetectorDependencies(parts.clock, parts.now, parts.probe, around)
        self._desk = FailureDetector(self.name, commits, self._unwritten, detecting)
        system = Principal("server", self.name, "")
        self._agreement = AntiEntropy(self.name, parts.clock, commits, access)
        self._watches = Subscriptions(
            parts.clock, store, commits, self._push, system, self._returned, self._agreement.settled
        )
        self._visitors = ChangeFeed(parts.now, self._gate, self.note, store, lambda: commits.catalogue)
        told = NotifierDependencies(
            parts.clock, parts.now, parts.random, store, parts.roster, parts.beside, replica, known
        )
        self._alerts = AlertNotifier(told, parts.ways)
        self._dialler = Dialer(parts.clock, self._dial, self._push, lambda: commits.catalogue, self._is_ours_to_reach)
        self._logs = LogReader(parts.clock, commits, access)
        self._trimming = LogTrimmer(parts.clock, access, parts.keep_updates, parts.keep_others)
        self._reading = QueryHandler(store, commits, parts.now, self._push.last_told)
        self._commits = commits

    def heard(self, revision: int) -> None:
        """Whoever listens to the store says that it is at this revision now; nothing before the catalogue is there."""
        if self._commits is not None:
            self._commits.store_advanced(revision)

    def stop(self) -> None:
        """End every session and every timer. What was answered is on disk; the rest was not answered."""
        if self._commits is not None:
            self._commits.stop()
            self._unwritten.stop()
            self._desk.stop()
            self._dialler.stop()
            self._trimming.stop()
            self._agreement.stop()
            self._alerts.stop()
            self._neighbours.stop()
            counts = self._commits.writer.counts
            if counts["batches"]:
                text = "committed {n} batches, {again} of them decided again, {off} put off, because of other servers"
                self.log.info(text, n=counts["batches"], again=counts["again"], off=counts["put off"])
        if self._tail is not None and self._tail.active():
            self._tail.cancel()
        self._steering.stop()
        instead = self._steering.elsewhere.instead if self._steering.elsewhere else ()
        for session in list(self._gate.sessions):
            session.goodbye("the server stops", 0.5, instead)

    @property
    def catalogue(self) -> Catalogue:
        """As committed."""
        return self.commits.catalogue

    @property
    def commits(self) -> Committer:
        """The commit loop, once started."""
        assert self._commits is not None, "the server has not started"
        return self._commits

    # The factory of sessions.

    def buildProtocol(self, address: IAddress | None) -> Session | None:
        """A session for a new connection; None when there are too many, or too much came to nothing from there."""
        if not self._gate.is_allowed(origin_of(address)):
            return None
        return Session(self, self._parts.clock, self._parts.now, self._parts.peer_of)

    # What a session needs of us (sessions.Desk).

    def ready(self) -> tuple[str, int] | None:
        """The store and its revision, once the catalogue is complete."""
        if self._loaded is None or self._commits is None:
            return None
        return self._loaded.store, self._commits.catalogue.revision

    def elsewhere(self, session: Session) -> Redirect | None:
        """What a host is told that is not wanted here; None: it is welcome."""
        return self._steering.turned_away(session)

    def refused(self, refusal: Refusal) -> None:
        """Count it."""
        self._refused[refusal.code] += 1

    def opened(self, session: Session) -> None:
        """Count it."""
        self._gate.opened(session)

    def closed(self, session: Session) -> None:
        """Forget it, and see whether its host must be dialled."""
        self._gate.closed(session)
        if session.host and self._push.session_of(session.host) is session:
            self._push.unsubscribe(session)
            row = self.catalogue.hosts.get(session.host)
            # A host that can be dialled may leave whenever it likes; it is missed when it cannot be reached.
            lost = not (session.left and row is not None and row.update_port)
            self._neighbours.host_disconnected(session.host, lost=lost, held=self._push.held(session.host))
            self._dialler.ended(session.host)
            if lost and not self._is_present(session.host):
                self._desk.lost(session.host)

    def known(self, session: Session) -> str:
        """Count it by the name that it has proven; why it is one too many, or nothing."""
        return self._gate.authenticated(session)

    def failed(self, origin: str) -> bool:
        """Count it; whether it is still worth a line in the log."""
        return self._gate.count_failure(origin)

    def missed(self, session: Session, since: int) -> list[CatchUp] | None:
        """All that it was not told after `since`, or None when it cannot be told."""
        return self._watches.missed(session, since)

    def acknowledged(self, session: Session, acknowledge: Acknowledge) -> None:
        """Note how far a host is; one that tells of a gap will watch again."""
        if session.host:
            self._push.acknowledged(session.host, acknowledge.revision, gap=acknowledge.status != "ok")
            if acknowledge.status == "differs":
                self._agreement.differs(session.host, acknowledge.revision)

    def note(self, entry: SecurityEntry) -> None:
        """Into the security log, when there is a store yet."""
        if self._commits is not None:
            self._commits.log_security(entry)

    def ask(self, session: Session, request: Request) -> Answer | Deferred[Answer]:
        """Route a request to where it is answered: at once what is in memory, else when it is there."""
        self._asked[type(request)] += 1
        match request:
            case Pull() | Fetch() | Impact():
                return self._reading.ask(request, session.asker)
            case (
                Watch()
                | ReadLog()
                | Status()
                | Digest()
                | Lag()
                | Findings()
                | Examine()
                | Steer()
                | Ways()
                | TryWays()
            ):
                refused = permit(self.catalogue, request, session.asker, self._parts.now())
                return Deferred.fromCoroutine(self._answer(session, request)) if not refused else self._noted(refused)
            case Report():
                too_many = self._gate.report(session.asker)
                return too_many or cast(Deferred[Answer], self._desk.report(request, session.asker))
            case _:
                return self._submit(request, session.asker)

    # What the HTTPS gateway needs of us.

    def ask_as(self, asker: Principal, request: Request) -> Deferred[Reply]:
        """Route a request of somebody without a session, which only hosts need."""
        if self.ready() is None:
            return succeed(_NOT_READY)
        if isinstance(request, Watch | Findings):
            return succeed(Refusal("out-of-turn", "only a session can watch; /v1/events tells every change"))
        # All others look at nothing of a session but who asks.
        asked = self.ask(cast(Session, Visit(asker)), request)
        answered = asked if isinstance(asked, Deferred) else succeed(asked)
        return answered.addCallback(lambda answer: self._counted(plain(answer)))

    def _counted(self, reply: Reply) -> Reply:
        if isinstance(reply, Refusal):
            self.refused(reply)
        return reply

    def may_look(self, asker: Principal) -> Refusal | None:
        """Why somebody may not see this server's figures; None: he may, as he may ask for its status.

        Before the catalogue is there nobody but an administrator is known.
        """
        if self._commits is None:
            return None if asker.role == "admin" else _NOT_READY
        refused = permit(self.catalogue, Status(), asker, self._parts.now())
        return cast(Refusal, self._noted(refused)) if refused else None

    def tally(self) -> ServerMetrics:
        """This server in numbers, whatever state it is in."""
        told = ServerMetrics(
            server=self.name,
            engine=self._parts.storage.engine,
            ready=self.ready() is not None,
            store_reachable=self.store_answers,
            requests={str(kind.__struct_config__.tag): count for kind, count in self._asked.items()},
            refusals=self._refused,
            changes=self._committed_by,
            draining=self._steering.elsewhere is not None,
            **of_sessions(self._gate),
        )
        if self._loaded is None:
            return told
        return msgspec.structs.replace(
            told,
            **commit_metrics(self.commits),
            **of_push(self._push),
            **of_failures(self._desk, self._unwritten),
            **of_watches(self._watches, self._visitors),
            alerts_pending={way.name: way.pending for way in self._alerts.status().ways if way.tells},
            **of_servers(
                self._known, self.name, len(self._gate.sessions), self._push.watching, self.catalogue.revision
            ),
        )

    def bearer(self, token: str, origin: str) -> Principal | Refusal:
        """Who shows a bearer token."""
        return _NOT_READY if self.ready() is None else self._visitors.bearer(token, origin)

    def turned_away(self, name: str, origin: str, why: str) -> None:
        """Somebody has shown a certificate that opens nothing here."""
        self.note(SecurityEntry(0, self._parts.now(), "connect", "", "{}", origin, name, why))

    def follow(self, asker: Principal, since: int | None, deliver: Deliver) -> Callable[[], None] | Refusal:
        """Deliver every change to somebody who may read the log of them; see `Visitors.follow`."""
        if self.ready() is None:
            return _NOT_READY
        refused = permit(self.catalogue, ReadLog("updates"), asker, self._parts.now())
        return cast(Refusal, self._noted(refused)) if refused else self._visitors.follow(since, deliver)

    def is_allowed(self, origin: str) -> bool:
        """Whether a connection from there is taken."""
        return self._gate.is_allowed(origin)

    @property
    def store_answers(self) -> bool:
        """Whether the store took the last write."""
        return self._commits is not None and not self._commits.outage

    # Where requests are answered.

    def _noted(self, decision: Decision) -> Reply:
        if decision.security is not None:
            self.commits.log_security(decision.security)
        return decision.reply

    def _submit(self, request: Undecided, asker: Principal) -> Answer | Deferred[Answer]:
        """To the commit loop, unless it is one guess too many at a service's credential."""
        submitted = self.commits.submit
        if not isinstance(request, Register | Deregister | Drain):
            return cast(Deferred[Answer], submitted(request, asker))
        too_many = self._gate.guess(asker, request.service)
        if too_many is not None:
            return too_many

        def look(reply: Reply) -> Answer:
            if isinstance(reply, Refusal) and reply.code == "bad-credential":
                self._gate.guessed_wrong(asker, request.service)
            return reply

        return submitted(request, asker).addCallback(look)

    async def _answer(self, session: Session, request: ShellRequest) -> Answer:
        match request:
            case Watch():
                return await self._watches.watch(session, request)
            case ReadLog():
                return await self._logs.read(request)
            case Status():
                return self._status()
            case Digest():
                return self._digest(request.revision)
            case Lag():
                return lags_of(self.catalogue, self._push, self._known, self.name)
            case Findings():
                return self._desk.findings(session.asker.name, request)
            case Examine():
                return self._desk.examine(request)
            case Steer():
                return self._steering.steer(request)
            case Ways():
                return self._alerts.status()
            case TryWays():
                return await self._alerts.send_test(request)

    def _status(self) -> ServerStatus:
        return status_of(self.catalogue, self.commits.replica.counts, self._figures(), self._known, self._line())

    def _figures(self) -> ServerInfo:
        return ServerInfo(
            server=self.name,
            software=self.software,
            store=self._loaded.store if self._loaded is not None else "",
            started_at=self._started_at,
            sessions=len(self._gate.sessions),
            watching=self._push.watching,
            engine=self._parts.storage.engine,
            trouble=self.commits.outage,
            away=self._steering.elsewhere is not None,
            ways=tuple(way.name for way in self._parts.ways),
        )

    def _digest(self, revision: int) -> CatalogueDigest | Refusal:
        at = revision or self.catalogue.revision
        digest = self.commits.replica.digests.at(at)
        if digest is None:
            text = f"this server is at revision {self.catalogue.revision} and knows no digest of revision {at}"
            return Refusal("bad-value", text)
        return CatalogueDigest(self.name, self._loaded.store if self._loaded is not None else "", at, digest)

    def _part(self, categories: frozenset[str]) -> str:
        return self.commits.replica.digests.part(self.catalogue, categories, self._push.last_told)

    # Among the servers over the same store.

    def _line(self) -> Heartbeat:
        able = self._push.watching > 0 and not self._desk.local_health.is_in_doubt
        return heartbeat_of(self.catalogue, self._figures(), self._push, self._parts.id, able=able)

    def _is_here(self, host: str) -> bool:
        return self._push.session_of(host) is not None

    def _is_present(self, host: str) -> bool:
        return self._is_here(host) or self._known.present_elsewhere(host)

    def _is_ours_to_reach(self, host: str) -> bool:
        return not self._is_present(host) and self._known.keeps_host(host)

    def _returned(self, session: Session) -> None:
        self._neighbours.host_connected(session.host)
        self._desk.returned(session.host)
        self._unwritten.watched(session)

    def _turned(self, turn: MembershipChange) -> None:
        """What a beat has brought: hosts that moved, servers that came, fell silent or doubt themselves."""
        for entry in turn.moved:
            self._desk.moved(entry.host)
            # Its last server may not be one that keeps hosts: then it is ours to miss and to reach.
            if entry.state == "lost" and not self._is_present(entry.host):
                self._desk.lost(entry.host)
            if entry.state != "here":
                self._dialler.ended(entry.host)
        if turn.regroup:
            self._desk.ownership_changed()
            self._alerts.ownership_changed()
            self._dialler.ownership_changed()
            for host in self._known.lost():
                if not self._is_present(host):
                    self._desk.lost(host)
        if turn.silenced:
            self._desk.schedule_absence_check()

    # What follows a commit.

    def committed(self, change: Change, catalogue: Catalogue, *, own: bool) -> None:
        self._committed_by[change.operation] += 1
        self._push.committed(change, catalogue)
        self._unwritten.committed(change)
        self._desk.committed(change, catalogue)
        self._alerts.committed(change, own=own)
        self._visitors.committed(change)
        if isinstance(change.row, Host) and change.row.barred:
            barred = "host", change.row.name
            for session in [s for s in self._gate.sessions if (s.asker.role, s.asker.name) == barred]:
                session.goodbye("an administrator has barred this host", retry_after_seconds=60.0)

    def _follow(self) -> None:
        self.commits.catch_up()
        self._tail = self._parts.clock.callLater(TAIL_EVERY_SECONDS, self._follow)

    def reloaded(self, catalogue: Catalogue) -> None:
        """What changed is not known one by one: the hosts come back for a snapshot, the desk looks at everything."""
        self._push.forget(catalogue.revision)
        self._watches.snapshots.forget()
        self._reading.forget()
        self._visitors.reloaded(catalogue.revision)
        for session in [s for s in self._gate.sessions if s.host]:
            session.goodbye("this server began anew from its store", retry_after_seconds=0.5)
        self._desk.stop()
        self._unwritten.stop()
        self._desk.start(catalogue)

    def _reach_absent(self, told: frozenset[str]) -> None:
        self._dialler.notify_categories(told)

    def _dial(self, host: str, address: str, port: int) -> Deferred[Session]:
        parts = self._parts

        def session() -> Session:
            return Session(self, parts.clock, parts.now, parts.peer_of, dialled=host)

        def missed(failure: Failure) -> Failure:
            self._desk.lost(host)
            return failure

        return parts.connect(host, address, port, session).addErrback(missed)

    def _able(self, row: Listener) -> list[Session]:
        """The sessions whose hosts depend on a listener and answer inquiries."""
        subscribers = self._push.subscribers(audience(self.catalogue, row))
        return [session for session in cast(list[Session], subscribers) if session.probes]

    def _watching(self) -> int:
        return self._push.watching
