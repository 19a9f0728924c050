"""Lookups in memory that find no listener, as the daemon learns of them: it counts the names without an answer.

The daemon sees no lookup that is answered from a view; so an outage would not be seen where most lookups are made.
"""

from __future__ import annotations

import contextlib

from compass.client.core.api import HostApiCalls
from compass.client.core.errors import ApiProblem

SPACING_SECONDS = 10.0
"""Time between two such requests about a name: the daemon counts no more often."""
NAMES_MAX = 100
"""Names for which the time is kept; beyond it the oldest is asked about again."""


class MissingNames:
    """Names that were found to have no listener, and when the daemon was asked about each."""

    def __init__(self) -> None:
        self._asked_at: dict[str, float] = {}

    def is_due(self, name: str, now: float) -> bool:
        """Return whether the daemon is to be asked about a name now, and remember that it is."""
        if now - self._asked_at.get(name, -SPACING_SECONDS) < SPACING_SECONDS:
            return False
        self._asked_at.pop(name, None)
        self._asked_at[name] = now
        if len(self._asked_at) > NAMES_MAX:
            self._asked_at.pop(next(iter(self._asked_at)), None)
        return True


async def ask_daemon(calls: HostApiCalls, name: str) -> None:
    """Look a name up at the daemon, whose answer does not matter."""
    with contextlib.suppress(ApiProblem):
        await calls.resolve(name)
