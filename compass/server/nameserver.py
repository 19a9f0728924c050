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

from compass.model.administration import parsed_host
from compass.model.catalogue import Catalogue, catalogue_of
from compass.model.decide import SUBJECT_MAX, answer, permit
from compass.model.digest import DIGEST_VERSION
from compass.model.draft import Asker, Refused, problem_code
from compass.model.interest import audience
from compass.model.names import NameProblem, category_of
from compass.model.ports import Clock, Timer
from compass.model.replies import CatalogueDigest, Lags, Refusal, Reply, SecurityEntry, ServerStatus, Watching
from compass.model.requests import (
    Attend,
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
    Undecided,
    Watch,
)
from compass.model.rows import Change, Host, Listener
from compass.model.storage import Loaded, Storage
from compass.server.admission import Admission
from compass.server.agreement import Agreement
from compass.server.alerts import Alerts, RunCommand
from compass.server.commits import Commits, InDatabase
from compass.server.dialler import Dialler
from compass.server.failures import FailureDesk, Probe, Surroundings
from compass.server.logs import LogReader
from compass.server.push import TAIL_MAX, Push
from compass.server.quotas import (
    CONNECTIONS_FAILED_PER_MINUTE_MAX,
    FAILURES_PER_MINUTE_MAX,
    REPORTS_PER_MINUTE_MAX,
    Quota,
)
from compass.server.sessions import Missed, PeerOf, Session, origin_of
from compass.server.snapshots import Snapshots
from compass.wire import limits
from compass.wire.messages import Acknowledge

SESSIONS_MAX = 20_000
"""Connections at once: 10,000 hosts, each with one that is ending and one that is new."""
SESSIONS_PER_PEER_MAX = 32
"""Sessions of one host or administrator: a daemon has one, and one that is ending; the rest are for programs that
ask and leave."""
TAIL_EVERY_SECONDS = 0.5
"""How often a server looks for what other servers over the same store have committed: one indexed read. Well below
the second within which a killed process is gone everywhere (P9)."""
TRIM_EVERY_SECONDS = 600.0
"""How often the logs are cut to their configured length."""


class Parts(msgspec.Struct, frozen=True):
    """What assembly hands to a name server."""

    clock: Clock
    now: Callable[[], float]
    token: Callable[[], str]
    storage: Storage
    in_database: InDatabase
    peer_of: PeerOf
    probe: Probe
    connect: Callable[[str, str, int, Callable[[], Session]], Deferred[Session]]
    """Connects to a host's Update listener: name, address, port, and what makes the session."""
    run_command: RunCommand | None = None
    keep_updates: int = 1_000_000
    keep_others: int = 100_000


