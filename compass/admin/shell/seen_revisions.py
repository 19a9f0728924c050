"""Revisions that this user has seen of each store: the next command shows no older one (opengnsp.md, "Monotonic
reads").

Servers over one store apply each other's commits a moment later; a user who changes something at one server must see
the change at another. The revisions are stored for a minute in a small file, which may be deleted at any time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import msgspec

from compass.system.files import replace_file

PLACE = Path(".local", "state", "opengns", "seen.json")
"""Path in the home directory (XDG Base Directory Specification: state that need not survive)."""
SEEN_SECONDS = 60.0
"""Seconds that a revision counts. A server that lags for longer is broken, and its state must still be readable."""
STORES_MAX = 16
"""Stores kept, the latest ones: a user administers a few."""

_Kept = dict[str, tuple[int, float]]


class Clock(Protocol):
    """Clock of the machine."""

    def now(self) -> float:
        """Return UNIX time."""


class SeenRevisions:
    """Highest revision seen of each store, and when."""

    def __init__(self, home: Path, clock: Clock) -> None:
        self._path = home / PLACE
        self._clock = clock
        self._revisions: _Kept | None = None

    def last_seen(self, store: str) -> int:
        """Return the revision that a server of that store must have reached; 0: none."""
        revision, at = self._read().get(store, (0, 0.0))
        return revision if 0 <= self._clock.now() - at <= SEEN_SECONDS else 0

    def note(self, store: str, revision: int) -> None:
        """Record that a revision was seen. An error of the file is ignored."""
        if revision <= self.last_seen(store):
            return
        kept = self._read()
        kept.pop(store, None)
        kept[store] = (revision, self._clock.now())
        for oldest in list(kept)[:-STORES_MAX]:
            del kept[oldest]
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._path, msgspec.json.encode(kept), durable=False)
        except OSError:
            pass

    def _read(self) -> _Kept:
        if self._revisions is None:
            try:
                self._revisions = msgspec.json.decode(self._path.read_bytes(), type=_Kept)
            except (OSError, ValueError):
                self._revisions = {}
        return self._revisions
