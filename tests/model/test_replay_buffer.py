"""ReplayBuffer returns what a reader missed, or says that it cannot (P3, P4), in bounded memory (P10)."""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

import pytest

from compass.model.replay_buffer import ReplayBuffer


class Entry(NamedTuple):
    revision: int


def buffer_of(*revisions: int, capacity: int = 10, start: int = 0) -> ReplayBuffer[Entry]:
    """A buffer to which entries of these revisions were appended."""
    buffer: ReplayBuffer[Entry] = ReplayBuffer(capacity, start)
    for revision in revisions:
        buffer.append(Entry(revision))
    return buffer


def revisions(entries: list[Entry] | None) -> list[int] | None:
    return None if entries is None else [entry.revision for entry in entries]


@pytest.mark.parametrize(
    ("since", "missed"),
    [(-1, None), (0, [2, 5]), (1, [2, 5]), (2, [5]), (4, [5]), (5, []), (6, None), (2**63 - 1, None)],
)
def test_a_reader_gets_the_entries_after_its_revision_in_order(since: int, missed: list[int] | None) -> None:
    """P3, P4: each entry once and in order; a revision that the log has not reached yet is refused."""
    assert revisions(buffer_of(2, 5).after(since)) == missed


def test_an_empty_buffer_resumes_only_readers_that_miss_nothing() -> None:
    """A log that begins at revision 7 says nothing about revision 6."""
    buffer = buffer_of(start=7)
    assert [buffer.after(since) for since in (6, 7, 8)] == [None, [], None]


def test_revisions_without_an_entry_are_covered() -> None:
    """A reader that holds a revision of no interest resumes from it; the buffer never goes back."""
    buffer = buffer_of(2)
    buffer.advance(9)
    assert [revisions(buffer.after(since)) for since in (1, 2, 9, 10)] == [[2], [], [], None]
    buffer.advance(4)
    assert buffer.revision == 9 and buffer.covers(9)


def test_the_oldest_entries_are_dropped_beyond_the_capacity() -> None:
    """P10: a reader at the last entry that was dropped still resumes, one before it does not."""
    full = buffer_of(1, 3, 5, capacity=3)
    assert (len(full), full.floor) == (3, 0) and revisions(full.after(0)) == [1, 3, 5]
    full.append(Entry(8))
    assert (len(full), full.floor) == (3, 1)
    assert revisions(full.after(1)) == [3, 5, 8] and full.after(0) is None


def test_a_restart_drops_all_entries() -> None:
    """A reader at the revision of the restart resumes, unless the state there is not what the log led to."""
    buffer = buffer_of(1, 2, 3)
    buffer.restart(50)
    assert [buffer.after(since) for since in (3, 49, 50, 51)] == [None, None, [], None]
    buffer.restart(50, resumable=False)
    assert [buffer.after(since) for since in (49, 50, 51)] == [None, None, None]
    buffer.append(Entry(51))
    assert [revisions(buffer.after(since)) for since in (50, 51)] == [None, []]


def test_the_entries_are_read_from_the_newest_and_no_further_than_needed() -> None:
    """A reader that stops early costs nothing for the older entries."""
    buffer = buffer_of(1, 2, 3, 4)
    assert [entry.revision for entry in islice(buffer.newest_first(0), 2)] == [4, 3]
    assert [entry.revision for entry in buffer.newest_first(2)] == [4, 3]
