"""Seen revisions: the next command shows no older revision, at any server."""

from __future__ import annotations

from pathlib import Path

from compass.admin.shell.seen_revisions import PLACE, SEEN_SECONDS, STORES_MAX, SeenRevisions
from compass.model.requests import Fetch
from tests.admin.conftest import Program
from tests.admin.test_commands import USS
from tests.support.fake_server import LittleServer


class FakeClock:
    """Clock that the test sets."""

    def __init__(self, time: float) -> None:
        self.time = time

    def now(self) -> float:
        """Return the time that the test has set."""
        return self.time


def test_the_next_command_says_what_this_one_has_seen(program: Program, server: LittleServer) -> None:
    """Each run is a process of its own: the change of one is asked for by the look of the next."""
    program.done("category", "add", "search")
    program.done("category", "list")
    last = [request for request in server.asked if isinstance(request, Fetch)][-1]
    assert last.store and last.seen > 0
    assert last.seen >= max(request.seen for request in server.asked if isinstance(request, Fetch))


def test_what_would_be_is_not_what_was_seen(program: Program, server: LittleServer) -> None:
    """The revision of a plan is not recorded as seen."""
    before = server.catalogue.revision
    program.run("plan", USS)
    program.done("category", "list")
    assert max(request.seen for request in server.asked if isinstance(request, Fetch)) <= before


def test_it_counts_for_a_minute(tmp_path: Path) -> None:
    """After that a server which is still behind is broken, and may be looked at all the same."""
    clock = FakeClock(1000.0)
    seen = SeenRevisions(tmp_path, clock)
    seen.note("s", 7)
    seen.note("s", 5)
    clock.time += SEEN_SECONDS
    assert SeenRevisions(tmp_path, clock).last_seen("s") == 7
    clock.time += 0.1
    assert SeenRevisions(tmp_path, clock).last_seen("s") == seen.last_seen("s") == 0
    clock.time = 0.0
    assert seen.last_seen("s") == 0, "nor when the clock was set back"


def test_the_latest_stores_are_remembered(tmp_path: Path) -> None:
    """P10: one more than there is room for, and the oldest goes."""
    seen = SeenRevisions(tmp_path, FakeClock(1.0))
    for number in range(STORES_MAX + 1):
        seen.note(f"s{number}", 1)
    again = SeenRevisions(tmp_path, FakeClock(1.0))
    assert [again.last_seen(f"s{number}") for number in range(STORES_MAX + 1)] == [0] + [1] * STORES_MAX


def test_nothing_depends_on_the_file(tmp_path: Path) -> None:
    """A damaged one is as good as none, and where none can be written nothing is remembered."""
    path = tmp_path / PLACE
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert SeenRevisions(tmp_path, FakeClock(1.0)).last_seen("s") == 0
    path.unlink()
    path.mkdir()
    seen = SeenRevisions(tmp_path, FakeClock(1.0))
    seen.note("s", 3)
    assert seen.last_seen("s") == 3
