"""Settings of CPython's garbage collector: a large catalogue in memory must not slow down each registration."""

from __future__ import annotations

import gc

YOUNG_OBJECTS = 20_000
"""New objects between two collections of the youngest generation (the default is 700): a batch of registrations makes
thousands, of which reference counting frees nearly all, and the rest is long-lived."""


def raise_threshold() -> None:
    """Raise the threshold of the youngest generation, before the daemon serves."""
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)


def freeze_loaded() -> None:
    """Exclude everything that is loaded from later collections (`gc.freeze`): it stays."""
    gc.collect()
    gc.freeze()
