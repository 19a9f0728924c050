"""Digests of the committed catalogue, updated with each change (opengnsp.md, "Digests").

One is of all rows, for the store and for other servers; the others are of what hosts hold, by topic, so that the digest
of a host's part is a sum of a few numbers.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

from compass.model.catalogue.catalogue import Catalogue, topic_of
from compass.model.catalogue.digest import DigestDelta, is_host_visible, row_digest, steps_of, to_hex
from compass.model.catalogue.interest import interest
from compass.model.rows import Change

REMEMBERED_MAX = 4_096
"""Revisions whose digest is remembered: two servers compare one of these while both continue to commit."""
PARTS_KEPT_MAX = 1_000
"""Kinds of hosts whose part's digest is kept for the next host of that kind."""


class DigestIndex:
    """The digests of one catalogue, which each change must update before it is applied."""

    def __init__(self) -> None:
        self.revision = 0
        self._total = 0
        self._topics: Counter[str] = Counter()
        self._remembered: deque[int] = deque()
        """Digests of all rows at the last revisions, up to `revision`."""
        self._parts: dict[frozenset[str], tuple[int, str]] = {}

    def restart(self, catalogue: Catalogue) -> None:
        """Count a whole catalogue."""
        self._total = 0
        self._topics.clear()
        self._parts.clear()
        self._remembered.clear()
        for row in catalogue.all_rows():
            digest = row_digest(row)
            self._total += digest
            if is_host_visible(row):
                self._topics[topic_of(row)] += digest
        self._remember(catalogue.revision)

    def after(self, catalogue: Catalogue, changes: Sequence[Change]) -> tuple[list[DigestDelta], str]:
        """Return what changes that follow `catalogue` would do, and the digest of all rows after them."""
        steps = steps_of(catalogue, changes)
        total = self._total
        for step in steps:
            total += step.total
        return steps, to_hex(total)

    def move(self, step: DigestDelta) -> None:
        """Update the digests with a committed change."""
        self._total += step.total
        if step.part:
            self._topics[step.topic] += step.part
            if not self._topics[step.topic]:
                del self._topics[step.topic]
        self._remember(step.revision)

    def at(self, revision: int) -> str | None:
        """Return the digest of all rows at a revision; None if it is not remembered."""
        ago = self.revision - revision
        return to_hex(self._remembered[-1 - ago]) if 0 <= ago < len(self._remembered) else None

    def part(self, catalogue: Catalogue, categories: frozenset[str], last_told: Callable[[frozenset[str]], int]) -> str:
        """Return the digest of what hosts with services of these categories hold now.

        `last_told` returns the revision of the last notice to such hosts: a kept digest is valid until a later one.
        """
        kept = self._parts.pop(categories, None)
        if kept is None or last_told(categories) > kept[0]:
            topics = interest(catalogue, (f"any.{category}" for category in categories))
            kept = self.revision, to_hex(sum(self._topics[topic] for topic in topics))
        self._parts[categories] = kept
        if len(self._parts) > PARTS_KEPT_MAX:
            del self._parts[next(iter(self._parts))]
        return kept[1]

    def _remember(self, revision: int) -> None:
        self.revision = revision
        self._remembered.append(self._total)
        if len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popleft()
