"""Interfaces of clock, timer, stream and store, as structural types.

The shells run on a reactor and on virtual time. A store runs on the one database thread; its arguments and results are
rows and changes, never SQL objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import msgspec

from compass.model.rows import AdministrationEntry, Change, LogEntry, Row, SecurityEntry


class Timer(Protocol):
    """Scheduled call (Twisted's IDelayedCall)."""

    def cancel(self) -> None:
        """Cancel the call."""

    def active(self) -> bool:
        """Return whether the call is still pending."""

    def getTime(self) -> float:  # noqa: N802
        """Return the time of the call, in the clock's seconds."""


class Clock(Protocol):
    """Monotonic clock with scheduled calls (Twisted's IReactorTime)."""

    def seconds(self) -> float:
        """Return the seconds of a clock that never jumps."""

    def callLater(self, delay: float, callable: Callable[..., object], *args: Any, **kw: Any) -> Timer:
        """Schedule a call after `delay` seconds. Returns its timer."""


class Randomness(Protocol):
    """Source of random numbers (`random.Random`)."""

    def random(self) -> float:
        """Return a number in [0, 1)."""


class Environment(Randomness, Protocol):
    """Time and randomness of a server, which rules get as values."""

    @property
    def clock(self) -> Clock:
        """Clock of all timers."""

    def now(self) -> float:
        """Return UNIX time in seconds."""

    def token(self) -> str:
        """Return 256 fresh random bits as text."""


class Stream(Protocol):
    """Transport of a connection (Twisted's ITCPTransport and ITransport)."""

    def write(self, data: bytes) -> None:
        """Queue bytes."""

    def loseConnection(self) -> None:
        """Close after everything is written."""

    def abortConnection(self) -> None:
        """Close now."""

    def getPeer(self) -> object:
        """Return the address of the peer."""

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Set the producer that pauses when too much is queued."""

    def unregisterProducer(self) -> None:
        """Remove the producer. A TLS transport waits for this before it closes."""


class Conflict(Exception):
    """Refusal of a batch because another server committed first: nothing of it is in the store. Read the other server's
    changes and decide again."""


class StoreUnavailable(Exception):
    """Error of a store that cannot be reached or cannot write: the batch is not in it, or its outcome is unknown."""


class LogTrimmed(StoreUnavailable):
    """Error of a read whose changes are no longer in the update log: call `load` instead."""


class BatchRefused(StoreUnavailable):
    """Refusal of a batch because the database rejects its values: a defect of the rules. Nothing of it is in the store,
    and every retry would fail."""


class Proposal(msgspec.Struct, frozen=True):
    """Outcome of a batch at one revision: the changes, and the entries of the two other logs."""

    changes: Sequence[Change]
    security: Sequence[SecurityEntry] = ()
    administration: Sequence[AdministrationEntry] = ()
    digest: str = ""
    """Digest of all rows after the changes; empty: unknown."""


Redecide = Callable[[list[Change]], Proposal]
"""Function that decides a batch again after changes of other servers. It runs on the database thread, inside the
transaction that excludes all other writers: it must be pure and fast."""


class StoreState(msgspec.Struct, frozen=True):
    """State from which a server starts, read in one transaction."""

    store: str
    """Id of the store: revisions of different stores cannot be compared."""
    revision: int
    floor: int
    """The oldest revision still in the update log; `revision + 1` when it is empty."""
    rows: list[Row]
    topics: dict[str, int]
    digest: str = ""
    """Digest of all rows, from the server that committed this revision; empty: none."""


class StoredDigest(msgspec.Struct, frozen=True):
    """Digest that the store has recorded (opengnsp.md, "Digests")."""

    revision: int
    digest: str
    """Digest as in `StoreState`, at `revision`."""
    doubted: int
    """Last revision at which a server found a digest that did not match the rows; 0: never."""


class Store(Protocol):
    """Store: its tables and its three logs."""

    engine: str
    """`sqlite` or `postgresql`, with its version."""

    def load(self) -> StoreState:
        """Read everything at one revision. Raises StoreUnavailable."""

    def commit(
        self,
        expected: int,
        changes: Sequence[Change],
        security: Sequence[SecurityEntry],
        administration: Sequence[AdministrationEntry],
        again: Redecide | None = None,
        digest: str = "",
    ) -> None:
        """Write tables and logs in one transaction, which is durable when this returns (P1).

        The changes have the revisions from `expected + 1`. If the store is no longer at `expected` (not checked if
        there are no changes), `again` decides again after the changes of other servers, in the same transaction, so a
        batch loses to others at most once. `digest`: of all rows after the changes. Raises Conflict if there are too
        many such changes or there is no `again`; raises StoreUnavailable, BatchRefused.
        """

    def changes_after(self, revision: int, limit: int) -> list[Change]:
        """Return changes of the update log after `revision`, in order, without a gap. Raises StoreUnavailable,
        LogTrimmed.

        After a commit that raised StoreUnavailable, the result shows conclusively whether the changes were committed.
        """

    def read_log(
        self, log: Literal["updates", "security", "administration"], after: int, limit: int, last: int
    ) -> tuple[list[LogEntry], int]:
        """Return entries after number `after` in order, and the log's floor; with `last` > 0 the last `last` entries
        instead."""

    def digest(self) -> StoredDigest:
        """Return the last committed revision, and the digest that was committed with it."""

    def correct(self, revision: int, digest: str, doubt: bool) -> None:
        """Record the correct digest of `revision` if the store is still there; `doubt`: also record that a wrong digest
        was found."""

    def trim(self, keep_updates: int, keep_others: int) -> None:
        """Remove the oldest log entries beyond the numbers to keep. No reader can resume from a removed entry."""
