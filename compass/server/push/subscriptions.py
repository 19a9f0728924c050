"""Subscriptions: how a host becomes a subscriber, and how one that lags gets what it missed (P3, P5)."""

from __future__ import annotations

from typing import Protocol

import msgspec
from twisted.logger import Logger

from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.digest import DIGEST_VERSION
from compass.model.interfaces import Clock
from compass.model.names import InvalidName, category_of
from compass.model.replies import Refusal, Watching
from compass.model.requests import Attend, Watch
from compass.model.rows import Host
from compass.model.rules.draft import Refused
from compass.model.rules.networks import may_dial
from compass.model.rules.validation import parse_host, recorded_host
from compass.server.commit.anti_entropy import AntiEntropy
from compass.server.commit.committer import Committer
from compass.server.commit.request_queue import RETRY_AFTER_SECONDS
from compass.server.push.admission import Admission
from compass.server.push.later_revisions import LaterRevisions
from compass.server.push.publisher import TAIL_MAX, Publisher
from compass.server.push.rivals import HostRivals
from compass.server.push.snapshot_cache import STREAMED_OCTETS_MIN, SnapshotCache
from compass.server.sessions.flow_control import CatchUp, FlowControl
from compass.server.sessions.identity import ServerIdentity
from compass.server.sessions.session import Session
from compass.wire import limits
from compass.wire.frames import HEADER_LENGTH
from compass.wire.messages import Answer, EncodedReply

REPLAY_OCTETS_MAX = 4 * 1024 * 1024
"""Octets of the notices with which a host with a large view catches up; they are those of the replay buffer."""
_FRAME_MAX = limits.FRAME_MAX_FROM_SERVER + HEADER_LENGTH


class HostListener(Protocol):
    """Receiver of the hosts that watch."""

    def connected(self, session: Session) -> None:
        """Note that the session's host is here."""


class Holdings(Protocol):
    """Comparison of what hosts hold with what is recorded for them."""

    def differ(self, host: str, digest: str) -> bool:
        """Return whether other instances are recorded for a host than it holds."""

    def send_recorded(self, session: Session) -> None:
        """Send a host what is recorded for it."""

    def note_trouble(self, host: str, text: str) -> None:
        """Open or close the incident that a host asks for."""


class Guards(msgspec.Struct, frozen=True):
    """Checks that a host is not sent an older or another state than the store's."""

    anti_entropy: AntiEntropy
    later: LaterRevisions
    holdings: Holdings


def _is_same_daemon(session: Session, instance: str) -> bool:
    """Return whether a session is one of this run of a daemon; a daemon that does not name its run is unknown."""
    return bool(instance) and session.instance == instance


def _undialled(host: Host, session: Session) -> str:
    """Return why a host is not to be dialled at its update address; empty: it may be, or there is none."""
    origin = session.asker.origin
    if not host.update_address or may_dial(host.update_address, origin, session.certified_addresses()):
        return ""
    return (
        f"host {host.name!r} is not dialled at {host.update_address}: its session comes from {origin}, and its "
        "certificate does not name that address; issue one with 'opengnsadmin tls host NAME --also ADDRESS', or let "
        "the host keep its session"
    )


def _with_reason(answer: Answer, undialled: str) -> Answer:
    """Return the reply with the reason; a longer snapshot than REPLIES_QUEUED_MAX is not encoded again for it."""
    if isinstance(answer, EncodedReply) and len(answer.body) <= limits.REPLIES_QUEUED_MAX:
        answer = answer.decode()
    return msgspec.structs.replace(answer, undialled=undialled) if isinstance(answer, Watching) else answer


