"""Watches: how a host becomes a subscriber, and how one that fell behind is told what it missed (P3, P5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import msgspec
from twisted.internet.defer import Deferred

from compass.model.catalogue.digest import DIGEST_VERSION
from compass.model.interfaces import Clock
from compass.model.names import InvalidName, category_of
from compass.model.replies import Refusal, Reply, Watching
from compass.model.requests import Attend, Watch
from compass.model.rows import Host
from compass.model.rules.administration import parsed_host
from compass.model.rules.draft import Principal, Refused
from compass.server.commit.committer import Committer
from compass.server.commit.request_queue import RETRY_AFTER_SECONDS
from compass.server.push.admission import Admission
from compass.server.push.publisher import Publisher
from compass.server.push.snapshot_cache import SnapshotCache
from compass.server.sessions.session import CatchUp, Session
from compass.wire import limits


class Subscriptions:
    """Answers watch, and keeps each host's stream whole."""

    def __init__(
        self,
        clock: Clock,
        store: str,
        commits: Committer,
        push: Publisher,
        system: Principal,
        returned: Callable[[Session], None],
        settled: Callable[[], Deferred[None]],
    ) -> None:
        """`store` is the store's id; `system` asks for what the server notes by itself; `returned` is told each
        session whose host watches; `settled` fires when the server is not just making sure of what it holds."""
        self._store = store
        self._commits = commits
        self._push = push
        self._system = system
        self._returned = returned
        self._settled = settled
        self.admission = Admission(clock)
        self.snapshots = SnapshotCache(store, push.last_told)

    async def watch(self, session: Session, request: Watch) -> Reply | bytes:
        """Remember what the host watches, then subscribe and answer in one step, so that no notice falls between.

        A host that needs a snapshot waits for its turn first, or is told when to come back.
        """
        try:
            host = parsed_host(Host(session.asker.name, request.update_address, request.update_port, request.services))
        except Refused as refused:
            return refused.refusal
        except InvalidName as problem:
            return Refusal(problem.code, str(problem))
        await self._settled()
        since = request.since if request.store == self._store else -1
        categories = frozenset(category_of(service) for service in host.services)
        refusal = await self._turn(session, categories, since) or await self._record_host(host)
        # A host that comes from another server may hold more than this one has heard of: never show it an older state.
        if refusal is None and since > self._commits.catalogue.revision and not await self._commits.catch_up():
            why = f"this server is behind revision {since} and cannot read the store"
            refusal = Refusal("store-unavailable", why, retry_after_seconds=RETRY_AFTER_SECONDS)
        if refusal is None and not session.connected:
            refusal = Refusal("unreachable", "the session ended meanwhile")
        return refusal or self._subscribe(session, request, host, since)

    def missed(self, session: Session, since: int) -> list[CatchUp] | None:
        """What a host that fell behind gets: the notices, if they are few and small; else a resync, if it takes one."""
        if self._push.session_of(session.host) is not session:
            return []
        categories = self._push.categories_of(session.host)
        missed = self._push.missed(categories, since)
        if missed is not None and sum(len(encoded) for _, encoded in missed) <= limits.REPLIES_QUEUED_MAX:
            return [CatchUp(revision, encoded, revision - 1) for revision, encoded in missed]
        if not session.takes_resync:
            return None
        encoded, revision = self.snapshots.resync(self._commits.catalogue, categories)
        if len(encoded) > limits.FRAME_MAX_FROM_SERVER:
            return None
        self.admission.sent(len(encoded))
        return [CatchUp(revision, encoded, since)]

    async def _turn(self, session: Session, categories: frozenset[str], since: int) -> Refusal | None:
        """Wait until the host may have a snapshot, if it needs one."""
        if self._push.missed(categories, since) is not None:
            return None
        later = await self.admission.turn()
        if later:
            session.goodbye("many hosts come at once; this one's turn comes", retry_after_seconds=later)
            return Refusal("busy", "many hosts come at once", retry_after_seconds=later)
        return None if session.connected else Refusal("unreachable", "the session ended meanwhile")

    async def _record_host(self, host: Host) -> Refusal | None:
        """Remember the host. One that may leave and be dialled relies on that; any other is told on its session.

        One that is known does not wait for a store that is away.
        """
        known = self._commits.catalogue.hosts.get(host.name)
        if self._commits.outage and known is not None and msgspec.structs.replace(known, barred=host.barred) == host:
            return None
        attend = Attend(host.name, host.services, host.update_address, host.update_port)
        attended = await self._commits.submit(attend, self._system)
        if isinstance(attended, Refusal) and (attended.code != "store-unavailable" or host.update_port):
            return attended
        return None

    def _subscribe(self, session: Session, request: Watch, host: Host, since: int) -> Reply | bytes:
        catalogue = self._commits.catalogue
        categories = frozenset(category_of(service) for service in host.services)
        missed = self._push.missed(categories, since)
        self._push.acknowledged(host.name, 0 if missed is None else since)
        session.compares = request.digest == DIGEST_VERSION
        bookmark = (self._push.bookmark(categories), catalogue.revision) if session.compares else None
        session.watch(missed or [], request.resync, bookmark)
        replaced = self._push.subscribe(session, categories)
        session.probes, session.suspicions = request.probes, request.suspicions
        self._returned(session)
        if replaced is not None:
            cast(Session, replaced).goodbye("replaced by a newer session of this host")
        unknown = tuple(service for service in host.services if catalogue.service(service) is None)
        if missed is not None:
            return Watching(self._store, catalogue.revision, None, unknown)
        body = self.snapshots.watching(catalogue, categories, unknown)
        self.admission.sent(len(body))
        return body
