"""Files of the daemon: written as a whole, refused if damaged, never fatal."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from compass.agent.registration.journal import JournalWriteFailed, Registration, RegistrationJournal
from compass.agent.replica.disk_cache import (
    FILE_NAME,
    MAGIC,
    RETRY_SECONDS,
    WRITE_PAUSE_SECONDS,
    Cache,
    CachedReplica,
    Unusable,
    packed,
    unpacked,
)
from compass.model.limits import EPOCH_AHEAD_SECONDS_MAX
from compass.model.rows import Category, Snapshot

CONTENT = CachedReplica("store", ("s.a",), Snapshot(7, {"a": 7}, [Category("a")]), True, ("s.a", "s.b"))


class Content:
    """Source of the cache's content."""

    def cached(self) -> CachedReplica:
        return CONTENT


def cache(directory: Path, clock: Clock | None = None) -> Cache:
    return Cache(clock or Clock(), directory, Content())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    cache(tmp_path).write()
    assert cache(tmp_path).load() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize("at", range(0, len(packed(CONTENT)), 5))
def test_a_flipped_bit_is_seen(tmp_path: Path, at: int) -> None:
    """Wherever the file is damaged, it is set aside and not served."""
    data = bytearray(packed(CONTENT))
    data[at] ^= 1
    (tmp_path / FILE_NAME).write_bytes(data)
    assert cache(tmp_path).load() is None
    assert [path.name for path in tmp_path.iterdir()] == ["catalogue.corrupt-1"]


@pytest.mark.parametrize("length", [0, 1, 30, len(packed(CONTENT)) - 1])
def test_a_cut_file_is_seen(tmp_path: Path, length: int) -> None:
    (tmp_path / FILE_NAME).write_bytes(packed(CONTENT)[:length])
    assert cache(tmp_path).load() is None


def test_foreign_content_with_a_good_checksum() -> None:
    """The daemon refuses another program's MessagePack, and a later format by its name."""

    def file(version: int, body: bytes) -> bytes:
        return struct.pack("!8sIQ32s", MAGIC, version, len(body), hashlib.sha256(body).digest()) + body

    with pytest.raises(Unusable, match="store"):
        unpacked(file(1, b"\x80"))
    with pytest.raises(Unusable, match="format is 2"):
        unpacked(file(2, b"\x80"))


def test_many_changes_are_one_write(tmp_path: Path) -> None:
    """Writes have a minimum interval, and a pending write is done at the end."""
    clock = Clock()
    kept = cache(tmp_path, clock)
    kept.changed()
    clock.advance(WRITE_PAUSE_SECONDS / 2)
    kept.changed()
    assert not (tmp_path / FILE_NAME).exists()
    clock.advance(WRITE_PAUSE_SECONDS / 2)
    assert (tmp_path / FILE_NAME).exists()
    (tmp_path / FILE_NAME).unlink()
    kept.close()
    assert not (tmp_path / FILE_NAME).exists()
    kept.changed()
    kept.close()
    assert (tmp_path / FILE_NAME).exists() and not clock.getDelayedCalls()


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    """A failed write is reported and has no other effect."""
    (tmp_path / "file").write_text("")
    kept = cache(tmp_path / "file")
    assert kept.load() is None
    kept.write()


def test_the_book_that_cannot_be_written(tmp_path: Path) -> None:
    """A wish is refused and the book is as before; what has happened is noted in memory all the same."""
    book = RegistrationJournal(tmp_path / "missing")
    entry = Registration("s.a", "10.0.0.1", 1, 5, "t", "pending")
    with pytest.raises(JournalWriteFailed):
        book.put(entry)
    assert len(book) == 0
    book.note(entry)
    assert book.all() == (entry,)


def test_epochs_only_grow(tmp_path: Path) -> None:
    """Also when the clock goes back, across restarts, and above what a server knows."""
    book = RegistrationJournal(tmp_path)
    first = book.next_epoch(1000.0)
    second = book.next_epoch(10.0)
    assert (first, second) == (1_000_000_000, 1_000_000_001)
    book.put(Registration("s.a", "10.0.0.1", 1, second, "t", "pending"))
    again = RegistrationJournal(tmp_path)
    again.load()
    assert again.next_epoch(10.0) == second + 1
    assert again.next_epoch(10.0, above=10**12) == 10**12 + 1


def test_a_clock_that_was_far_ahead_leaves_no_epochs_behind(tmp_path: Path) -> None:
    """A server refuses epochs that are more than a day ahead: after the correction of the clock the host has valid
    ones."""
    book = RegistrationJournal(tmp_path)
    day = EPOCH_AHEAD_SECONDS_MAX
    kept = book.next_epoch(1000.0 + day)
    assert book.next_epoch(1000.0) == kept + 1
    refused = Registration("s.a", "10.0.0.1", 1, book.next_epoch(1001.0 + day), "t", "refused")
    assert book.succeed(refused, 1000.0) == 1_000_000_000
    assert book.succeed(None, 1000.0) == 1_000_000_001


def test_a_view_that_cannot_be_written_is_said_until_it_can_be(tmp_path: Path) -> None:
    """The problem has the time, the reason and the meaning; the write is repeated, and the journal follows."""
    clock = Clock()
    again: list[bool] = []
    kept = Cache(clock, tmp_path / "missing", Content())
    kept.written_again = lambda: again.append(True)
    kept.write()
    clock.advance(5.0)
    assert "for 5 s: No such file or directory" in kept.problem and "a restart would need a server" in kept.problem
    clock.advance(RETRY_SECONDS)
    assert f"for {5 + RETRY_SECONDS:.0f} s" in kept.problem and not again
    (tmp_path / "missing").mkdir()
    clock.advance(RETRY_SECONDS)
    assert kept.problem == "" and again == [True] and kept.load() is not None


def test_a_journal_that_could_not_be_written_is_written_again(tmp_path: Path) -> None:
    """Entries that were noted in memory meanwhile are on disk then."""
    book = RegistrationJournal(tmp_path / "missing")
    book.note(Registration("s.a", "10.0.0.1", 1, 5, "t", "pending"))
    assert "cannot write" in book.write_problem and "new registrations are refused" in book.write_problem
    (tmp_path / "missing").mkdir()
    book.write_again()
    assert book.write_problem == "" and (tmp_path / "missing" / "registrations.json").exists()
