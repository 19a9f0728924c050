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
        """Cancel the call."""

    def active(self) -> bool:
        """Return whether the call is still pending."""

    def getTime(self) -> float:  # noqa: N802
        """Return the time of the call, in the clock's seconds."""


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
        """Set the producer that pauses when too much is queued."""

    def unregisterProducer(self) -> None:
        """Remove the producer. A TLS transport waits for this before it closes."""


class Conflict(Exception):
    """Refusal of a batch because another server committed first: nothing of it is in the store. Read the other server's
    changes and decide again."""


class StoreUnavailable(Exception):
    """The store cannot be reached or cannot write; nothing of this batch is in it, or nothing is known of it."""


class LogTrimmed(StoreUnavailable):
    """The changes asked for are no longer in the update log: only `load` helps."""


class BatchRefused(StoreUnavailable):
    """Refusal of a batch because the database rejects its values: a defect of the rules. Nothing of it is in the store,
    and each retry would fail."""


class Proposal(msgspec.Struct, frozen=True):
    """Outcome of a batch at one revision: the changes, and the entries of the two other logs."""

    changes: Sequence[Change]
    security: Sequence[SecurityEntry] = ()
    administration: Sequence[AdministrationEntry] = ()
    digest: str = ""
    """Digest of all rows after the changes; empty: unknown."""


Redecide = Callable[[list[Change]], Proposal]
"""Function that decides a batch again after changes that came in between. It runs on the database thread, inside the
transaction that excludes all other writers: it must be pure and fast."""


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
    """Digest of all rows as the server that committed this revision computed it; empty: none."""


class StoredDigest(msgspec.Struct, frozen=True):
    """Digest that the store has recorded for itself (opengnsp.md, "Digests")."""

    revision: int
    digest: str
    """Digest as in `StoreState`, at `revision`."""
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
        checked when there are no changes), `again` decides again after what other servers have committed, in the same
        transaction, so a batch is never passed over twice. Raises Conflict when that is too much or there is no
        `again`; raises StoreUnavailable, BatchRefused. `digest`: of all rows as they are then.
        """

    def changes_after(self, revision: int, limit: int) -> list[Change]:
        """Return changes of the update log after `revision`, in order, without a gap. Raises StoreUnavailable,
        LogTrimmed.

        After a commit that raised StoreUnavailable the result is final: it shows whether the changes are there.
        """

    def read_log(
        self, log: Literal["updates", "security", "administration"], after: int, limit: int, last: int
    ) -> tuple[list[LogEntry], int]:
        """Return entries after number `after` in order, and the log's floor; with `last` > 0 the last `last` entries
        instead."""

    def digest(self) -> StoredDigest:
        """Return the last committed revision, and the digest that was committed with it."""

    def correct(self, revision: int, digest: str, doubt: bool) -> None:
        """Say the right digest of `revision`, if the store still stands there; with `doubt`, that another was there."""

    def trim(self, keep_updates: int, keep_others: int) -> None:
        """Remove the oldest log entries beyond the numbers to keep. A reader cannot resume from a removed entry."""
