"""Messages in parts are written in turns: a large snapshot delays no other peer's reply for long (P10)."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from compass.model.replies import Watching
from compass.model.requests import Pull, Watch
from compass.server.sessions import write_turns
from compass.server.sessions.session import Session
from compass.server.sessions.write_turns import (
    PAUSE_SECONDS_MAX,
    PAUSE_SECONDS_MIN,
    PAUSE_SHARE,
    SLICE_OCTETS_MAX,
    SLICE_SECONDS_MAX,
    WriteTurns,
)
from compass.wire import limits
from compass.wire.messages import Notice, Resync
from tests.server.conftest import Uss
from tests.server.push.test_large_views import fill, ports
from tests.server.push.test_publisher import CHINA, register, watcher
from tests.server.sessions.test_flow_control import equal_to_a_pull, session_of


class Parts:
    """Session with a number of parts to write, each of which takes some time."""

    def __init__(self, turns: WriteTurns, name: str, left: int, octets: int, clock: Clock, seconds: float) -> None:
        self._turns, self._clock = turns, clock
        self._name, self._octets, self._seconds = name, octets, seconds
        self.left = left
        self.written: list[str] = []
        turns.request(self)

    def take_turn(self) -> int:
        self.left -= 1
        self.written.append(self._name)
        self._clock.rightNow += self._seconds
        if self.left:
            self._turns.request(self)
        return self._octets


def writers(*names: str, parts: int, octets: int = 1, seconds: float = 0.0) -> tuple[Clock, list[str]]:
    """Sessions that begin at the same moment. Returns the clock and the names in the order of their parts."""
    clock = Clock()
    turns = WriteTurns(clock)
    made = [Parts(turns, name, parts, octets, clock, seconds) for name in names]
    for one in made[1:]:
        one.written = made[0].written
    return clock, made[0].written


def test_sessions_write_part_by_part_in_turn() -> None:
    clock, written = writers("a", "b", "c", parts=3)
    clock.advance(0)
    assert written == ["a", "b", "c"] * 3


def test_a_slice_ends_at_its_octets() -> None:
    """A slice ends with the part that reaches the octets; the rest follows in the next turn of the reactor."""
    clock, written = writers("a", parts=9, octets=SLICE_OCTETS_MAX // 4)
    clock.advance(0)
    assert len(written) == 4
    clock.advance(PAUSE_SECONDS_MIN * 0.9)
    assert len(written) == 4
    clock.advance(PAUSE_SECONDS_MIN * 0.2)
    assert len(written) == 8
    clock, written = writers("a", parts=9, octets=SLICE_OCTETS_MAX // 4 - 1)
    clock.advance(0)
    assert len(written) == 5


def test_a_slice_ends_at_its_time_and_a_pause_follows() -> None:
    part = SLICE_SECONDS_MAX / 2
    clock, written = writers("a", parts=9, seconds=part)
    clock.advance(0)
    assert len(written) == 2
    clock.advance(2 * part * PAUSE_SHARE * 0.9)
    assert len(written) == 2
    clock.advance(2 * part * PAUSE_SHARE * 0.2)
    assert len(written) == 4


def test_a_slice_that_was_interrupted_is_followed_by_the_longest_pause_at_most() -> None:
    clock, written = writers("a", parts=2, seconds=PAUSE_SECONDS_MAX * 10)
    clock.advance(0)
    clock.advance(PAUSE_SECONDS_MAX * 0.9)
    assert len(written) == 1
    clock.advance(PAUSE_SECONDS_MAX * 0.2)
    assert len(written) == 2


@pytest.fixture
def one_part_a_slice(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Parts of 4 KiB, one in a slice. Returns the hosts in the order of their turns."""
    monkeypatch.setattr(write_turns, "SLICE_OCTETS_MAX", 1)
    monkeypatch.setattr(limits, "PART_OCTETS_MAX", 4_096)
    monkeypatch.setattr("compass.server.push.snapshot_cache.STREAMED_OCTETS_MIN", 65_536)
    monkeypatch.setattr("compass.server.push.subscriptions.STREAMED_OCTETS_MIN", 65_536)
    turns: list[str] = []
    take_turn = Session.take_turn

    def noted(session: Session) -> int:
        turns.append(session.host)
        return take_turn(session)

    monkeypatch.setattr(Session, "take_turn", noted)
    return turns


def watching(reply: Any) -> Any:
    assert isinstance(reply, Watching) and reply.snapshot is not None
    return reply.snapshot.rows


def test_two_hosts_load_in_turn_and_a_third_peer_is_answered_between(world: Uss, one_part_a_slice: list[str]) -> None:
    """Both views arrive whole; a reply that is ready meanwhile does not wait for the end of either."""
    world.server()
    fill(world, world.client(("host", "store1")))
    other = world.client(("host", "other1"))
    hosts = [world.client(("host", name)) for name in ("web1", "web2")]
    turns = one_part_a_slice
    number = None
    answered_at = 0
    watches = [host.send(Watch(("portal.web",), resync=True)) for host in hosts]
    while not all(watch in host.replies for watch, host in zip(watches, hosts, strict=True)):
        world.run(1e-5)
        if number is None and turns:
            number = other.send(Pull(CHINA))
        if number is not None and number in other.replies and not answered_at:
            answered_at = len(turns)
    assert 0 < answered_at < 30 < len(turns)
    both = turns[turns.index("web2") : len(turns) - turns[::-1].index("web1")]
    assert len(both) > 20 and not any(len(set(both[at : at + 4])) == 1 for at in range(len(both) - 3)), both
    for watch, host in zip(watches, hosts, strict=True):
        assert len(ports(watching(host.replies[watch]))) == 40


def test_a_host_that_waits_for_its_turn_keeps_little(world: Uss, one_part_a_slice: list[str], monkeypatch: Any) -> None:
    """P10: notices meanwhile are bounded as for a slow reader; at its turn the host gets all that it missed."""
    monkeypatch.setattr(limits, "SEND_QUEUE_MAX", 8_192)
    monkeypatch.setattr("compass.server.push.subscriptions.REPLAY_OCTETS_MAX", 1)
    world.server()
    store = world.client(("host", "store1"))
    fill(world, store)
    host = watcher(world, "web1", "portal.web", resync=True)
    session = session_of(world, "web1")
    waiting: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(session._turns, "request", waiting.append)
        session.fall_behind(0)
        assert waiting == [session]
        for epoch in range(2, 100):
            register(world, store, port=2000, epoch=epoch)
            assert session.queued_octets <= 8_192 + 2 * limits.PART_OCTETS_MAX
        # The delay is the server's, not the host's.
        world.run(2 * limits.ACKNOWLEDGE_SECONDS)
        assert host.ended is None and not host.lost
    assert session.behind and not any(isinstance(message, Resync) for message in host.pushed)
    session.take_turn()
    world.until(lambda: any(isinstance(message, Resync | Notice) for message in host.pushed))
    world.run(5.0)
    assert not session.behind and host.ended is None
    assert equal_to_a_pull(host)
