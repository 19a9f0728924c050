"""Synchronization of the replica with a server: the watch on behalf of this host's services, notices, gaps.

On every session the host watches first; then notices are applied and acknowledged. A missing notice is answered by an
acknowledgement that says so and a new watch for everything (P4). A caller that waits for a service which is not watched
yet gets the result when the reply has come, or cannot come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from compass.agent.replica.replica import Replica
from compass.agent.upstream.pending_requests import ASK_PATIENCE_SECONDS
from compass.agent.upstream.upstream import Upstream
from compass.model.catalogue.digest import DIGEST_VERSION, IncrementalDigest, part_of, to_hex
from compass.model.interfaces import Clock, Timer
from compass.model.limits import HOST_SERVICES_MAX
from compass.model.replies import Refusal, Reply, Watching
from compass.model.requests import Watch
from compass.model.rows import Change
from compass.wire.messages import Bookmark, Held, Inquiry, Notice, Pushed, Resync, Suspicion, Welcome

GAPS_PER_SESSION_MAX = 3
"""Gaps that are mended on one session; a server that loses more is left for another."""


class ReplicaSync:
    """Synchronization through an `Upstream`, once `upstream` is set.

    `changed` gets each applied change, `replaced` a whole new view, `settled` runs once per session when the host is up
    to date, `lost` when the session has ended, `suspected` gets suspicions outside the log (None: all end), `inquired`
    the server's inquiries.
    """

    _log = Logger()
    upstream: Upstream

    def __init__(
        self,
        clock: Clock,
        replica: Replica,
        refresh_seconds: float,
        update: tuple[str, int],
        changed: Callable[[Change], None],
        replaced: Callable[[], None],
        settled: Callable[[], None],
        lost: Callable[[], None],
        needed: Callable[[], frozenset[str]],
        suspected: Callable[[Suspicion | None], None],
        inquired: Callable[[Inquiry], None] | None = None,
    ) -> None:
        self._clock = clock
        self._replica = replica
        self._refresh_seconds = refresh_seconds
        self._update = update
        self._changed = changed
        self._replaced = replaced
        self._settled = settled
        self._lost = lost
        self._needed = needed
        self._suspected = suspected
        self._inquired = inquired
        self._wanted: dict[str, None] = {}
        self._store = ""
        self._session = False
        self._asking = False
        self._told = False
        self._gap = False
        self._abandoned = False
        self._gaps = 0
        self._sessions = 0
        self._waiting: dict[str, list[Deferred[None]]] = {}
        self._refresh: Timer | None = None
        self.notices = Counter[str]()
        """Notices by result: `applied`, `duplicate` or `gap`."""
        self.snapshots = 0
        """Whole views that were taken."""

    @property
    def wanted(self) -> tuple[str, ...]:
        """Return the services on whose behalf this host receives changes, the least recently used first."""
        return tuple(self._wanted)

    def start(self, wanted: Iterable[str]) -> None:
        """Begin with the services of the last run."""
        self._wanted.update(dict.fromkeys(list(wanted)[:HOST_SERVICES_MAX]))
        self._refresh = self._clock.callLater(self._refresh_seconds, self._refreshed)

    def stop(self) -> None:
        """Stop the refresh."""
        if self._refresh is not None and self._refresh.active():
            self._refresh.cancel()

    def want(self, service: str) -> Refusal | None:
        """Subscribe on behalf of this service too; refused if there are too many and all of them are registered."""
        known = service in self._wanted
        self._wanted.pop(service, None)
        if len(self._wanted) >= HOST_SERVICES_MAX:
            needed = self._needed()
            idle = next((other for other in self._wanted if other not in needed), None)
            if idle is None:
                text = f"this host has {HOST_SERVICES_MAX} services, the most there can be; deregister one first"
                return Refusal("too-large", text)
            del self._wanted[idle]
        self._wanted[service] = None
        if not known:
            self._watch()
        return None

    def when_watched(self, service: str) -> Deferred[None]:
        """Fires when a server has answered for this wanted service, or when no answer can be waited for."""
        answered: Deferred[None] = Deferred()
        if not self.upstream.expected():
            answered.callback(None)
            return answered
        self._waiting.setdefault(service, []).append(answered)
        patience = self._clock.callLater(ASK_PATIENCE_SECONDS, self._tell_waiting, service)

        def done(result: None) -> None:
            if patience.active():
                patience.cancel()

        return answered.addCallback(done)

    # The follower of the session --------------------------------------------------------------------------

    def session_opened(self, welcome: Welcome) -> None:
        """Watch first of all."""
        self._session, self._store = True, welcome.store
        self._sessions += 1
        self._told = self._gap = self._abandoned = False
        self._gaps = 0
        self._watch()

    def session_pushed(self, messages: Sequence[Pushed]) -> None:
        """Apply, then acknowledge all of it at once."""
        if self._abandoned:
            return
        for message in messages:
            match message:
                case Notice():
                    self._notice(message)
                case Resync():
                    self._resync(message)
                case Bookmark() if not self._gap:
                    self._replica.bookmark(message.revision)
                    self._compare(message.digest)
                case Inquiry() if self._inquired is not None:
                    self._inquired(message)
                case Suspicion():
                    self._suspected(message)
        if not self._gap and not all(isinstance(message, Inquiry | Suspicion) for message in messages):
            self.upstream.acknowledge(self._replica.revision)

    def session_ended(self) -> None:
        """Fail the requests that wait for an answer of this session."""
        self._session = self._asking = False
        for service in list(self._waiting):
            self._tell_waiting(service)
        self._lost()

    # Watching ---------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        if not self._session or self._asking:
            return
        services = tuple(sorted(self._wanted))
        store, since = self._replica.resume_point(services)
        if self._gap or store != self._store:
            since = 0
        self._asking = True
        address, port = self._update
        probes = self._inquired is not None
        since_store = store if since else ""
        request = Watch(
            services, since_store, since, address, port, True, probes, suspicions=True, digest=DIGEST_VERSION
        )
        self.upstream.ask(request).addCallback(self._answered, services)

    def _answered(self, reply: Reply, services: tuple[str, ...]) -> None:
        if not self._session:
            return
        self._asking = False
        if not isinstance(reply, Watching):
            refusal = reply if isinstance(reply, Refusal) else Refusal("malformed", f"it answered a watch with {reply}")
            text = f"the server does not let this host watch: {refusal.message}"
            self._abandon(text, refusal.retry_after_seconds)
            return
        taken = self._replica.watching(reply, services)
        if taken == "held-back":
            self._abandon(
                "the server has another store than before, with nothing in it for this host, so what is held stays "
                "in use; once the services of this host are declared there, it follows"
            )
            return
        if taken == "behind":
            self._abandon(
                f"the server has not heard of all that this host holds at revision {self._replica.revision}; what is "
                "held stays in use until a server has caught up"
            )
            return
        self._suspected(None)
        if taken == "replaced":
            self.snapshots += 1
            self._gap = False
            self._replaced()
            self.upstream.acknowledge(self._replica.revision)
        self._forget(reply.unknown)
        for service in [service for service in self._waiting if service in services]:
            self._tell_waiting(service)
        if self._gap or not set(self._wanted) <= set(services):
            self._watch()
            return
        self.upstream.settled()
        if not self._told:
            self._told = True
            self._settled()

    def _forget(self, unknown: Iterable[str]) -> None:
        """Drop names that no program registered here and that do not exist: they must not fill the list for good."""
        needed = self._needed()
        for service in unknown:
            if service not in needed:
                self._wanted.pop(service, None)

    def _notice(self, notice: Notice) -> None:
        if self._gap:
            return  # The snapshot that was asked for will hold it.
        applied = self._replica.notice(notice)
        self.notices[applied] += 1
        if applied == "applied":
            self._changed(notice.change)
        elif applied == "gap":
            self._gap = True
            self._gaps += 1
            self._log.warn(
                "a notice before revision {revision} is missing; asking for everything anew",
                revision=notice.change.revision,
            )
            self._ask_anew("gap")

    def _compare(self, digest: str) -> None:
        """Count what is held now, in pieces, and see whether it is what the server says."""
        session, revision = self._sessions, self._replica.revision
        count = IncrementalDigest(part_of(self._replica.catalogue, self._replica.services))

        def advance() -> None:
            if not self._session or self._gap or session != self._sessions:
                return
            if not count.advance():
                self._clock.callLater(0.0, advance)
            elif to_hex(count.digest) != digest:
                self._log.error(
                    "what is held at revision {revision} is not what the server says; asking for everything anew",
                    revision=revision,
                )
                self._gap = True
                self._gaps += 1
                self._ask_anew("differs")

        if digest:
            advance()

    def _abandon(self, why: str, retry_after_seconds: float = 0.0) -> None:
        """Leave this server and ignore what it has pushed already."""
        self._abandoned = True
        self.upstream.abandon(why, retry_after_seconds)

    def _ask_anew(self, status: Held) -> None:
        self.upstream.acknowledge(self._replica.revision, status)
        if self._gaps > GAPS_PER_SESSION_MAX:
            self._abandon(f"{self._gaps} gaps in the notices of one session")
        else:
            self._watch()

    def _resync(self, resync: Resync) -> None:
        """Replace the view: this host has read too slowly, and the server sends everything again."""
        if self._replica.resync(resync) == "replaced":
            self.snapshots += 1
            self._gap = False
            self._replaced()

    def _tell_waiting(self, service: str) -> None:
        for answered in self._waiting.pop(service, []):
            answered.callback(None)

    def _refreshed(self) -> None:
        """Watch again from time to time: a safety net against lost notices."""
        self._refresh = self._clock.callLater(self._refresh_seconds, self._refreshed)
        if self.upstream.expected():
            self._watch()
