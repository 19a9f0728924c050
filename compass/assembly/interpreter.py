"""What CPython is told so that a server with one busy thread for sessions and one for SQL answers evenly."""

from __future__ import annotations

import gc
import sys

SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter while the other one waits for it (the default is 5 ms). Every call into
the kernel or into SQLite hands it over; with the default, one answer written while a batch is being prepared waits for
half the batch."""
YOUNG_OBJECTS = 20_000
"""New objects between two collections of the youngest (the default is 700): a batch of registrations makes thousands,
nearly all of which are freed by their reference counts, and what is left is kept for long."""


def tune() -> None:
    """Set both, before the daemon serves."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)


def settle() -> None:
    """Everything that was loaded stays, so the collector need not look at it again (`gc.freeze`)."""
    gc.collect()
    gc.freeze()
