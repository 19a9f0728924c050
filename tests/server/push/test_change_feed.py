"""Change feed: each follower gets each change once and in order, or has to read everything again (P3, P4)."""

from __future__ import annotations

from typing import Any

import pytest

from compass.model.catalogue.catalogue import Catalogue
from compass.model.replies import FeedEvent, Position, Refusal
from compass.model.rows import Category, Change, Credential
from compass.server.push.change_feed import FOLLOWERS_MAX, RECENT_MAX, ChangeFeed
from tests.support.catalogue_rows import NOW


class Scene:
    """Change feed of a server whose catalogue is at a revision."""

    def __init__(self, revision: int = 0) -> None:
        self.catalogue = Catalogue(revision)
        self.feed = ChangeFeed("st", revision)

    def commit(self, *names: str) -> None:
        """Commit a category for each name."""
        for name in names:
            change = Change(self.catalogue.revision + 1, 0, NOW, "category-add", Category(name))
            self.catalogue = self.catalogue.apply(change)
            self.feed.committed(change, self.catalogue, own=True)

    def follow(self, since: int | None = None) -> list[FeedEvent]:
        """Return the events of a new follower, also those to come."""
        told: list[FeedEvent] = []
        assert not isinstance(self.feed.follow(since, told.append), Refusal)
        return told


def test_a_follower_gets_each_change_once_from_its_revision() -> None:
    """P3: the position first, then what was missed, then what comes."""
    scene = Scene()
    scene.commit("a", "b", "c")
    fresh, resumed, whole = scene.follow(), scene.follow(2), scene.follow(0)
    scene.commit("d")
    assert fresh[0] == Position("st", 3, complete=True) and revisions(fresh) == [4]
    assert resumed[0] == Position("st", 2, complete=True) and revisions(resumed) == [3, 4]
    assert revisions(whole) == [1, 2, 3, 4]


@pytest.mark.parametrize("since", [-1, 4, 2**63 - 1])
def test_an_unknown_revision_is_not_resumed_from(since: int) -> None:
    """P4: a follower at an unknown revision, perhaps of another store, starts at the present one and is notified."""
    scene = Scene()
    scene.commit("a", "b", "c")
    told = scene.follow(since)
    scene.commit("d")
    assert told[0] == Position("st", 3, complete=False) and revisions(told) == [4]


def test_the_memory_of_changes_is_bounded() -> None:
    """P10: a follower at the oldest change kept resumes; a follower before it reads everything again."""
    scene = Scene()
    scene.commit(*(f"c{n}" for n in range(RECENT_MAX + 1)))
    assert len(scene.follow(1)) == 1 + RECENT_MAX
    assert scene.follow(0) == [Position("st", RECENT_MAX + 1, complete=False)]


def test_followers_resume_from_what_the_log_has_at_the_start() -> None:
    """The feed covers a restart of the server; changes that were trimmed cannot be resumed from."""
    scene = Scene(7)
    assert scene.follow(6)[0] == Position("st", 7, complete=False)
    scene.feed.preload(Change(n, 0, NOW, "category-add", Category(f"c{n}")) for n in (5, 6, 7))
    assert revisions(scene.follow(4)) == [5, 6, 7]
    assert scene.follow(3) == [Position("st", 7, complete=False)]
    scene.commit("later")
    assert revisions(scene.follow(6)) == [7, 8]


def test_a_reload_makes_followers_read_everything() -> None:
    """The single changes are unknown, so all followers have to read everything again."""
    scene = Scene()
    scene.commit("a")
    told = scene.follow()
    scene.catalogue = Catalogue(50)
    scene.feed.reloaded(scene.catalogue)
    scene.commit("z")
    assert told[1] == Position("st", 50, complete=False) and revisions(told) == [51]
    assert scene.follow(1)[0] == Position("st", 51, complete=False)


def test_followers_are_bounded_and_leave() -> None:
    """P10: one follower too many is refused for a while; a follower that raises does not affect the others."""
    scene = Scene()

    def broken(event: FeedEvent) -> None:
        if isinstance(event, Change):
            raise KeyError("planted")

    stop: Any = scene.feed.follow(None, broken)
    told = [scene.follow() for _ in range(FOLLOWERS_MAX - 1)]
    refused = scene.feed.follow(None, broken)
    assert isinstance(refused, Refusal) and refused.code == "busy" and refused.retry_after_seconds
    scene.commit("a")
    assert all(revisions(one) == [1] for one in told)
    stop()
    assert scene.follow()


def test_no_digest_is_delivered() -> None:
    """A credential's row is delivered without its digest."""
    scene = Scene()
    told = scene.follow()
    change = Change(1, 0, NOW, "credential-issue", Credential("1f", "a.b", "secret", NOW))
    scene.catalogue = scene.catalogue.apply(change)
    scene.feed.committed(change, scene.catalogue, own=True)
    assert "secret" not in repr(told) and "secret" not in repr(scene.follow(0))


def revisions(told: list[FeedEvent]) -> list[int]:
    """Return the revisions of the changes."""
    return [event.revision for event in told if isinstance(event, Change)]
