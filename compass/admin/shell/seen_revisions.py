"""What this person has seen of each store: the next command shows no less (opengnsp.md, "Never back in time").

Servers over one store hear of each other's commits a moment later; who has just changed something at one of them and
looks at another must see it. It is remembered for a minute, in a small file, and nothing depends on that file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from compass.system.files import replace_file

PLACE = Path(".local", "state", "opengns", "seen.json")
"""In the home directory (XDG Base Directory Specification: state that need not survive)."""
SEEN_SECONDS = 60.0
"""How long it counts. A server that is behind for longer is broken, and must not keep anybody from looking at it."""
STORES_MAX = 16
"""Stores that are remembered, the latest: a person administers a few."""

_Kept = dict[str, tuple[int, float]]


class SeenRevisions:
    """The highest revision of each store, and when it was seen. `now` is UNIX time."""

    def __init__(self, home: Path, now: Callable[[], float]) -> None:
        self._path = home / PLACE
        self._now = now
        self._revisions: _Kept | None = None

    def last_seen(self, store: str) -> int:
        """What a server of that store must not be behind; 0: nothing is known."""
        revision, at = self._read().get(store, (0, 0.0))
        return revision if 0 <= self._now() - at <= SEEN_SECONDS else 0

    def note(self, store: str, revision: int) -> None:
        """This has been seen now. What cannot be written is not remembered."""
        if revision <= self.last_seen(store):
            return
        kept = self._read()
        kept.pop(store, None)
        kept[store] = (revision, self._now())
        for gone in list(kept)[:-STORES_MAX]:
            del kept[gone]
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
