"""Synchronization of the replica with a server: the watch on behalf of this host's services, notices, gaps.

On every session the host watches first; then notices are applied and acknowledged. A missing notice is answered by an
acknowledgement that says so and a new watch for everything (P4). A caller that waits for a service which is not watched
yet gets the result when the reply has come, or cannot come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from compass.agent.replica.replica import Replica
from compass.agent.replica.wanted_services import WantedServices
from compass.agent.upstream.pending_requests import ASK_PATIENCE_SECONDS
from compass.agent.upstream.upstream import Upstream
from compass.model.catalogue.digest import DIGEST_VERSION, IncrementalDigest, part_of, to_hex
from compass.model.interfaces import Clock
from compass.model.replies import Refusal, Reply, Watching
from compass.model.requests import Watch
from compass.model.rows import Change
from compass.system.timers import Timers
from compass.wire.messages import Bookmark, Held, Inquiry, Notice, Pushed, Recorded, Resync, Suspicion, Welcome

GAPS_PER_SESSION_MAX = 3
"""Gaps that are repaired on one session; a server that loses more is left for another one."""

WATCH_PAUSE_SECONDS = 1.0
"""Pause between watches for services that were added: each changes the host's row in the store, and with it the log."""


class ReplicaListener(Protocol):
    """Receiver of what changes in the replica, and of what a server sends next to its log."""

    def changed(self, change: Change) -> None:
        """Handle a notice that was applied to the replica."""

    def replaced(self) -> None:
        """Handle a whole view that was loaded."""

    def wanted_changed(self) -> None:
        """Handle a change of the services that this host watches for."""

    def suspected(self, suspicion: Suspicion | None) -> None:
        """Handle a suspicion that is not in the log. None: a watch was answered, the server's suspicions follow."""

    def inquired(self, inquiry: Inquiry) -> None:
        """Handle a server's request to probe a listener."""


class HostBook(Protocol):
    """Registrations of this host, for the server that it watches at."""

    def holds(self) -> str:
        """Return the digest of the instances that this host holds; empty: it does not compare now."""

    def trouble(self) -> str:
        """Return what administrators should know about this host; empty: nothing."""


class OwnAddress(Protocol):
    """Address of this host, which may change."""

    @property
    def current(self) -> str:
        """Current address."""


class SyncSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the synchronization."""

    refresh_seconds: float
    """Pause between watches on a session that lasts: a safety net against lost notices."""
    polls: bool = False
    """No session is kept (mode `short`), so the view may be `refresh_seconds` old before it counts as unconfirmed."""
    address: OwnAddress | None = None
    """Address at which servers dial this host, if they do."""
    update_port: int = 0
    """Port at which they do; 0: they cannot."""
    instance: str = ""
    """Run of this daemon; empty: it is not sent."""
    probes: bool = False
    """This host probes listeners when a server asks."""


class ReplicaSync:
    """Synchronization of the replica over the upstream's session."""

    _log = Logger()

    def __init__(
        self,
        clock: Clock,
        upstream: Upstream,
        replica: Replica,
        wanted: WantedServices,
        listener: ReplicaListener,
        settings: SyncSettings,
    ) -> None:
        self._clock = clock
        self._upstream = upstream
        self._replica = replica
        self._wanted = wanted
        self._listener = listener
        self._settings = settings
        self._timers = Timers(clock)
        self._store = ""
        self._has_session = False
        self._asking = False
        self._has_added = False
        """The host wants a service for which no watch was sent yet."""
        self._must_compare = False
        """The host holds something else than the last watch said."""
        self._next_added_at = 0.0
        """Earliest time of the next watch for an added service."""
        self._in_step = False
        self._vouched_at: float | None = None
        """End of the last session on which the replica was up to date, in the clock's seconds; None: none yet."""
        self._gap = False
        self._abandoned = False
        self._gaps = 0
        self._sessions = 0
        self._waiting: dict[str, list[Deferred[None]]] = {}
        self.notices = Counter[str]()
        """Notices by result: `applied`, `duplicate` or `gap`."""
        self.snapshots = 0
        """Number of whole views that were loaded from a server."""
        self.book: HostBook | None = None
        """Registrations of this host; None: servers learn nothing of them."""
        self._trouble = ""
        upstream.follow(self)

    def start(self, vouched_at: float | None = None) -> None:
        """Start refreshing. `vouched_at`: when what the disk had was written, in the clock's seconds."""
        self._vouched_at = vouched_at
        self._timers.start("refresh", self._settings.refresh_seconds, self._refreshed)

    def stop(self) -> None:
        """Stop refreshing."""
        self._timers.cancel_all()

    def want(self, service: str, user: int) -> Refusal | None:
        """Watch for an existing service too, for a user; refused if there are too many and none can give way."""
        refusal = self.add(service, user)
        self.watch_added()
        return refusal

    def add(self, service: str, user: int | None = None) -> Refusal | None:
        """Add an existing service for the next watch; refused if there are too many and none can give way.

        `user`: whose program asks; None: the service is registered here.
        """
        known = service in self._wanted
        refusal = self._wanted.add(service, user)
        if refusal is None and not known:
            self._has_added = True
            self._listener.wanted_changed()
        return refusal

    def trouble_changed(self) -> None:
        """Watch again if administrators should know something else than the last watch said."""
        if self.book is not None and self.book.trouble() != self._trouble:
            self._watch()

    def compare(self) -> None:
        """Watch again, because this host does not hold all that is recorded for it: servers find the difference."""
        self._must_compare = True
        self._watch()

    def watch_added(self) -> None:
        """Watch for the services that were added: for all that one message adds together, at the permitted rate."""
        if self._has_added:
            pause = max(0.0, self._next_added_at - self._clock.seconds())
            self._timers.start_if_idle("added", pause, self._watch_added)

    def _watch_added(self) -> None:
        if self._has_added and self._upstream.expected():
            self._watch()

    def when_watched(self, service: str) -> Deferred[None]:
        """Return what fires when a server has answered for this wanted service, or when none is expected to."""
        answered: Deferred[None] = Deferred()
        if not self._upstream.expected():
            answered.callback(None)
            return answered
        self._waiting.setdefault(service, []).append(answered)
        patience = self._clock.callLater(ASK_PATIENCE_SECONDS, self._release_waiting, service)

        def done(result: None) -> None:
            if patience.active():
                patience.cancel()

        return answered.addCallback(done)

    def view_age(self) -> float | None:
        """Return the seconds since a server last confirmed the replica; None: nothing is loaded."""
        if not self._replica.loaded:
            return None
        if self._in_step or self._vouched_at is None:
            return 0.0
        allowed = self._settings.refresh_seconds if self._settings.polls else 0.0
        return max(0.0, self._clock.seconds() - self._vouched_at - allowed)

    # The follower of the session --------------------------------------------------------------------------

    def session_opened(self, welcome: Welcome) -> None:
        """Watch on the new session."""
        self._has_session, self._store = True, welcome.store
        self._sessions += 1
        self._in_step = self._gap = self._abandoned = False
        self._gaps = 0
        self._watch()

    def session_pushed(self, messages: Sequence[Pushed]) -> None:
        """Apply the messages, then acknowledge all of them at once."""
        if self._abandoned:
            return
        advanced = False
        for message in messages:
            match message:
                case Inquiry():
                    self._listener.inquired(message)
                    continue
                case Recorded():
                    continue
                case Suspicion():
                    self._listener.suspected(message)
                    continue
                case Notice():
                    self._notice(message)
                case Resync():
                    self._resync(message)
                case Bookmark() if not self._gap:
                    self._replica.bookmark(message.revision)
                    self._compare(message.digest)
            advanced = True
        if advanced and not self._gap:
            self._upstream.acknowledge(self._replica.catalogue.revision)

    def session_ended(self) -> None:
        """Fail the requests that wait for an answer of this session."""
        self._has_session = self._asking = False
        if self._in_step:
            self._in_step, self._vouched_at = False, self._clock.seconds()
        for service in list(self._waiting):
            self._release_waiting(service)

    # Watching ---------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        if not self._has_session or self._asking:
            return
        services = tuple(sorted(self._wanted.all))
        store, since = self._replica.resume_point(services)
        if self._gap or store != self._store:
            since = 0
        if self._has_added:
            self._next_added_at = self._clock.seconds() + WATCH_PAUSE_SECONDS
        self._asking, self._has_added, self._must_compare = True, False, False
        settings, book = self._settings, self.book
        self._trouble = book.trouble() if book is not None else ""
        request = Watch(
            services,
            store if since else "",
            since,
            settings.address.current if settings.address is not None and settings.update_port else "",
            settings.update_port,
            resync=True,
            probes=settings.probes,
            instance=settings.instance,
            suspicions=True,
            digest=DIGEST_VERSION,
            holds=book.holds() if book is not None else "",
            trouble=self._trouble,
        )
        self._upstream.ask(request).addCallback(self._answered, services)

    def _answered(self, reply: Reply, services: tuple[str, ...]) -> None:
        if not self._has_session:
            return
        self._asking = False
        if not isinstance(reply, Watching):
            refusal = reply if isinstance(reply, Refusal) else Refusal("malformed", f"it answered a watch with {reply}")
            text = f"the server does not let this host watch: {refusal.message}"
            self._abandon(text, refusal.retry_after_seconds)
            return
        if reply.undialled:
            self._upstream.keep(reply.undialled)
        taken = self._replica.watching(reply, services)
        if taken == "held-back":
            self._abandon(
                "the server has another store than before, with nothing in it for this host, so what is held stays "
                "in use; once the services of this host are declared there, it follows"
            )
            return
        if taken == "behind":
            self._abandon(
                f"the server has not heard of all that this host holds at revision {self._replica.catalogue.revision}; "
                "what is held stays in use until a server has caught up"
            )
            return
        self._listener.suspected(None)
        if taken == "replaced":
            self.snapshots += 1
            self._gap = False
            self._listener.replaced()
            self._upstream.acknowledge(self._replica.catalogue.revision)
        # Names that do not exist must not stay on the list for good.
        self._wanted.forget(reply.unknown)
        for service in [service for service in self._waiting if service in services]:
            self._release_waiting(service)
        if self._gap:
            self._watch()
            return
        self._in_step = True
        self._upstream.settled()
        self._has_added = not set(self._wanted.all) <= set(services)
        if self._must_compare:
            self._watch()
        self.watch_added()
        self.trouble_changed()

    def _notice(self, notice: Notice) -> None:
        if self._gap:
            return  # The snapshot that was asked for will hold it.
        applied = self._replica.notice(notice)
        self.notices[applied] += 1
        if applied == "applied":
            self._listener.changed(notice.change)
        elif applied == "gap":
            self._gap = True
            self._gaps += 1
            self._log.warn(
                "a notice before revision {revision} is missing; watching again from a snapshot",
                revision=notice.change.revision,
            )
            self._ask_anew("gap")

    def _compare(self, digest: str) -> None:
        """Compute the digest of the replica in pieces, and compare it with the server's."""
        session, revision = self._sessions, self._replica.catalogue.revision
        count = IncrementalDigest(part_of(self._replica.catalogue, self._replica.services))

        def advance() -> None:
            if not self._has_session or self._gap or session != self._sessions:
                return
            if not count.advance():
                self._clock.callLater(0.0, advance)
            elif to_hex(count.digest) != digest:
                self._log.error(
                    "the replica at revision {revision} differs from the server; watching again from a snapshot",
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
        self._upstream.abandon(why, retry_after_seconds)

    def _ask_anew(self, status: Held) -> None:
        self._upstream.acknowledge(self._replica.catalogue.revision, status)
        if self._gaps > GAPS_PER_SESSION_MAX:
            self._abandon(f"{self._gaps} gaps in the notices of one session")
        else:
            self._watch()

    def _resync(self, resync: Resync) -> None:
        """Replace the view: this host has read too slowly, and the server sends everything again."""
        if self._replica.resync(resync) == "replaced":
            self.snapshots += 1
            self._gap = False
            self._listener.replaced()

    def _release_waiting(self, service: str) -> None:
        for answered in self._waiting.pop(service, []):
            answered.callback(None)

    def _refreshed(self) -> None:
        """Watch again from time to time: a safety net against lost notices."""
        self._timers.start("refresh", self._settings.refresh_seconds, self._refreshed)
        if self._upstream.expected():
            self._watch()
