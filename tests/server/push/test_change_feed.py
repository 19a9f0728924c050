"""Visitors: followers are told each change once, in order, from where they were, or that they must read anew."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from compass.model.catalogue.catalogue import Catalogue
from compass.model.limits import TOKEN_MAX
from compass.model.replies import FeedEvent, Position, Refusal, SecurityEntry
from compass.model.rows import Category, Change, Credential
from compass.model.rules.draft import Principal
from compass.server.push import change_feed
from compass.server.push.change_feed import FOLLOWERS_MAX, RECENT_MAX, ChangeFeed
from compass.server.sessions.connection_limits import ConnectionLimits
from compass.server.sessions.rate_limit import FAILURES_PER_MINUTE_MAX, MINUTE_SECONDS
from tests.model.rules.test_tokens import with_tokens
from tests.support.catalogue_rows import NOW


class Scene:
    """Visitors of a server whose catalogue stands at a revision."""

    def __init__(self, revision: int = 0) -> None:
        self.clock = Clock()
        self.catalogue = Catalogue(revision)
        self.notes: list[SecurityEntry] = []
        gate = ConnectionLimits(self.clock, lambda: NOW, self.notes.append)
        self.visitors = ChangeFeed(lambda: NOW, gate, self.notes.append, "st", lambda: self.catalogue)

    def commit(self, *names: str) -> None:
        """A category for each name."""
        for name in names:
            change = Change(self.catalogue.revision + 1, 0, NOW, "category-add", Category(name))
            self.catalogue = self.catalogue.apply(change)
            self.visitors.committed(change)

    def follow(self, since: int | None = None) -> list[FeedEvent]:
        """What a follower is told from now on."""
        told: list[FeedEvent] = []
        assert not isinstance(self.visitors.follow(since, told.append), Refusal)
        return told


def test_a_follower_is_told_each_change_once_from_where_it_was() -> None:
    """P3: the position first, then what was missed, then what comes."""
    scene = Scene()
    scene.commit("a", "b", "c")
    fresh, resumed, whole = scene.follow(), scene.follow(2), scene.follow(0)
    scene.commit("d")
    assert fresh[0] == Position("st", 3, complete=True) and revisions(fresh) == [4]
    assert resumed[0] == Position("st", 2, complete=True) and revisions(resumed) == [3, 4]
    assert revisions(whole) == [1, 2, 3, 4]


@pytest.mark.parametrize("since", [-1, 4, 2**63 - 1])
def test_a_revision_that_nothing_is_known_of(since: int) -> None:
    """One from the future, of another store perhaps, begins anew and says so (P4)."""
    scene = Scene()
    scene.commit("a", "b", "c")
    told = scene.follow(since)
    scene.commit("d")
    assert told[0] == Position("st", 3, complete=False) and revisions(told) == [4]


def test_the_memory_of_changes_is_bounded() -> None:
    """P10: who was there at the oldest of them goes on, who was not reads everything again."""
    scene = Scene()
    scene.commit(*(f"c{n}" for n in range(RECENT_MAX + 1)))
    assert len(scene.follow(1)) == 1 + RECENT_MAX
    assert scene.follow(0) == [Position("st", RECENT_MAX + 1, complete=False)]


def test_what_the_log_has_at_the_start_can_be_resumed_from() -> None:
    """Across a restart of the server; what was trimmed cannot."""
    scene = Scene(7)
    assert scene.follow(6)[0] == Position("st", 7, complete=False)
    scene.visitors.recall(Change(n, 0, NOW, "category-add", Category(f"c{n}")) for n in (5, 6, 7))
    assert revisions(scene.follow(4)) == [5, 6, 7]
    assert scene.follow(3) == [Position("st", 7, complete=False)]
    scene.commit("later")
    assert revisions(scene.follow(6)) == [7, 8]


def test_a_catalogue_that_was_loaded_anew() -> None:
    """Nobody knows what happened one by one: all followers are told to read everything again."""
    scene = Scene()
    scene.commit("a")
    told = scene.follow()
    scene.catalogue = Catalogue(50)
    scene.visitors.reloaded(50)
    scene.commit("z")
    assert told[1] == Position("st", 50, complete=False) and revisions(told) == [51]
    assert scene.follow(1)[0] == Position("st", 51, complete=False)


def test_followers_are_bounded_and_leave() -> None:
    """P10: one too many is told to come back; one that raises disturbs nobody."""
    scene = Scene()

    def broken(event: FeedEvent) -> None:
        if isinstance(event, Change):
            raise KeyError("planted")

    stop: Any = scene.visitors.follow(None, broken)
    told = [scene.follow() for _ in range(FOLLOWERS_MAX - 1)]
    refused = scene.visitors.follow(None, broken)
    assert isinstance(refused, Refusal) and refused.code == "busy" and refused.retry_after_seconds
    scene.commit("a")
    assert all(revisions(one) == [1] for one in told)
    stop()
    assert scene.follow()


def test_no_digest_is_told() -> None:
    """A credential's row comes without it, as everywhere."""
    scene = Scene()
    told = scene.follow()
    change = Change(1, 0, NOW, "credential-issue", Credential("1f", "a.b", "secret", NOW))
    scene.catalogue = scene.catalogue.apply(change)
    scene.visitors.committed(change)
    assert "secret" not in repr(told) and "secret" not in repr(scene.follow(0))


def test_tokens_and_guesses() -> None:
    """P11: whose a token is; a wrong one is logged with its origin, and too many are not looked at for a minute."""
    scene = Scene()
    world, admin, viewer = with_tokens()
    scene.catalogue = world.catalogue
    assert scene.visitors.bearer(admin, "192.0.2.1") == Principal("admin", "deploy.gns-admin", "192.0.2.1")
    assert scene.visitors.bearer(viewer, "192.0.2.1") == Principal("viewer", "grafana.gns-viewer", "192.0.2.1")
    for _ in range(FAILURES_PER_MINUTE_MAX):
        refused = scene.visitors.bearer("guess", "192.0.2.1")
        assert isinstance(refused, Refusal) and refused.code == "bad-credential"
    assert {(note.operation, note.origin) for note in scene.notes} == {("authenticate", "192.0.2.1")}
    refused = scene.visitors.bearer(admin, "192.0.2.1")
    assert isinstance(refused, Refusal) and refused.code == "busy" and refused.retry_after_seconds
    assert isinstance(scene.visitors.bearer(admin, "192.0.2.2"), Principal)
    scene.clock.advance(MINUTE_SECONDS)
    assert isinstance(scene.visitors.bearer(admin, "192.0.2.1"), Principal)


def test_the_longest_token_that_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A longer one is nobody's, and is not hashed either."""
    scene = Scene()
    seen: list[int] = []
    monkeypatch.setattr(change_feed, "principal_of", lambda catalogue, token, *_: seen.append(len(token)))
    for length in (TOKEN_MAX, TOKEN_MAX + 1):
        assert isinstance(scene.visitors.bearer("x" * length, "192.0.2.1"), Refusal)
    assert seen == [TOKEN_MAX]


def revisions(told: list[FeedEvent]) -> list[int]:
    """Of the changes."""
    return [event.revision for event in told if isinstance(event, Change)]
