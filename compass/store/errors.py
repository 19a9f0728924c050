"""Store errors that need an operator. They subclass StoreUnavailable, so callers that only retry still work."""

from __future__ import annotations

from compass.model.interfaces import StoreUnavailable


class StoreUnusable(StoreUnavailable):
    """Error of a database that cannot be opened as a store until an operator acts; the text says how."""


class StoreTooNew(StoreUnusable):
    """The database was written by a newer program than this one."""


class StoreInUse(StoreUnusable):
    """Error of an operation that needs a store which no server uses."""
