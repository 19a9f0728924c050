"""What can be wrong with a store beyond "not now". All of it is StoreUnavailable to whoever does not look closer."""

from __future__ import annotations

from compass.model.storage import StoreUnavailable


class StoreUnusable(StoreUnavailable):
    """This database cannot be opened as a store until somebody does something about it; the text says what."""


class StoreTooNew(StoreUnusable):
    """The database was written by a newer program than this one."""


class LogTrimmed(StoreUnavailable):
    """The changes asked for are no longer in the update log: only `load` helps."""


class BatchRefused(StoreUnavailable):
    """The database refuses these very values, so the same batch can never be committed: a defect of the rules.

    Nothing of the batch is in the store. Whoever retries it retries for ever.
    """
