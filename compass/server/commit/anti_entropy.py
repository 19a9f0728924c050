"""Comparisons of this server, the store, the other servers over it, and the hosts (opengnsp.md, "Digests").

A server that finds a difference reads the tables. If they have the digest that their last commit recorded, they are
right, and the server takes over their rows. Otherwise the update log decides: it rebuilds damaged rows, or confirms the
rows against the digest; if it does not say enough, nothing is changed until an administrator decides. Each difference
is an incident. Where another server must have been wrong the store's digest is marked as doubted, and every server that
reads this mark compares, too. A host reports when its rows do not have the
digest that it was sent; before its next watch is answered this server compares itself with the tables.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from compass.model.catalogue.digest import IncrementalDigest, to_hex
from compass.model.interfaces import Clock, StoredDigest, StoreUnavailable
from compass.model.requests import Incident
from compass.model.rules.draft import Principal
from compass.server.commit.committer import Committer
from compass.server.commit.replica import Comparison
from compass.server.commit.store_access import StoreAccess
from compass.system.timers import Timers

COMPARE_EVERY_SECONDS = 10.0
"""Between comparisons of the store's digest with this server's: one indexed read of one row."""
RECOUNT_EVERY_SECONDS = 600.0
"""Between recounts of everything in memory: 2 ms for each thousand rows, in pieces."""
EXAMINE_EVERY_SECONDS = 10.0
"""Least time between two reads of the tables on behalf of hosts that hold other rows."""
SETTLE_SECONDS = 2.0
"""Longest wait of a host's watch for a comparison that is under way."""
QUIET_SECONDS = 60.0
"""Time without a host that differs after which the incident is over."""


