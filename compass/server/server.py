"""The server: loads the catalogue, builds its components, starts and stops them, and makes sessions."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.octets import change_octets
from compass.model.interfaces import LogTrimmed, StoreState, StoreUnavailable, Timer
from compass.model.requests import Request
from compass.model.rows import Change
from compass.model.rules.draft import Principal
from compass.server.commit.committer import Committer
from compass.server.commit.replica import CATCH_UP_OCTETS_MAX
from compass.server.components import Components, ServerBase, ServerDependencies
from compass.server.https_api import NOT_READY, HttpsApi
from compass.server.push.change_feed import RECENT_MAX
from compass.server.push.publisher import TAIL_MAX, TAIL_OCTETS_MAX
from compass.server.router import Router
from compass.server.sessions.connection_limits import ConnectionLimits
from compass.server.sessions.drain import HostDrain
from compass.server.sessions.session import Redirect, Session, SessionContext, origin_of
from compass.server.sessions.write_turns import WriteTurns
from compass.wire.events import AcknowledgementReceived
from compass.wire.messages import Answer

TAIL_EVERY_SECONDS = 0.5
"""Seconds between two reads of what other servers over the same store have committed, in case that no notification
came: one indexed read. Well below the second within which a killed process is gone everywhere (P9)."""


class Loading:
    """The handler of sessions until the catalogue is loaded: every peer is asked to come back (P5)."""

    def hello(self, session: Session) -> Redirect:
        """Send the peer away for a moment."""
        return Redirect(NOT_READY.message, NOT_READY.retry_after_seconds)

    def request(self, request: Request, asker: Principal, session: Session | None) -> Answer | Deferred[Answer]:
        """Refuse the request."""
        return NOT_READY

    def acknowledged(self, session: Session, event: AcknowledgementReceived) -> None:
        """Ignore the acknowledgement: nothing was sent."""

    def refused(self, host: str, why: str) -> None:
        """Ignore the refusal: the host comes again when the catalogue is loaded."""

    def closed(self, session: Session) -> None:
        """Ignore the end of the session: no host has subscribed."""


class Server(Factory):
    """Server; also the factory of its sessions."""

    log = Logger()
    noisy = False

    def __init__(self, name: str, software: str, dependencies: ServerDependencies) -> None:
        clock = dependencies.clock
        connections = ConnectionLimits(dependencies)
        turns = WriteTurns(clock)
        sessions = SessionContext(clock, dependencies.peer_of, connections, Loading(), turns, dependencies.addresses_of)
        drain = HostDrain(clock, connections)
        self.name = name
        self.connections = connections
        self.https = HttpsApi(sessions, connections, drain, dependencies)
        self._components: Components | None = None
        """None until the catalogue is loaded."""
        self._base = ServerBase(name, software, dependencies, sessions, connections, drain)
        self._tail: Timer | None = None

    async def start(self) -> None:
        """Load the catalogue, join the cluster, then serve. Raises StoreUnavailable."""
        given = self._base.dependencies
        loaded: StoreState = await given.in_database.run(given.storage.load)
        recent = await self._recent_changes(loaded)
        self._components = components = Components(self._base, loaded)
        self.connections.security_log = components.committer
        components.publisher.preload(recent)
        components.change_feed.preload(recent[-RECENT_MAX:])
        # Which other servers there are decides what this one keeps; only then is it ready.
        await components.membership.join()
        await self._compare_with_peers(components)
        components.detector.start(components.committer.catalogue)
        components.dialer.start()
        components.subscriptions.rivals.start()
        components.double_sessions.start()
        components.holdings.start()
        components.trimmer.start()
        components.anti_entropy.start()
        components.subscriptions.later.start()
        components.alerts.ownership_changed()
        components.refused_hosts.start()
        components.lost_hosts.start()
        if given.reports_certificates:
            components.certificates.start()
        self._tail = given.clock.callLater(TAIL_EVERY_SECONDS, self._read_log)
        self._base.sessions.handler = self.https.router = Router(components)
        self.log.info(
            "{name} serves store {store} at revision {revision}",
            name=self.name,
            store=loaded.store,
            revision=loaded.revision,
        )

    async def _recent_changes(self, loaded: StoreState) -> list[Change]:
        """Read the newest changes from the log, page by page: as many as the replay buffer holds."""
        given = self._base.dependencies
        at = max(loaded.floor - 1, loaded.revision - TAIL_MAX)
        recent: deque[Change] = deque()
        octets = 0
        try:
            while at < loaded.revision:
                most = loaded.revision - at
                page: list[Change] = await given.in_database.run(
                    given.storage.changes_after, at, most, CATCH_UP_OCTETS_MAX
                )
                if not page:
                    break
                recent += page
                octets += sum(map(change_octets, page))
                while octets > TAIL_OCTETS_MAX:
                    octets -= change_octets(recent.popleft())
                at = page[-1].revision
        except LogTrimmed as gap:
            # Hosts that missed something get snapshots.
            self.log.error("starts without the recent changes: {why}", why=str(gap))
            recent.clear()
        return list(recent)

    async def _compare_with_peers(self, components: Components) -> None:
        """Compare the store with what the other servers have applied of it. Raises StoreUnavailable if it is older."""
        committer, peers = components.committer, components.cluster.peers.values()
        applied, name = max(((peer.line.revision, peer.line.name) for peer in peers), default=(0, ""))
        if applied <= committer.catalogue.revision or not await committer.catch_up():
            return
        revision = committer.catalogue.revision
        if applied > revision:
            given = self._base.dependencies
            await given.in_database.run(given.storage.mark_lost, applied)
            text = f"the store is at revision {revision}, and server {name} has applied revision {applied} of it: "
            raise StoreUnavailable(f"{text}it went back in time; 'opengnsadmin store new-id' says what to do")

    def stop(self) -> None:
        """End every session and every timer. What was answered is on disk; the rest was not answered."""
        if self._components is not None:
            self._stop(self._components)
        if self._tail is not None and self._tail.active():
            self._tail.cancel()
        drain = self._base.drain
        drain.stop()
        instead = drain.redirect.instead if drain.redirect else ()
        for session in list(self.connections.sessions):
            session.goodbye("the server stops", 0.5, instead)

    @property
    def catalogue(self) -> Catalogue:
        """Catalogue as committed, once it is loaded."""
        return self.commits.catalogue

    @property
    def commits(self) -> Committer:
        """Commit loop, once the catalogue is loaded."""
        return self.components.committer

    @property
    def components(self) -> Components:
        """Components, once the catalogue is loaded."""
        assert self._components is not None, "the server has not started"
        return self._components

    def buildProtocol(self, address: IAddress | None) -> Session | None:
        """Return a session for a new connection, or None if its origin is refused."""
        return Session(self._base.sessions) if self.connections.is_allowed(origin_of(address)) else None

    def _stop(self, components: Components) -> None:
        components.committer.stop()
        components.pending_suspicions.stop()
        components.detector.stop()
        components.dialer.stop()
        components.subscriptions.rivals.stop()
        components.double_sessions.stop()
        components.holdings.stop()
        components.trimmer.stop()
        components.anti_entropy.stop()
        components.alerts.stop()
        components.refused_hosts.stop()
        components.lost_hosts.stop()
        components.certificates.stop()
        components.membership.stop()
        counts = components.committer.writer.counts
        if counts["batches"]:
            text = "committed {n} batches, {again} of them decided again, {off} postponed, because of other servers"
            self.log.info(text, n=counts["batches"], again=counts["again"], off=counts["put off"])

    def _read_log(self) -> None:
        self.commits.catch_up()
        self._tail = self._base.dependencies.clock.callLater(TAIL_EVERY_SECONDS, self._read_log)
