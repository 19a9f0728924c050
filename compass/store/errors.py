"""Store errors that need an operator. They subclass StoreUnavailable, so callers that only retry still work."""

from __future__ import annotations

from compass.model.interfaces import StoreUnavailable


class StoreUnusable(StoreUnavailable):
    """Error of a database that cannot be opened as a store until an operator acts; the text describes how."""


class StoreTooNew(StoreUnusable):
    """Error of a database that a newer program has written, with a schema that this program cannot use."""


class StoreInUse(StoreUnusable):
    """Error of an operation that needs a store without a running server, or a place without a store."""


class RowDamaged(StoreUnusable):
    """Error of a row that is not what a program has written: its text does not decode."""


class StoreWentBack(StoreUnusable):
    """Error of a store that is older than what is known of it: it was restored, or lost its last changes."""

    def __init__(self, name: str, revision: int, known: int, evidence: str) -> None:
        super().__init__(
            f"{name} is at revision {revision}, but it has been at revision {known} ({evidence}): an older state was "
            "restored, or the last changes were lost. It is not served, because hosts hold later revisions. Put the "
            "newer state back; or, to give up the changes after this revision, run 'opengnsadmin store new-id' while "
            "no server runs, and start the servers again"
        )
        self.known = known
