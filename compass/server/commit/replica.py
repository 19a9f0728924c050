"""This server's copy of the log: the catalogue as committed, its digests and counts, and what follows each change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec
from twisted.logger import Logger

from compass.model.catalogue.catalogue import Catalogue, catalogue_of
from compass.model.catalogue.digest import DigestDelta, digest_of_rows, steps_of, to_hex
from compass.model.catalogue.octets import change_octets
from compass.model.interfaces import LogTrimmed, Rebuilt, Store, StoreState
from compass.model.rows import Change
from compass.model.rules.draft import Decision
from compass.server.commit.digest_index import DigestIndex
from compass.server.commit.row_counts import RowCounts
from compass.server.commit.store_access import StoreAccess

CATCH_UP_MAX = 2_000
"""Changes of other servers that are read, and applied in one turn of the reactor; more follow in further pages."""
CATCH_UP_OCTETS_MAX = 1024 * 1024
"""Octets of these changes: those of listeners with much metadata have 10 kB each."""
COMPARE_ATTEMPTS = 5
"""Times that the tables are read for one comparison, when other servers commit meanwhile."""


class CommitSubscriber(Protocol):
    """A component that follows the log change by change."""

    def committed(self, change: Change, catalogue: Catalogue, *, own: bool) -> None:
        """Follow a change; `catalogue` is the one after it, `own`: this server committed it."""


class ReloadSubscriber(Protocol):
    """A component that restarts when the catalogue was read again from the tables."""

    def reloaded(self, catalogue: Catalogue) -> None:
        """Restart at a catalogue that the log did not lead to: no single change is known."""


class Changes:
    """The subscribers of the log; set before the first change."""

    def __init__(self) -> None:
        self.operations = Counter[str]()
        """Changes by operation, whichever server committed them."""
        self.on_commit: tuple[CommitSubscriber, ...] = ()
        self.on_reload: tuple[ReloadSubscriber, ...] = ()

    def committed(self, change: Change, catalogue: Catalogue, *, own: bool) -> None:
        """Let the subscribers follow a change, one after another."""
        self.operations[change.operation] += 1
        for subscriber in self.on_commit:
            subscriber.committed(change, catalogue, own=own)

    def reloaded(self, catalogue: Catalogue) -> None:
        """Let the subscribers restart at a catalogue, one after another."""
        for subscriber in self.on_reload:
            subscriber.reloaded(catalogue)


class Comparison(msgspec.Struct, frozen=True):
    """Comparison of the tables, the store's digest and this server at a revision."""

    revision: int
    digest: str
    """Digest of the rows in the tables."""
    recorded: str
    """Digest that the store had recorded; empty: none."""
    held: bool
    """True if this server held what the tables have."""
    rebuilt: Rebuilt | None = None
    """Result of the update log about tables without the recorded digest; None: they had it."""