class Subscriptions:
    """Answers watch, and keeps each host's stream whole."""

    log = Logger()

    def __init__(
        self,
        identity: ServerIdentity,
        clock: Clock,
        committer: Committer,
        publisher: Publisher,
        guards: Guards,
        hosts: HostListener,
    ) -> None:
        self._store = identity.store
        self._asker = identity.principal
        self._committer = committer
        self._replica = committer.replica
        self._publisher = publisher
        self._anti_entropy, self.later, self._holdings = guards.anti_entropy, guards.later, guards.holdings
        self._hosts = hosts
        self.admission = Admission(clock)
        self.rivals = HostRivals(clock, committer, identity.principal)
        self.snapshots = SnapshotCache(identity.store, publisher)

    async def watch(self, request: Watch, session: Session) -> Answer:
        """Record what the host watches, then subscribe and answer in one step, so that no notice falls between.

        A host that needs a snapshot waits for its turn first, or is sent away until a time of its own.
        """
        try:
            host = parse_host(Host(session.asker.name, request.update_address, request.update_port, request.services))
        except Refused as refused:
            return refused.refusal
        except InvalidName as problem:
            return Refusal(problem.code, str(problem))
        if (gone_back := self.later.refusal()) is not None:
            return gone_back
        if refusal := self._rival_of(host.name, request.instance, session):
            return refusal
        undialled = _undialled(host, session)
        if undialled:
            self.log.warn("{text}", text=undialled)
            host = msgspec.structs.replace(host, update_address="", update_port=0)
        await self._anti_entropy.settled()
        since = request.since if request.store == self._store else -1
        categories = frozenset(category_of(service) for service in host.services)
        refusal = await self._reach(host.name, since)
        # Compared now, because what the host registers from here on is not in its digest.
        differs = self._holdings.differ(host.name, request.holds)
        refusal = refusal or await self._turn(session, categories, since) or await self._record_host(host)
        if refusal is None and not session.connected:
            refusal = Refusal("unreachable", "the session ended meanwhile")
        if refusal is not None:
            return refusal
        self.later.watched(host.name)
        watching = self._subscribe(session, request, host, since)
        session.takes_recorded = session.takes_recorded or bool(request.holds)
        if differs and not self.rivals.are_counted(host.name):
            # Of two machines with one certificate each would disown what the other one holds.
            self._holdings.send_recorded(session)
        self._holdings.note_trouble(host.name, request.trouble)
        return _with_reason(watching, undialled) if undialled else watching

    def missed(self, session: FlowControl, since: int) -> list[CatchUp] | None:
        """Return what a lagging host gets: the notices, if they are few and small; else a resync, if it accepts one.

        None: the host has to reconnect.
        """
        if self._publisher.session_of(session.host) is not session:
            return []
        categories = self._publisher.categories_of(session.host)
        catalogue = self._replica.catalogue
        octets = self.snapshots.octets(catalogue, categories)
        # While a large snapshot was read, more has changed than while a small one was: notices must suffice then, or
        # one snapshot would follow another for ever.
        is_large = octets >= STREAMED_OCTETS_MIN
        missed = self._publisher.missed(categories, since, TAIL_MAX if is_large else None)
        most = REPLAY_OCTETS_MAX if is_large else limits.REPLIES_QUEUED_MAX
        if missed is not None and sum(len(encoded) for _, encoded in missed) <= most:
            return [CatchUp(revision, encoded, revision - 1) for revision, encoded in missed]
        if not session.takes_resync:
            return None
        resync, revision = self.snapshots.resync(catalogue, categories)
        if not session.message_max and not (isinstance(resync, bytes) and len(resync) <= _FRAME_MAX):
            return None
        self.admission.sent(octets)
        return [CatchUp(revision, resync, since)]

    async def _reach(self, host: str, since: int) -> Refusal | None:
        """Read the store if a host that comes from another server holds more than this one has read. Returns the
        refusal of a host that would be shown an older state."""
        if since <= self._replica.catalogue.revision:
            return None
        if not await self._committer.catch_up():
            why = f"this server is behind revision {since} and cannot read the store"
            return Refusal("store-unavailable", why, retry_after_seconds=RETRY_AFTER_SECONDS)
        if since <= self._replica.catalogue.revision:
            return None
        return await self.later.claimed(host, since)

    def _rival_of(self, host: str, instance: str, session: Session) -> Refusal | None:
        """End the session of a daemon that would replace a rival of its own too soon. Returns why."""
        current = self._publisher.session_of(host)
        if current is None or current is session or _is_same_daemon(current, instance):
            return None
        wait = self.rivals.wait(host)
        if not wait:
            return None
        text = f"two machines are {host}: a daemon with the same certificate has a session from {current.asker.origin}"
        session.goodbye(text, retry_after_seconds=wait)
        return Refusal("busy", text, retry_after_seconds=wait)

    async def _turn(self, session: Session, categories: frozenset[str], since: int) -> Refusal | None:
        """Wait until the host may have a snapshot, if it needs one. Returns why it is refused."""
        if self._publisher.missed(categories, since) is not None:
            return None
        later = await self.admission.turn()
        if later:
            session.goodbye("many hosts connect at once; come back at the given time", retry_after_seconds=later)
            return Refusal("busy", "many hosts connect at once", retry_after_seconds=later)
        return None if session.connected else Refusal("unreachable", "the session ended meanwhile")

    async def _record_host(self, host: Host) -> Refusal | None:
        """Record the host. A host that may leave and be dialled relies on that; any other gets notices on its session.

        A host that is known already does not wait for a store that is unavailable. Returns why the host is refused.
        """
        catalogue = self._replica.catalogue
        known = catalogue.hosts.get(host.name)
        if self._committer.outage and known is not None and recorded_host(catalogue, host) == known:
            return None
        attend = Attend(host.name, host.services, host.update_address, host.update_port)
        attended = await self._committer.submit(attend, self._asker)
        if isinstance(attended, Refusal) and (attended.code != "store-unavailable" or host.update_port):
            return attended
        return None

    def _subscribe(self, session: Session, request: Watch, host: Host, since: int) -> Answer:
        catalogue = self._replica.catalogue
        categories = frozenset(category_of(service) for service in host.services)
        missed = self._publisher.missed(categories, since)
        # Without a snapshot the host holds `since`; with one, nothing until it acknowledges.
        self._publisher.acknowledged(host.name, 0 if missed is None else since)
        session.takes_resync, session.compares = request.resync, request.digest == DIGEST_VERSION
        session.probes, session.suspicions = request.probes, request.suspicions
        bookmark = (self._publisher.bookmark(categories), catalogue.revision) if session.compares else None
        replay = [CatchUp(revision, encoded, revision - 1) for revision, encoded in missed or ()]
        session.watch(host.name, self, replay, bookmark)
        session.instance = request.instance
        replaced = self._publisher.subscribe(session, categories)
        self._hosts.connected(session)
        if replaced is not None:
            rival = not _is_same_daemon(replaced, request.instance)
            origins = replaced.asker.origin, session.asker.origin
            pause = self.rivals.replaced(host.name, *origins) if rival else 0.0
            replaced.goodbye("replaced by a newer session of this host", retry_after_seconds=pause)
        unknown = tuple(service for service in host.services if catalogue.service(service) is None)
        if missed is not None:
            return Watching(self._store, catalogue.revision, None, unknown)
        self.admission.sent(self.snapshots.octets(catalogue, categories))
        return self.snapshots.watching(catalogue, categories, unknown)

    def reloaded(self, catalogue: Catalogue) -> None:
        """Forget the snapshots: the log did not lead to this catalogue."""
        self.snapshots.forget()
