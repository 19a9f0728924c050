"""Recent entries of a log, from which a reader that was disconnected resumes after the revision that it holds.

The buffer covers the revisions from `floor` to `revision`: it holds every entry in between that was appended. Revisions
without an entry of interest are passed with `advance`. Invariant: the entries' revisions rise, and each lies above
`floor` and not above `revision`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar


class Revised(Protocol):
    """An entry of the log."""

    @property
    def revision(self) -> int:
        """Revision of the entry."""


Entry = TypeVar("Entry", bound=Revised)


class ReplayBuffer(Generic[Entry]):
    """The newest entries of a log, at most `capacity` and `octets_max` octets; the oldest are dropped first."""

    def __init__(
        self, capacity: int, revision: int = 0, octets_max: int = 0, size: Callable[[Entry], int] = lambda entry: 0
    ) -> None:
        """`size` returns the octets of an entry."""
        self._capacity = capacity
        self._octets_max = octets_max
        self._size = size
        self._octets = 0
        self._entries: deque[Entry] = deque()
        self.floor = revision
        """Lowest revision after which nothing is missing."""
        self.revision = revision
        """Revision up to which the buffer follows the log."""

    def __len__(self) -> int:
        return len(self._entries)

    def append(self, entry: Entry) -> None:
        """Add the newest entry."""
        self.revision = entry.revision
        self._entries.append(entry)
        self._octets += self._size(entry)
        while len(self._entries) > self._capacity or self._octets > self._octets_max:
            oldest = self._entries.popleft()
            self._octets -= self._size(oldest)
            self.floor = oldest.revision

    def advance(self, revision: int) -> None:
        """Pass the revisions up to `revision`, none of which has an entry for this buffer."""
        self.revision = max(self.revision, revision)

    def restart(self, revision: int, *, resumable: bool = True) -> None:
        """Drop all entries and continue at `revision`; `resumable`: a reader that holds just this revision may resume.

        It may not when the state at `revision` differs from what the log led to.
        """
        self._entries.clear()
        self._octets = 0
        self.revision = revision
        self.floor = revision if resumable else revision + 1

    def covers(self, since: int) -> bool:
        """Return whether a reader that holds revision `since` can resume."""
        return self.floor <= since <= self.revision

    def newest_first(self, since: int) -> Iterator[Entry]:
        """Returns the entries after `since`, the newest first; complete only if `covers(since)`."""
        for entry in reversed(self._entries):
            if entry.revision <= since:
                return
            yield entry

    def after(self, since: int) -> list[Entry] | None:
        """Returns the entries after `since`, the oldest first, or None if a reader at `since` cannot resume."""
        return list(self.newest_first(since))[::-1] if self.covers(since) else None
