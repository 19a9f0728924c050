"""This server's copy of the log: the catalogue as committed, its digests and counts, and what follows each change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec
from twisted.logger import Logger

from compass.model.catalogue.catalogue import Catalogue, catalogue_of
from compass.model.catalogue.digest import DigestDelta, digest_of_rows, steps_of, to_hex
from compass.model.interfaces import LogTrimmed, Store, StoreState
from compass.model.rows import Change
from compass.model.rules.draft import Decision
from compass.server.commit.digest_index import DigestIndex
from compass.server.commit.row_counts import RowCounts
from compass.server.commit.store_access import StoreAccess

CATCH_UP_MAX = 10_000
"""Changes of other servers that are read at once."""
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
    """Whether this server held what the tables have."""

    @property
    def agreed(self) -> bool:
        """Whether all three were the same."""
        return self.held and self.recorded in ("", self.digest)


class Replica:
    """The catalogue at the last revision that this server has seen. Only the commit loop moves it on."""

    log = Logger()

    def __init__(self, catalogue: Catalogue, access: StoreAccess, changes: Changes) -> None:
        self.catalogue = catalogue
        self.digests = DigestIndex()
        self.counts = RowCounts()
        self._access = access
        self._changes = changes
        self._restart(catalogue)

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
                missed: list[Change] = await self._access.read(read, since, CATCH_UP_MAX)
            except LogTrimmed:
                await self._reload()
                return found
            steps = iter(steps_of(self.catalogue, missed))
            for change in missed:
                self._apply(change, steps, own=ours.get(change.revision) == change)
            found += missed
            if len(missed) < CATCH_UP_MAX:
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
        """Read the tables, and take over their rows if this server holds others: the tables are right, since every
        server starts from them. Returns None if the tables change too fast. Raises StoreUnavailable."""
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
        if digest != state.digest:
            await self._access.call(self._access.store.correct, state.revision, digest, bool(state.digest))
        found = Comparison(state.revision, digest, state.digest, held=tables == self.catalogue)
        if not found.held:
            self._replace(tables)
        elif self.digests.at(state.revision) != digest:
            self.digests.restart(tables)
        return found

    async def _reload(self) -> None:
        """Read the tables: the log no longer has the changes that this server missed."""
        state: StoreState = await self._access.read(self._access.store.load)
        self.log.warn("fell behind the log; reloaded at revision {revision}", revision=state.revision)
        self._replace(catalogue_of(state.rows, state.topics, state.revision))

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
        self.counts.move(step)
        self.catalogue = made if made is not None else self.catalogue.apply(change)
        self._changes.committed(change, self.catalogue, own=own)


def _load(store: Store) -> tuple[StoreState, Catalogue, str]:
    """Return the tables, their catalogue and its digest. Runs on the database thread."""
    state = store.load()
    return state, catalogue_of(state.rows, state.topics, state.revision), to_hex(digest_of_rows(state.rows))
