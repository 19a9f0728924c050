"""Whether all hold the same: this server, the store, the other servers over it, and the hosts (opengnsp.md, "Digests").

The tables are right, because every server reads them when it starts. A server that finds a difference reads them,
takes them if it held something else, and tells administrators; where another server must have been wrong it leaves a
word in the store, and every server that finds that word looks for itself. Hosts say so when what they hold is not
what they were told the digest of; before they are answered this server makes sure of itself.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from compass.model.catalogue.digest import IncrementalDigest, to_hex
from compass.model.interfaces import Clock, Store, StoredDigest, StoreUnavailable, Timer
from compass.model.requests import Incident
from compass.model.rules.draft import Principal
from compass.server.commit.committer import Committer
from compass.server.commit.store_access import RunInDatabase

COMPARE_EVERY_SECONDS = 10.0
"""How often the store's word is compared with what is held: one indexed read of one row."""
RECOUNT_EVERY_SECONDS = 600.0
"""How often everything in memory is counted anew: 2 ms for each thousand rows, in pieces."""
EXAMINE_EVERY_SECONDS = 10.0
"""The tables are read on behalf of hosts that hold something else at most so often."""
SETTLE_SECONDS = 2.0
"""How long a host's watch waits for a comparison that is under way."""
QUIET_SECONDS = 60.0
"""After which no host has differed any more the incident is over."""


class AntiEntropy:
    """Compares on timers and when told of a difference; heals and alerts."""

    log = Logger()

    def __init__(self, name: str, clock: Clock, commits: Committer, storage: Store, in_database: RunInDatabase) -> None:
        self._name = name
        self._clock = clock
        self._commits = commits
        self._storage = storage
        self._in_database = in_database
        self._asker = Principal("server", name, "")
        self._compared_at = 0
        self._looking = False
        """Whether the store was asked for its digest and has not answered."""
        self._examined_at = -EXAMINE_EVERY_SECONDS
        self._comparing = False
        self._waiting: list[Deferred[None]] = []
        self._timers: dict[str, Timer] = {}

    def start(self, said: str) -> None:
        """Begin with what the store said at the revision that was just loaded."""
        held = self._commits.digests.at(self._commits.catalogue.revision)
        self._compared_at = self._commits.catalogue.revision
        self._later("compare", COMPARE_EVERY_SECONDS if said in ("", held) else 0.0, self._compare_now)
        self._later("recount", RECOUNT_EVERY_SECONDS, self._recount)

    def stop(self) -> None:
        """Compare no more."""
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()

    def differs(self, host: str, revision: int) -> None:
        """A host holds something else than it was told; it comes for a snapshot."""
        self.log.warn(
            "host {host} held other rows at revision {revision} than the digest it was sent says; it takes them anew",
            host=host,
            revision=revision,
        )
        text = f"host {host} held other rows than it was told at revision {revision}; it took a snapshot. The log of "
        self._open(self._hosts_id, f"{text}{self._name} names each such host")
        self._later("quiet", QUIET_SECONDS, self._close, self._hosts_id)
        if not self._comparing and self._clock.seconds() - self._examined_at >= EXAMINE_EVERY_SECONDS:
            self._examined_at = self._clock.seconds()
            self._run(self._compare())

    def settled(self) -> Deferred[None]:
        """Fires when no comparison is under way: what is told then is what the tables have. Soon in any case: a store
        that does not answer must not keep hosts from being answered."""
        settled: Deferred[None] = Deferred(lambda waiting: waiting.callback(None))
        if self._comparing:
            self._waiting.append(settled)
            return settled.addTimeout(SETTLE_SECONDS, cast(Any, self._clock))
        settled.callback(None)
        return settled

    # On timers.

    def _compare_now(self) -> None:
        self._later("compare", COMPARE_EVERY_SECONDS, self._compare_now)
        if self._looking:
            # The store has not answered the look before; asking once more makes it no quicker (P10).
            return
        self._looking = True
        self._run(self._look())

    async def _look(self) -> None:
        commits = self._commits
        try:
            told: StoredDigest = await self._in_database(self._storage.digest)
        finally:
            self._looking = False
        if told.revision > commits.catalogue.revision:
            await commits.catch_up()
        held = commits.digests.at(told.revision)
        if told.doubted > self._compared_at or (told.digest and held not in (None, told.digest)):
            await self._compare()
        elif not told.digest and held is not None:
            # Whoever committed it knows of no digests.
            await self._in_database(self._storage.correct, told.revision, held, False)
        elif held is not None:
            self._close(self._id)

    def _recount(self) -> None:
        """Count everything that is held: the digest must not agree only because it was moved on."""
        catalogue = self._commits.catalogue
        expected = self._commits.digests.at(catalogue.revision)
        count = IncrementalDigest(catalogue.all_rows())

        def advance() -> None:
            if not count.advance():
                self._later("recount", 0.0, advance)
                return
            self._later("recount", RECOUNT_EVERY_SECONDS, self._recount)
            if to_hex(count.digest) != expected:
                self._run(self._compare())

        advance()

    async def _compare(self) -> None:
        """Read the tables, and say what was wrong."""
        if self._comparing:
            await self.settled()
            return
        self._comparing = True
        try:
            found = await self._commits.compare()
        finally:
            self._comparing = False
            waiting, self._waiting = self._waiting, []
            for settled in waiting:
                if not settled.called:
                    settled.callback(None)
        if found is None:
            return
        self._compared_at = found.revision
        if not found.held:
            text = f"{self._name} held other rows than the store at revision {found.revision}; it took the store's"
        elif not found.agreed:
            text = f"the store's digest was not that of its rows at revision {found.revision}: another server, or "
            text += f"somebody with another program, wrote them; {self._name} set it right"
        else:
            return
        self.log.error("{text}", text=text)
        self._open(self._id, text)

    # Incidents.

    @property
    def _id(self) -> str:
        return f"failure digest of {self._name}"

    @property
    def _hosts_id(self) -> str:
        return f"failure digest of hosts of {self._name}"

    def _open(self, id: str, text: str) -> None:
        if id not in self._commits.catalogue.alerts:
            self._commits.submit(Incident(id, text), self._asker)

    def _close(self, id: str) -> None:
        if id in self._commits.catalogue.alerts:
            self._commits.submit(Incident(id), self._asker)

    # Machinery.

    def _later(self, name: str, seconds: float, call: Any, *args: Any) -> None:
        timer = self._timers.get(name)
        if timer is not None and timer.active():
            timer.cancel()
        self._timers[name] = self._clock.callLater(seconds, call, *args)

    def _run(self, work: Any) -> None:
        Deferred.fromCoroutine(work).addErrback(self._failed)

    def _failed(self, failure: Any) -> None:
        if failure.check(StoreUnavailable) is None:
            self.log.failure("comparing failed", failure)
