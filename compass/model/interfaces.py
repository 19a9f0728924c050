"""Interfaces of clock, timer, stream and store, as structural types.

The shells run on a reactor and on virtual time. A store runs on the one database thread; its arguments and results are
rows and changes, never SQL objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import msgspec

from compass.model.rows import AdministrationEntry, Change, Invitation, LogEntry, Row, SecurityEntry


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


class LogDamaged(LogTrimmed):
    """Error of a log with a damaged entry: readers cannot pass it, and read the tables instead."""

    def __init__(self, revision: int) -> None:
        super().__init__(
            f"the entry of revision {revision} in the update log is damaged; 'opengnsadmin store check' lists all such"
        )
        self.revision = revision


class StoredDigest(msgspec.Struct, frozen=True):
    """Digest that the store has recorded (opengnsp.md, "Digests")."""

    revision: int
    digest: str
    """Digest as in `StoreState`, at `revision`."""
    doubted: int
    """Last revision at which a server found a digest that did not match the rows; 0: never."""


class Rebuilt(msgspec.Struct, frozen=True, tag_field="type", tag="rebuilt"):
    """Result of a comparison of rows, which do not have the recorded digest, with the update log."""

    verdict: Literal["rebuilt", "confirmed", "unexplained", "moved"]
    """`rebuilt`: the rows have the recorded digest now. `confirmed`: the log has an entry of every row and says the
    same, so the digest is wrong. `unexplained`: the log does not say enough. `moved`: another revision."""
    rows: int = 0
    """Number of rows that the log says otherwise."""
    unknown: int = 0
    """Number of rows of which the log has no entry any longer."""
    unreadable: int = 0
    """Number of rows that could not be read before."""


LogName = Literal["updates", "security", "administration"]


class LogPart(msgspec.Struct, frozen=True):
    """Part of a log: entries that follow each other, and their size."""

    entries: int
    last: int
    """Number of the last entry; without entries the number that was asked for."""
    octets: int
    """Octets of the text of these entries."""
    floor: int
    """Number of the oldest entry of the log; 0: the log is empty."""


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

    def changes_after(self, revision: int, limit: int, octets_max: int | None = None) -> list[Change]:
        """Return changes of the update log after `revision`, in order, without a gap: at most `limit`, and up to the
        change that reaches `octets_max` octets (`octets.change_octets`). Raises StoreUnavailable, LogTrimmed.

        After a commit that raised StoreUnavailable, the result shows conclusively whether the changes were committed.
        """

    def read_log(self, log: LogName, after: int, limit: int, last: int, octets_max: int) -> tuple[list[LogEntry], int]:
        """Return entries after number `after` in order, and the log's floor; with `last` > 0 the last `last` entries
        instead. They end with the entry that reaches `octets_max` octets (`octets.entry_octets`)."""

    def invite(self, token: Invitation, entry: AdministrationEntry) -> None:
        """Store a join token with its entry of the administration log, in one transaction. Raises StoreUnavailable."""

    def invitation(self, id: str) -> Invitation | None:
        """Return a join token; None: there is none. Raises StoreUnavailable."""

    def join(self, id: str, entry: SecurityEntry) -> bool:
        """Use a join token at the time of the entry, in one transaction with the entry. Returns False, without a write,
        if it was used before or has expired. Raises StoreUnavailable."""

    def digest(self) -> StoredDigest:
        """Return the last committed revision, and the digest that was committed with it."""

    def correct(self, revision: int, digest: str, doubt: bool) -> None:
        """Record the correct digest of `revision` if the store is still there; `doubt`: also record that a wrong digest
        was found."""

    def rebuild(self, revision: int) -> Rebuilt:
        """Make the rows what the update log says, if they have the recorded digest then, and the store is still at
        `revision`; otherwise change nothing. Raises StoreUnavailable."""

    def mark_lost(self, revision: int) -> None:
        """Record that the store went back in time: it has been at `revision`. Nothing is written to it, and no server
        starts on it, until an administrator puts the newer state back or assigns a new id."""

    def trim(self, keep_updates: int, keep_others: int) -> None:
        """Remove the oldest log entries beyond the numbers to keep. No reader can resume from a removed entry."""

    def measure(self, log: LogName, after: int, limit: int) -> LogPart:
        """Return the size of the first `limit` entries of a log after number `after`."""

    def trim_to(self, log: LogName, last: int) -> None:
        """Remove the entries of a log up to number `last`."""
