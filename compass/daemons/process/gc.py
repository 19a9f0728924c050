"""Settings of CPython's garbage collector: what a daemon holds in memory must not slow down each registration.

A whole collection takes 30 ms in a host daemon without a single listener: modules alone are 200,000 objects.
"""

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
