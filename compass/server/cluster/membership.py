"""Neighbours: the servers over the same store, as this one knows them (`compass.model.cluster` says by what rules).

A beat a second writes this server's line and reads the others'. A host that comes or goes is written down a moment
later, together with whoever came and went meanwhile. While the store is away, what was known last goes on to be true.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from compass.model.cluster import ClusterStore, ClusterView, Heartbeat, HeartbeatResult, MembershipChange, Presence
from compass.model.interfaces import Clock, StoreUnavailable, Timer
from compass.server.commit.store_access import RunInDatabase

BEAT_SECONDS = 1.0
"""Between two beats: one small transaction of each server that waits for no disk."""
GATHER_SECONDS = 0.1
"""Hosts come and go in groups: who did so within this time is one transaction."""
ENTRIES_MAX = 2_000
"""Entries in one transaction; a storm of 10,000 hosts takes five, and no beat waits long for any."""


class Membership:
    """Beats, and tells what each beat changed."""

    log = Logger()

    def __init__(
        self,
        clock: Clock,
        roster: ClusterStore,
        beside: RunInDatabase,
        neighbourhood: ClusterView,
        line: Callable[[], Heartbeat],
        is_here: Callable[[str], bool],
        turned: Callable[[MembershipChange], None],
    ) -> None:
        """`beside` runs the roster's functions on a thread of their own; `line` says how this server is, `is_here`
        whether it has a host's session; `turned` is told what has changed among the others."""
        self.known = neighbourhood
        self._clock = clock
        self._roster = roster
        self._beside = beside
        self._line = line
        self._is_here = is_here
        self._turned = turned
        self._entries: dict[str, Presence] = {}
        self._writing = False
        self._gathering: Timer | None = None
        self._beating: Timer | None = None
        self._joined = False
        self._stopped = False

    async def join(self) -> None:
        """Be known, and know the others; afterwards go on by itself. Raises StoreUnavailable."""
        await self._heartbeat(beat=True)
        self._joined = True
        self._beat_later()

    def stop(self) -> None:
        """Be known no more: what this server kept falls to the others at once."""
        self._stopped = True
        for timer in (self._gathering, self._beating):
            if timer is not None and timer.active():
                timer.cancel()
        # A store that is away keeps the line, and the others see that it does not move.
        self._beside(self._roster.leave, self.known.id).addErrback(lambda failure: failure.trap(StoreUnavailable))

    def came(self, host: str) -> None:
        """A host's session is here."""
        self._note(self.known.host_connected(host))

    def went(self, host: str, *, lost: bool, held: int) -> None:
        """It is not any more: lost, or left for a while."""
        entry = self.known.host_disconnected(host, "lost" if lost else "left", held)
        if entry is not None:
            self._note(entry)

    def _note(self, entry: Presence) -> None:
        self._entries[entry.host] = entry
        self._gather()

    def _gather(self) -> None:
        if not self._stopped and (self._gathering is None or not self._gathering.active()):
            self._gathering = self._clock.callLater(GATHER_SECONDS, self._write, beat=False)

    def _beat_later(self) -> None:
        if not self._stopped:
            self._beating = self._clock.callLater(BEAT_SECONDS, self._beat)

    def _beat(self) -> None:
        self._write(beat=True).addBoth(lambda _: self._beat_later())

    def _write(self, *, beat: bool) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._heartbeat(beat=beat)).addErrback(self._failed)

    def _failed(self, failure: Any) -> None:
        # Those who commit tell that the store is away; anything else is a fault of ours, and told.
        if not failure.check(StoreUnavailable):
            self.log.failure("a beat failed", failure)

    async def _heartbeat(self, *, beat: bool) -> None:
        if self._writing:
            # The next beat takes along what came meanwhile.
            return
        self._writing = True
        line = self._line()
        self.known.can_judge = line.able
        entries = {host: self._entries[host] for host in list(self._entries)[:ENTRIES_MAX]}
        try:
            roll: HeartbeatResult = await self._beside(self._roster.beat, line, tuple(entries.values()))
        finally:
            self._writing = False
        if self._stopped:
            return
        for host, entry in entries.items():
            if self._entries.get(host) is entry:
                del self._entries[host]
        if self._entries:
            self._gather()
        news = tuple(one for one in roll.presences if self._is_news(one))
        turn = self.known.update(msgspec.structs.replace(roll, presences=news), beat=beat)
        for one in news:
            if one.state != "here" and self._is_here(one.host):
                # It was there for a moment, and that server has noted it later than we did.
                self.came(one.host)
        if self._joined:
            self._turned(turn)

    def _is_news(self, entry: Presence) -> bool:
        """Whether another server's entry is newer than what we are about to write of that host."""
        waiting = self._entries.get(entry.host)
        if waiting is not None and waiting.state == "here":
            return False
        self._entries.pop(entry.host, None)
        return True