class NameServer(Factory):
    """One server; also the factory of its sessions."""

    log = Logger()
    noisy = False

    def __init__(self, name: str, software: str, parts: Parts) -> None:
        self.name = name
        self.software = software
        self._parts = parts
        self._sessions: dict[Session, None] = {}
        self._loaded: Loaded | None = None
        self._commits: Commits | None = None
        self._trim: Timer | None = None
        self._tail: Timer | None = None
        self._started_at = 0.0
        self._system = Asker("server", name, "")
        self._admission = Admission(parts.clock)
        self._per_peer: Counter[tuple[str, str]] = Counter()
        self._failures = Quota(parts.clock, CONNECTIONS_FAILED_PER_MINUTE_MAX)
        self._failures_told = Quota(parts.clock, FAILURES_PER_MINUTE_MAX, self._tell_failures)
        self._reports = Quota(parts.clock, REPORTS_PER_MINUTE_MAX)
        self._guesses = Quota(parts.clock, FAILURES_PER_MINUTE_MAX)
        self._refusals = Quota(parts.clock, FAILURES_PER_MINUTE_MAX, self._sum_up)

    async def start(self) -> None:
        """Load the catalogue; until then every session is told to come back (P5). Raises StoreUnavailable."""
        parts = self._parts
        loaded: Loaded = await parts.in_database(parts.storage.load)
        catalogue = catalogue_of(loaded.rows, loaded.topics, loaded.revision)
        after = max(loaded.floor - 1, loaded.revision - TAIL_MAX)
        recent: list[Change] = await parts.in_database(parts.storage.changes_after, after, TAIL_MAX)
        self._loaded = loaded
        self._started_at = parts.now()
        commits = Commits(
            catalogue,
            parts.storage,
            parts.in_database,
            parts.now,
            parts.token,
            self._committed,
            self._reloaded,
            self._worth_a_row,
        )
        self._push = Push(catalogue, self._reach_absent, self._part)
        self._snapshots = Snapshots(loaded.store, self._push.last_told)
        self._push.recall((change for change in recent if change.revision <= loaded.revision), catalogue)
        around = Surroundings(self._able, lambda host: self._push.session_of(host) is not None, self._watching)
        self._desk = FailureDesk(
            parts.clock, parts.now, parts.probe, commits.submit, self.name, lambda: commits.catalogue, around
        )
        self._alerts = Alerts(parts.run_command)
        self._dialler = Dialler(parts.clock, self._dial, self._push, lambda: commits.catalogue)
        self._commits = commits
        self._agreement = Agreement(self.name, parts.clock, commits, parts.storage, parts.in_database)
        self._logs = LogReader(parts.clock, commits, parts.storage, parts.in_database)
        self._desk.start(catalogue)
        self._dialler.start()
        self._agreement.start(loaded.digest)
        self._trim = parts.clock.callLater(TRIM_EVERY_SECONDS, self._trim_logs)
        self._tail = parts.clock.callLater(TAIL_EVERY_SECONDS, self._follow)
        self.log.info(
            "{name} serves store {store} at revision {revision}",
            name=self.name,
            store=loaded.store,
            revision=loaded.revision,
        )

    def stop(self) -> None:
        """End every session and every timer. What was answered is on disk; the rest was not answered."""
        if self._commits is not None:
            self._desk.stop()
            self._dialler.stop()
            self._agreement.stop()
        for timer in (self._trim, self._tail):
            if timer is not None and timer.active():
                timer.cancel()
        for session in list(self._sessions):
            session.goodbye("the server stops", retry_after_seconds=0.5)

    @property
    def catalogue(self) -> Catalogue:
        """As committed."""
        return self.commits.catalogue

    @property
    def commits(self) -> Commits:
        """The commit loop, once started."""
        assert self._commits is not None, "the server has not started"
        return self._commits

    # The factory of sessions.

    def buildProtocol(self, address: IAddress | None) -> Session | None:
        """A session for a new connection; None when there are too many, or too much came to nothing from there."""
        origin = origin_of(address)
        if self._failures.wait(origin):
            return None
        if len(self._sessions) >= SESSIONS_MAX:
            if self.failed(origin):
                self.log.warn("connection from {origin} refused: {n} sessions", origin=origin, n=SESSIONS_MAX)
            return None
        return Session(self, self._parts.clock, self._parts.now, self._parts.peer_of)

    # What a session needs of us (sessions.Desk).

    def ready(self) -> tuple[str, int] | None:
        """The store and its revision, once the catalogue is complete."""
        if self._loaded is None or self._commits is None:
            return None
        return self._loaded.store, self._commits.catalogue.revision

    def opened(self, session: Session) -> None:
        """Count it."""
        self._sessions[session] = None

    def closed(self, session: Session) -> None:
        """Forget it, and see whether its host must be dialled."""
        self._sessions.pop(session, None)
        if session.asker.name:
            peer = session.asker.role, session.asker.name
            self._per_peer[peer] -= 1
            if not self._per_peer[peer]:
                del self._per_peer[peer]
        if session.host and self._push.session_of(session.host) is session:
            self._push.unsubscribe(session)
            self._dialler.ended(session.host)
            row = self.catalogue.hosts.get(session.host)
            # A host that can be dialled may leave whenever it likes; it is missed when it cannot be reached.
            if not (session.left and row is not None and row.update_port):
                self._desk.lost(session.host)

    def known(self, session: Session) -> str:
        """Count it by the name that it has proven; refused beyond `SESSIONS_PER_PEER_MAX`."""
        peer = session.asker.role, session.asker.name
        self._per_peer[peer] += 1
        if self._per_peer[peer] <= SESSIONS_PER_PEER_MAX:
            return ""
        return f"{peer[0]} {peer[1]!r} has {SESSIONS_PER_PEER_MAX} sessions, the most there can be; close some first"

    def failed(self, origin: str) -> bool:
        """Beyond one quota it is told once for all; beyond a second no connection is taken from there for a while."""
        if self._failures.count(origin) and self._failures.wait(origin):
            text = "{n} connections from {origin} came to nothing within a minute: none is taken until it is over"
            self.log.warn(text, n=CONNECTIONS_FAILED_PER_MINUTE_MAX, origin=origin)
        return self._failures_told.count(origin)

    def missed(self, session: Session, since: int) -> list[Missed] | None:
        """The notices, if they are few and small; else a resync, if the host takes one."""
        if self._push.session_of(session.host) is not session:
            return []
        categories = self._push.categories_of(session.host)
        missed = self._push.missed(categories, since)
        if missed is not None and sum(len(encoded) for _, encoded in missed) <= limits.REPLIES_QUEUED_MAX:
            return [Missed(revision, encoded, revision - 1) for revision, encoded in missed]
        if not session.takes_resync:
            return None
        encoded, revision = self._snapshots.resync(self.catalogue, categories)
        if len(encoded) > limits.FRAME_MAX_FROM_SERVER:
            return None
        self._admission.sent(len(encoded))
        return [Missed(revision, encoded, since)]

    def acknowledged(self, session: Session, acknowledge: Acknowledge) -> None:
        """Note how far a host is; one that tells of a gap will watch again."""
        if session.host:
            self._push.acknowledged(session.host, acknowledge.revision, gap=acknowledge.status != "ok")
            if acknowledge.status == "differs":
                self._agreement.differs(session.host, acknowledge.revision)

    def note(self, entry: SecurityEntry) -> None:
        """Into the security log, when there is a store yet."""
        if self._commits is not None:
            self._commits.note(entry)

    def ask(self, session: Session, request: Request) -> Deferred[Reply | bytes]:
        """Route a request to where it is answered."""
        commits = self.commits
        match request:
            case Report() if session.asker.role == "host" and not self._reports.count(session.asker.name):
                text = f"{REPORTS_PER_MINUTE_MAX} reports of host {session.asker.name!r} within a minute are too many"
                return succeed(Refusal("busy", text, self._reports.wait(session.asker.name)))
            case Pull() | Fetch() | Impact():
                decision = answer(commits.catalogue, request, session.asker, self._parts.now())
                if decision.security is not None:
                    commits.note(decision.security)
                return succeed(decision.reply)
            case Watch() | ReadLog() | Status() | Digest() | Lag() | Findings() | Examine():
                refused = permit(commits.catalogue, request, session.asker, self._parts.now())
                if refused is not None:
                    if refused.security is not None:
                        commits.note(refused.security)
                    return succeed(refused.reply)
                return Deferred.fromCoroutine(self._answer(session, request))
            case Report():
                return cast(Deferred[Reply | bytes], self._desk.report(request, session.asker))
            case _:
                return self._submit(request, session.asker)

    def _submit(self, request: Undecided, asker: Asker) -> Deferred[Reply | bytes]:
        """To the commit loop, unless it is one guess too many at a service's credential."""
        if not isinstance(request, Register | Deregister | Drain):
            return cast(Deferred[Reply | bytes], self.commits.submit(request, asker))
        guess = f"{asker.role} {asker.name} {request.service[:SUBJECT_MAX].lower()}"
        wait = self._guesses.wait(guess)
        if wait:
            text = (
                f"{FAILURES_PER_MINUTE_MAX} wrong credentials for {request.service} within a minute came from "
                f"{asker.role} {asker.name!r}: no more are looked at until it is over"
            )
            return succeed(Refusal("busy", text, retry_after_seconds=wait))

        def look(reply: Reply) -> Reply | bytes:
            if isinstance(reply, Refusal) and reply.code == "bad-credential":
                self._guesses.count(guess)
            return reply

        return self.commits.submit(request, asker).addCallback(look)

    def _worth_a_row(self, entry: SecurityEntry) -> bool:
        return self._refusals.count(entry.principal or entry.origin)

    def _tell_failures(self, origin: str, beyond: int) -> None:
        text = "{n} more connections from {origin} came to nothing within a minute"
        self.log.warn(text, n=beyond, origin=origin)

    def _sum_up(self, peer: str, beyond: int) -> None:
        text = f"{beyond} more were refused within a minute; they have no entries of their own"
        self.note(SecurityEntry(0, self._parts.now(), "refused", "", "{}", "", peer, text))

    async def _answer(self, session: Session, request: ShellRequest) -> Reply | bytes:
        match request:
            case Watch():
                return await self._watch(session, request)
            case ReadLog():
                return await self._logs.read(request)
            case Status():
                return self._status()
            case Digest():
                return self._digest(request.revision)
            case Lag():
                return Lags(self.catalogue.revision, self._push.lag(self.catalogue.hosts.values()))
            case Findings():
                return self._desk.findings(session.asker.name, request)
            case Examine():
                return self._desk.examine(request)

    async def _watch(self, session: Session, request: Watch) -> Reply | bytes:
        """Remember what the host watches, then subscribe and answer in one step, so that no notice falls between.

        A host that needs a snapshot waits for its turn first, or is told when to come back.
        """
        try:
            host = parsed_host(Host(session.asker.name, request.update_address, request.update_port, request.services))
        except Refused as refused:
            return refused.refusal
        except NameProblem as problem:
            return Refusal(problem_code(problem), str(problem))
        await self._agreement.settled()
        since = request.since if request.store == self._store else -1
        categories = frozenset(category_of(service) for service in host.services)
        if self._push.missed(categories, since) is None:
            later = await self._admission.turn()
            if later:
                session.goodbye("many hosts come at once; this one's turn comes", retry_after_seconds=later)
                return Refusal("busy", "many hosts come at once", retry_after_seconds=later)
            if not session.connected:
                return Refusal("unreachable", "the session ended meanwhile")
        attend = Attend(host.name, host.services, host.update_address, host.update_port)
        attended = await self.commits.submit(attend, self._system)
        # A host that may leave and be dialled relies on being remembered; any other is told on its session anyway.
        if isinstance(attended, Refusal) and (attended.code != "store-unavailable" or host.update_port):
            return attended
        # A host that comes from another server may hold more than this one has heard of: never show it an older state.
        ahead = request.store == self._store and request.since > self.catalogue.revision
        if ahead and not await self.commits.look():
            why = f"this server is behind revision {request.since} and cannot read the store"
            return Refusal("store-unavailable", why, retry_after_seconds=1.0)
        if not session.connected:
            return Refusal("unreachable", "the session ended meanwhile")
        catalogue = self.catalogue
        missed = self._push.missed(categories, since)
        self._push.acknowledged(host.name, 0 if missed is None else since)
        session.compares = request.digest == DIGEST_VERSION
        bookmark = (self._push.bookmark(categories), catalogue.revision) if session.compares else None
        session.watch(missed or [], request.resync, bookmark)
        replaced = self._push.subscribe(session, categories)
        session.probes = request.probes
        self._desk.returned(host.name)
        if replaced is not None:
            cast(Session, replaced).goodbye("replaced by a newer session of this host")
        unknown = tuple(service for service in host.services if catalogue.service(service) is None)
        if missed is not None:
            return Watching(self._store, catalogue.revision, None, unknown)
        body = self._snapshots.watching(catalogue, categories, unknown)
        self._admission.sent(len(body))
        return body

    def _status(self) -> ServerStatus:
        catalogue = self.catalogue
        listeners = [row for peers in catalogue.listeners.values() for row in peers.values()]
        return ServerStatus(
            server=self.name,
            software=self.software,
            store=self._store,
            revision=catalogue.revision,
            started_at=self._started_at,
            sessions=len(self._sessions),
            watching=self._push.watching,
            counts={
                "category": len(catalogue.categories),
                "service": sum(map(len, catalogue.services.values())),
                "listener": len(listeners),
                "dependency": sum(map(len, catalogue.needs.values())),
                "credential": sum(map(len, catalogue.credentials.values())),
                "host": len(catalogue.hosts),
            },
            states=dict(Counter(row.state for row in listeners)),
            alerts=tuple(sorted(catalogue.alerts.values(), key=lambda alert: (alert.opened_at, alert.id))),
            engine=self._parts.storage.engine,
            digest=self.commits.digests.at(catalogue.revision) or "",
        )

    def _digest(self, revision: int) -> CatalogueDigest | Refusal:
        at = revision or self.catalogue.revision
        digest = self.commits.digests.at(at)
        if digest is None:
            text = f"this server is at revision {self.catalogue.revision} and knows no digest of revision {at}"
            return Refusal("bad-value", text)
        return CatalogueDigest(self.name, self._store, at, digest)

    def _part(self, categories: frozenset[str]) -> str:
        return self.commits.digests.part(self.catalogue, categories, self._push.last_told)

    # What follows a commit.

    def _committed(self, change: Change, catalogue: Catalogue) -> None:
        self._push.committed(change, catalogue)
        self._desk.committed(change, catalogue)
        self._alerts.committed(change, catalogue)
        if isinstance(change.row, Host) and change.row.barred:
            for session in [s for s in self._sessions if s.asker.role == "host" and s.asker.name == change.row.name]:
                session.goodbye("an administrator has barred this host", retry_after_seconds=60.0)

    def _follow(self) -> None:
        self.commits.look()
        self._tail = self._parts.clock.callLater(TAIL_EVERY_SECONDS, self._follow)

    def _reloaded(self, catalogue: Catalogue) -> None:
        """What changed is not known one by one: the hosts come back for a snapshot, the desk looks at everything."""
        self._push.forget(catalogue.revision)
        self._snapshots.forget()
        for session in [s for s in self._sessions if s.host]:
            session.goodbye("this server began anew from its store", retry_after_seconds=0.5)
        self._desk.stop()
        self._desk.start(catalogue)

    def _reach_absent(self, told: frozenset[str]) -> None:
        self._dialler.told(told)

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

    def _trim_logs(self) -> None:
        parts = self._parts
        trimmed = parts.in_database(parts.storage.trim, parts.keep_updates, parts.keep_others)
        trimmed.addErrback(lambda failure: self.log.warn("logs not trimmed: {why}", why=failure.getErrorMessage()))
        self._trim = parts.clock.callLater(TRIM_EVERY_SECONDS, self._trim_logs)

    @property
    def _store(self) -> str:
        assert self._loaded is not None, "the server has not started"
        return self._loaded.store
