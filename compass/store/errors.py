"""What can be wrong with a store beyond "not now". All of it is StoreUnavailable to whoever does not look closer."""

from __future__ import annotations

from compass.model.interfaces import StoreUnavailable


class StoreUnusable(StoreUnavailable):
    """This database cannot be opened as a store until somebody does something about it; the text says what."""


class StoreTooNew(StoreUnusable):
    """The database was written by a newer program than this one."""


class StoreInUse(StoreUnusable):
    """What was asked for can be done only while no server uses the store."""