class Replica:
    """The catalogue at the last revision that this server has seen. Only the commit loop moves it on."""

    log = Logger()

    def __init__(self, catalogue: Catalogue, access: StoreAccess, changes: Changes, recorded: str = "") -> None:
        """`recorded`: the digest that the store has recorded of the catalogue; empty: none."""
        self.catalogue = catalogue
        self.digests = DigestIndex()
        self.counts = RowCounts()
        self._access = access
        self._changes = changes
        self._restart(catalogue)
        self.is_doubtful = recorded not in ("", self.digests.at(catalogue.revision))
        """True: the rows that were loaded do not have the recorded digest, and a comparison decides."""
        if self.is_doubtful:
            self.digests.keep(recorded)

    async def catch_up(self, proposed: Sequence[Change] = ()) -> list[Change]:
        """Apply what the store has after our revision. Returns those changes.

        `proposed`: changes of this server of which it is not known whether they are in the store. Raises
        StoreUnavailable.
        """
        ours = {change.revision: change for change in proposed}
        found: list[Change] = []
        while True:
            read, since = self._access.store.changes_after, self.catalogue.revision
            try:
                missed: list[Change] = await self._access.read(read, since, CATCH_UP_MAX, CATCH_UP_OCTETS_MAX)
            except LogTrimmed as gap:
                await self._reload(gap)
                return found
            steps = iter(steps_of(self.catalogue, missed))
            for change in missed:
                self._apply(change, steps, own=ours.get(change.revision) == change)
            found += missed
            if len(missed) < CATCH_UP_MAX and sum(map(change_octets, missed)) < CATCH_UP_OCTETS_MAX:
                return found

    def publish(self, missed: Iterable[Change], decisions: Iterable[Decision], steps: Iterable[DigestDelta]) -> None:
        """Apply what a transaction has committed: changes of other servers before it, then ours. `steps`: what all of
        these do to the digests, in this order."""
        deltas = iter(steps)
        for change in missed:
            self._apply(change, deltas, own=False)
        for decision in decisions:
            # The catalogue after a decision's only change was made when it was decided.
            made = decision.catalogue if len(decision.changes) == 1 else None
            for change in decision.changes:
                self._apply(change, deltas, own=True, made=made)

    async def compare(self) -> Comparison | None:
        """Read the tables, and take over their rows if this server holds others.

        The tables are right if they have the recorded digest, or if the update log confirms them; rows that the log
        knows otherwise are rebuilt. Returns None if the tables change too fast. Raises StoreUnavailable.
        """
        for _ in range(COMPARE_ATTEMPTS):
            found = await self._compare_once()
            if found is not None:
                return found
        return None

    async def _compare_once(self) -> Comparison | None:
        await self.catch_up()
        state, tables, digest = await self._access.read(_load, self._access.store)
        if state.revision != self.catalogue.revision:
            return None
        rebuilt: Rebuilt | None = None
        if state.digest not in ("", digest):
            rebuilt = await self._access.call(self._access.store.rebuild, state.revision)
            if rebuilt.verdict == "moved":
                return None
            if rebuilt.verdict == "unexplained":
                # Neither the rows nor the digest can be trusted: an administrator decides.
                self.is_doubtful = True
                return Comparison(state.revision, digest, state.digest, tables == self.catalogue, rebuilt)
            if rebuilt.verdict == "rebuilt":
                return await self._take_rebuilt(rebuilt)
        if digest != state.digest:
            await self._access.call(self._access.store.correct, state.revision, digest, bool(state.digest))
        found = Comparison(state.revision, digest, state.digest, tables == self.catalogue, rebuilt)
        self._take(tables, digest)
        return found

    async def _take_rebuilt(self, rebuilt: Rebuilt) -> Comparison:
        state, tables, digest = await self._access.read(_load, self._access.store)
        found = Comparison(state.revision, digest, state.digest, tables == self.catalogue, rebuilt)
        if state.revision == self.catalogue.revision:
            self._take(tables, digest)
        else:
            # Others have committed meanwhile; what they did is in the tables, too.
            self._replace(tables)
        return found

    def _take(self, tables: Catalogue, digest: str) -> None:
        """Hold what the tables have."""
        self.is_doubtful = False
        if tables != self.catalogue:
            self._replace(tables)
        elif self.digests.at(tables.revision) != digest:
            self.digests.restart(tables)

    async def _reload(self, gap: LogTrimmed) -> None:
        """Read the tables: the log does not have the changes that this server missed."""
        state: StoreState = await self._access.read(self._access.store.load)
        text = "cannot follow the log: {why}; reloaded at revision {revision}"
        self.log.warn(text, why=str(gap), revision=state.revision)
        self._replace(catalogue_of(state.rows, state.topics, state.revision))
        if state.digest not in ("", self.digests.at(state.revision)):
            self.digests.keep(state.digest)

    def _replace(self, catalogue: Catalogue) -> None:
        self._restart(catalogue)
        self._changes.reloaded(catalogue)

    def _restart(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.digests.restart(catalogue)
        self.counts.restart(catalogue)

    def _apply(self, change: Change, steps: Iterator[DigestDelta], *, own: bool, made: Catalogue | None = None) -> None:
        step = next(steps)
        self.digests.move(step)
        self.counts.move(step, self.catalogue)
        self.catalogue = made if made is not None else self.catalogue.apply(change)
        self._changes.committed(change, self.catalogue, own=own)


def _load(store: Store) -> tuple[StoreState, Catalogue, str]:
    """Return the tables, their catalogue and its digest. Runs on the database thread."""
    state = store.load()
    return state, catalogue_of(state.rows, state.topics, state.revision), to_hex(digest_of_rows(state.rows))
