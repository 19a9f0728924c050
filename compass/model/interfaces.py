"""Interfaces of clock, timer, stream and store, as structural types.

The shells run on a reactor and on virtual time alike. A store runs on the one database thread; rows and changes cross
its border, never an SQL object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import msgspec

from compass.model.replies import AdministrationEntry, LogEntry, SecurityEntry
from compass.model.rows import Change, Row


class Timer(Protocol):
    """A call to come (Twisted's IDelayedCall)."""

    def cancel(self) -> None:
        """It will not come."""

    def active(self) -> bool:
        """Whether it is still to come."""

    def getTime(self) -> float:  # noqa: N802
        """When it comes, in the clock's seconds."""


class Clock(Protocol):
    """Monotonic seconds and calls to come (Twisted's IReactorTime)."""

    def seconds(self) -> float:
        """Seconds on a clock that never jumps."""

    def callLater(self, delay: float, callable: Callable[..., object], *args: Any, **kw: Any) -> Timer:
        """Call after `delay` seconds."""


class Stream(Protocol):
    """A connection's transport (Twisted's ITCPTransport and ITransport)."""

    def write(self, data: bytes) -> None:
        """Queue bytes."""

    def loseConnection(self) -> None:
        """Close once everything is written."""

    def abortConnection(self) -> None:
        """Close now."""

    def getPeer(self) -> object:
        """The address of the other side."""

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Who is told to pause when too much is queued."""

    def unregisterProducer(self) -> None:
        """Nobody any more. A TLS stream is not closed before."""


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
