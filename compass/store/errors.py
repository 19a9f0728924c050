"""Store errors that need an operator. They subclass StoreUnavailable, so callers that only retry still work."""

from __future__ import annotations

from compass.model.interfaces import StoreUnavailable


class StoreUnusable(StoreUnavailable):
    """Error of a database that cannot be opened as a store until an operator acts; the text describes how."""


class StoreTooNew(StoreUnusable):
    """Error of a database that a newer program has written, with a schema that this program cannot use."""


class StoreInUse(StoreUnusable):
    """Error of an operation that needs a store without a running server, or a place without a store."""
