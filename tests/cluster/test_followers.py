"""The commit of one server reaches the others over the same store at once, by two ways that each suffice (P2)."""

from __future__ import annotations

import threading
import time

import pytest

from compass.model.replies import Done, LogEntries, ServerStatus
from compass.model.requests import Put, ReadLog, Status
from compass.model.rows import Category
from compass.store.notifications import LISTENER
from compass.wire.limits import LOG_WAIT_SECONDS_MAX
from tests.cluster.servers import Several
from tests.e2e.processes import PATIENCE_SECONDS, eventually

NEVER = {"compass.server.server.TAIL_EVERY_SECONDS": 600.0}
"""Interval at which a server looks for itself, and not more often."""
DEAF = {"compass.store.notifications.PAUSE_SECONDS": 600.0, "compass.store.notifications.LOOK_SECONDS": 600.0}
"""A server whose wake-ups do not come, nor come back once they are cut."""


@pytest.fixture(scope="module")
def two(several: Several) -> Several:
    """Two servers that never look for themselves."""
    several.add("gns1", constants=NEVER)
    several.add("gns2", constants=NEVER)
    return several


def follows(several: Several, writer: str, reader: str, category: str) -> float:
    """Measure the time until a server has what another has committed, over a session that is open already."""
    with several.link(writer) as writing, several.link(reader) as reading:
        began = time.monotonic()
        done = writing.ask(Put(Category(category), create=True))
        assert isinstance(done, Done), done

        def there() -> bool:
            status = reading.ask(Status())
            return isinstance(status, ServerStatus) and status.revision >= done.revision

        eventually(there, f"{reader} has revision {done.revision}")
        return time.monotonic() - began


def test_a_server_that_never_looks_is_woken_by_the_commits_of_another(two: Several) -> None:
    """PostgreSQL notifies, SQLite's file is watched: with its own look ten minutes away it follows all the same."""
    assert follows(two, "gns1", "gns2", "web") < PATIENCE_SECONDS
    assert follows(two, "gns2", "gns1", "mail") < PATIENCE_SECONDS


def test_a_server_whose_wake_ups_are_cut_looks_for_itself(two: Several, request: pytest.FixtureRequest) -> None:
    """The safety net: no notification comes any more, and it follows nevertheless."""
    two.add("gns3", constants=DEAF)
    if two.store.startswith("postgresql"):
        server = request.getfixturevalue("postgresql")
        listening = f"FROM pg_stat_activity WHERE application_name = '{LISTENER}'"
        eventually(lambda: len(server.ask(f"SELECT 1 {listening}")) == 3, "all servers listen")
        server.ask(f"SELECT pg_terminate_backend(pid) {listening}")
    assert follows(two, "gns1", "gns3", "dns") < PATIENCE_SECONDS


def test_whoever_follows_a_log_through_one_server_is_told_what_another_writes(two: Several) -> None:
    """The answer to a waiting read-log comes with the commit, not at the end of the wait."""
    last = two.ask("gns2", ReadLog("administration", last=1), LogEntries).entries[0].number
    told: list[LogEntries] = []
    began = time.monotonic()

    def follow() -> None:
        told.append(two.ask("gns2", ReadLog("administration", last, 10, wait_seconds=LOG_WAIT_SECONDS_MAX), LogEntries))

    following = threading.Thread(target=follow)
    following.start()
    # However it falls: an entry that is there before the question is given at once.
    time.sleep(0.3)
    two.ask("gns1", Put(Category("log"), create=True), Done)
    following.join(PATIENCE_SECONDS)
    assert [getattr(entry, "operation", "") for entry in told[0].entries] == ["put"]
    assert time.monotonic() - began < LOG_WAIT_SECONDS_MAX - 5
