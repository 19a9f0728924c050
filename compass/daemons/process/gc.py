"""What CPython's collector is told, so that a large catalogue in memory does not cost each registration something."""

from __future__ import annotations

import gc

YOUNG_OBJECTS = 20_000
"""New objects between two collections of the youngest (the default is 700): a batch of registrations makes thousands,
nearly all of which are freed by their reference counts, and what is left is kept for long."""


def raise_threshold() -> None:
    """Set it, before the daemon serves."""
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)


def freeze_loaded() -> None:
    """Everything that was loaded stays, so the collector need not look at it again (`gc.freeze`)."""
    gc.collect()
    gc.freeze()
