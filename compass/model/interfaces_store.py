"""What the server asks of a store, and how a store says no. The store implements it; the server is handed one.

All of it runs on the one database thread; what crosses are rows and changes, never an SQL object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import msgspec

from compass.model.replies import AdministrationEntry, LogEntry, SecurityEntry
from compass.model.rows import Change, Row


class Conflict(Exception):
    """Another server committed first: nothing of this batch is in the store. Read what it wrote and decide again."""


class StoreUnavailable(Exception):
    """The store cannot be reached or cannot write; nothing of this batch is in it, or nothing is known of it."""


class LogTrimmed(StoreUnavailable):
    """The changes asked for are no longer in the update log: only `load` helps."""


class BatchRefused(StoreUnavailable):
    """The database refuses these very values, so the same batch can never be committed: a defect of the rules.

    Nothing of the batch is in the store. Whoever retries it retries for ever.
    """


class Proposal(msgspec.Struct, frozen=True):
    """What a batch comes to at one revision: the changes, and the entries of the two other logs."""

    changes: Sequence[Change]
    security: Sequence[SecurityEntry] = ()
    administration: Sequence[AdministrationEntry] = ()
    digest: str = ""
    """Of all rows after the changes; empty: it is not known."""


Redecide = Callable[[list[Change]], Proposal]
"""Decides a batch anew after changes that came in between. It runs on the database thread, inside the transaction that
holds all other writers up: it must be pure, and quick."""


class StoreState(msgspec.Struct, frozen=True):
    """All that a server starts from, read in one transaction."""

    store: str
    """The store's own id: revisions of different stores have nothing to do with each other."""
    revision: int
    floor: int
    """The oldest revision still in the update log; `revision + 1` when it is empty."""
    rows: list[Row]
    topics: dict[str, int]
    digest: str = ""
    """What whoever committed this revision took for the digest of all rows; empty: it said none."""


class StoredDigest(msgspec.Struct, frozen=True):
    """What the store says of its own digest (opengnsp.md, "Digests")."""

    revision: int
    digest: str
    """As in `Loaded`, at `revision`."""
    doubted: int
    """The last revision at which a server found that the digest was not that of the rows; 0: never."""


class Store(Protocol):
    """A store with its tables and logs."""

    engine: str
    """`sqlite` or `postgresql`, with its version."""

    def load(self) -> StoreState:
        """Everything, at one revision. Raises StoreUnavailable."""

    def commit(
        self,
        expected: int,
        changes: Sequence[Change],
        security: Sequence[SecurityEntry],
        administration: Sequence[AdministrationEntry],
        again: Redecide | None = None,
        digest: str = "",
    ) -> None:
        """Tables and logs in one transaction, durable when it returns (P1).

        The changes have the revisions `expected + 1` and on. When the store does not stand at `expected` any more (not
        checked when there are no changes), `again` decides anew after what other servers have committed, in the same
        transaction, so a batch is never passed over twice. Raises Conflict when that is too much or there is no
        `again`; raises StoreUnavailable, BatchRefused. `digest`: of all rows as they are then.
        """

    def changes_after(self, revision: int, limit: int) -> list[Change]:
        """Changes of the update log after `revision`, in order, without a gap. Raises StoreUnavailable, LogTrimmed.

        After a commit that raised StoreUnavailable it tells for good whether the changes are there.
        """

    def read_log(
        self, log: Literal["updates", "security", "administration"], after: int, limit: int, last: int
    ) -> tuple[list[LogEntry], int]:
        """Entries after number `after` in order, and the log's floor; with `last` > 0 the last so many instead."""

    def digest(self) -> StoredDigest:
        """What was committed last, and the digest that was committed with it."""

    def correct(self, revision: int, digest: str, doubt: bool) -> None:
        """Say the right digest of `revision`, if the store still stands there; with `doubt`, that another was there."""

    def trim(self, keep_updates: int, keep_others: int) -> None:
        """Let the oldest log entries go, beyond so many. What was trimmed cannot be resumed from."""