class AntiEntropy:
    """Comparisons on timers and when a host differs; heals and raises incidents."""

    log = Logger()

    def __init__(self, name: str, clock: Clock, committer: Committer, access: StoreAccess) -> None:
        self._name = name
        self._clock = clock
        self._committer = committer
        self._replica = committer.replica
        self._access = access
        self._principal = Principal("server", name, "")
        self._compared_at = 0
        self._is_reading = False
        """True if the store was asked for its digest and has not answered."""
        self._examined_at = -EXAMINE_EVERY_SECONDS
        self._is_comparing = False
        self._waiting: list[Deferred[None]] = []
        self._timers = Timers(clock)

    def start(self) -> None:
        """Start the timers; rows that do not have the digest that the store recorded are compared at once."""
        self._compared_at = self._replica.catalogue.revision
        self._timers.start("compare", COMPARE_EVERY_SECONDS, self._compare_digests)
        if self._replica.is_doubtful:
            self._run(self._compare())
        self._timers.start("recount", RECOUNT_EVERY_SECONDS, self._recount)

    def stop(self) -> None:
        """Stop the timers."""
        self._timers.cancel_all()

    def differs(self, host: str, revision: int) -> None:
        """Process a host's report that its rows at a revision do not have the digest that it was sent. The host asks
        for a snapshot by itself."""
        self.log.warn(
            "host {host} held other rows at revision {revision} than the digest it was sent says; it takes a snapshot",
            host=host,
            revision=revision,
        )
        text = f"host {host} held other rows at revision {revision} than it was sent; it took a snapshot. The log of "
        self._open(self._hosts_id, f"{text}{self._name} names each such host")
        self._timers.start("quiet", QUIET_SECONDS, self._close, self._hosts_id)
        if not self._is_comparing and self._clock.seconds() - self._examined_at >= EXAMINE_EVERY_SECONDS:
            self._examined_at = self._clock.seconds()
            self._run(self._compare())

    def settled(self) -> Deferred[None]:
        """Return when no comparison is under way, so that what is sent then is what the tables have; in any case within
        SETTLE_SECONDS: a store that does not answer must not keep hosts from being answered."""
        settled: Deferred[None] = Deferred(lambda waiting: waiting.callback(None))
        if self._is_comparing:
            self._waiting.append(settled)
            return settled.addTimeout(SETTLE_SECONDS, cast(Any, self._clock))
        settled.callback(None)
        return settled

    # On timers.

    def _compare_digests(self) -> None:
        self._timers.start("compare", COMPARE_EVERY_SECONDS, self._compare_digests)
        if self._is_reading:
            # A second question would not make the store answer the first one sooner (P10).
            return
        self._is_reading = True
        self._run(self._read_digest())

    async def _read_digest(self) -> None:
        replica = self._replica
        try:
            stored: StoredDigest = await self._access.run(self._access.store.digest)
        finally:
            self._is_reading = False
        if stored.revision > replica.catalogue.revision:
            await self._committer.catch_up()
        held = replica.digests.at(stored.revision)
        if stored.doubted > self._compared_at or (stored.digest and held not in (None, stored.digest)):
            await self._compare()
        elif not stored.digest and held is not None:
            # A server that knows of no digests committed this revision.
            await self._access.run(self._access.store.correct, stored.revision, held, False)
        elif held is not None and not replica.is_doubtful:
            self._close(self._id)

    def _recount(self) -> None:
        """Count all rows in memory: the digest must not agree only because each change moved it on."""
        catalogue = self._replica.catalogue
        expected = self._replica.digests.at(catalogue.revision)
        count = IncrementalDigest(catalogue.all_rows())

        def advance() -> None:
            if not count.advance():
                self._timers.start("recount", 0.0, advance)
                return
            self._timers.start("recount", RECOUNT_EVERY_SECONDS, self._recount)
            if to_hex(count.digest) != expected:
                self._run(self._compare())

        advance()

    async def _compare(self) -> None:
        """Compare with the tables, and raise an incident about a difference."""
        if self._is_comparing:
            await self.settled()
            return
        self._is_comparing = True
        try:
            found = await self._committer.compare()
        finally:
            self._is_comparing = False
            waiting, self._waiting = self._waiting, []
            for settled in waiting:
                if not settled.called:
                    settled.callback(None)
        if found is None:
            return
        self._compared_at = found.revision
        text = self._text_of(found)
        if not text:
            return
        self.log.error("{text}", text=text)
        self._open(self._id, text)

    def _text_of(self, found: Comparison) -> str:
        """Return the text of the incident about a difference; empty: there is none."""
        at = f"at revision {found.revision}"
        if found.rebuilt is not None and found.rebuilt.verdict == "rebuilt":
            return (
                f"{found.rebuilt.rows} rows of the store were damaged or written by another program {at}; "
                f"{self._name} rebuilt them from the update log"
            )
        if found.rebuilt is not None and found.rebuilt.verdict == "unexplained":
            return (
                f"the rows of the store do not have the digest of their last commit {at}, and the update log does not "
                "say which rows are wrong; nothing was changed. 'opengnsadmin store check' lists what is known; put a "
                "backup back with 'restore', or accept the rows with 'store repair --accept'"
            )
        if not found.held:
            return f"{self._name} held other rows than the store {at}; it took the store's"
        if found.rebuilt is not None:
            return (
                f"the store's digest was not that of its rows {at}, which the update log confirms: another server "
                f"recorded it; {self._name} corrected the digest"
            )
        return ""

    # Incidents.

    @property
    def _id(self) -> str:
        return f"failure digest of {self._name}"

    @property
    def _hosts_id(self) -> str:
        return f"failure digest of hosts of {self._name}"

    def _open(self, id: str, text: str) -> None:
        if id not in self._replica.catalogue.alerts:
            self._committer.submit(Incident(id, text), self._principal)

    def _close(self, id: str) -> None:
        if id in self._replica.catalogue.alerts:
            self._committer.submit(Incident(id), self._principal)

    def _run(self, work: Any) -> None:
        Deferred.fromCoroutine(work).addErrback(self._failed)

    def _failed(self, failure: Any) -> None:
        if failure.check(StoreUnavailable) is None:
            self.log.failure("comparing failed", failure)
