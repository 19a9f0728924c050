"""Membership: the servers over the same store, as this one knows them (the rules are those of `compass.model.cluster`).

A beat a second writes this server's heartbeat and reads those of the others. A host that connects or disconnects is
written a moment later, together with all others of that moment. While the store is unavailable, what was read last
stays valid.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from compass.model.cluster import ClusterStore, ClusterView, HeartbeatResult, MembershipChange, Presence
from compass.model.interfaces import Clock, StoreUnavailable
from compass.server.commit.store_access import StoreThread
from compass.server.push.publisher import Publisher
from compass.server.queries.status import StatusReporter
from compass.system.timers import Timers

BEAT_SECONDS = 1.0
"""Between two beats: one small transaction of each server that waits for no disk."""
GATHER_SECONDS = 0.1
"""Hosts come and go in groups: those within this time are one transaction."""
ENTRIES_MAX = 2_000
"""Entries in one transaction; a storm of 10,000 hosts takes five, and no beat waits long for any."""


class ClusterAccess:
    """The part of the store that the servers share, with the thread that calls it."""

    def __init__(self, store: ClusterStore, thread: StoreThread) -> None:
        self.store = store
        self.run = thread.run


class MembershipSubscriber(Protocol):
    """A component that follows the other servers."""

    def membership_changed(self, change: MembershipChange) -> None:
        """Process what a beat has changed among the others."""


class Membership:
    """Sends this server's heartbeats and reports what each beat changed among the others."""

    log = Logger()

    def __init__(
        self, clock: Clock, access: ClusterAccess, cluster: ClusterView, status: StatusReporter, publisher: Publisher
    ) -> None:
        self.cluster = cluster
        self.subscribers: tuple[MembershipSubscriber, ...] = ()
        self._access = access
        self._status = status
        self._publisher = publisher
        self._entries: dict[str, Presence] = {}
        """Presence entries that are still to be written, by host."""
        self._is_writing = False
        self._timers = Timers(clock)
        self._has_joined = False
        self._is_stopped = False

    async def join(self) -> None:
        """Write the first heartbeat and read the others, then begin the beats. Raises StoreUnavailable."""
        await self._beat_once(beat=True)
        self._has_joined = True
        self._beat_later()

    def stop(self) -> None:
        """Leave: what this server owned falls to the others at once."""
        self._is_stopped = True
        self._timers.cancel_all()
        # A store that is unavailable keeps the heartbeat, and the others see that it does not change.
        left = self._access.run(self._access.store.leave, self.cluster.id)
        left.addErrback(lambda failure: failure.trap(StoreUnavailable))

    def host_connected(self, host: str) -> None:
        """Record that a host has its session here."""
        self._put(self.cluster.host_connected(host))

    def host_disconnected(self, host: str, *, lost: bool, held: int) -> None:
        """Record that a host has no session here: lost, or left for a while. `held`: the revision that it holds."""
        entry = self.cluster.host_disconnected(host, "lost" if lost else "left", held)
        if entry is not None:
            self._put(entry)

    def host_lost(self, host: str) -> None:
        """Record that a host has no session at any server, and that this one had its last."""
        self._put(self.cluster.host_lost(host))

    def _put(self, entry: Presence) -> None:
        self._entries[entry.host] = entry
        self._gather()

    def _gather(self) -> None:
        if not self._is_stopped:
            self._timers.start_if_idle("gather", GATHER_SECONDS, self._write, False)

    def _beat_later(self) -> None:
        if not self._is_stopped:
            self._timers.start("beat", BEAT_SECONDS, self._beat)

    def _beat(self) -> None:
        self._write(True).addBoth(lambda _: self._beat_later())

    def _write(self, beat: bool) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._beat_once(beat=beat)).addErrback(self._failed)

    def _failed(self, failure: Any) -> None:
        # The committer logs that the store is unavailable; anything else is a defect.
        if not failure.check(StoreUnavailable):
            self.log.failure("a beat failed", failure)

    async def _beat_once(self, *, beat: bool) -> None:
        if self._is_writing:
            # The next beat writes what came meanwhile.
            return
        self._is_writing = True
        heartbeat = self._status.heartbeat()
        self.cluster.can_judge = heartbeat.able
        entries = {host: self._entries[host] for host in list(self._entries)[:ENTRIES_MAX]}
        try:
            result: HeartbeatResult = await self._access.run(
                self._access.store.beat, heartbeat, tuple(entries.values())
            )
        finally:
            self._is_writing = False
        if self._is_stopped:
            return
        for host, entry in entries.items():
            if self._entries.get(host) is entry:
                del self._entries[host]
        if self._entries:
            self._gather()
        newer = tuple(one for one in result.presences if self._is_newer(one))
        change = self.cluster.update(msgspec.structs.replace(result, presences=newer), beat=beat)
        for one in newer:
            if one.state != "here" and self._publisher.session_of(one.host) is not None:
                # The host was at that server for a moment, which has written so later than this one.
                self.host_connected(one.host)
        for subscriber in self.subscribers if self._has_joined else ():
            subscriber.membership_changed(change)

    def _is_newer(self, entry: Presence) -> bool:
        """Return whether another server's entry is newer than the one of that host that is still to be written."""
        waiting = self._entries.get(entry.host)
        if waiting is not None and waiting.state == "here":
            return False
        self._entries.pop(entry.host, None)
        return True
