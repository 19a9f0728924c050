"""Queue of handshakes: a bounded number at once, turns for all origins, and a pace for those that fail often (P10)."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from compass.daemons.net import handshake_queue
from compass.daemons.net.connection_table import STALLED_SECONDS, Connection
from compass.daemons.net.handshake_queue import STEP_SECONDS, SUSPECT_HANDSHAKES_PER_SECOND_MAX, HandshakeQueue
from compass.server.sessions.rate_limit import CONNECTIONS_FAILED_PER_MINUTE_MAX, MINUTE_SECONDS

BAD, GOOD = "192.0.2.1", "192.0.2.2"
AT_ONCE = int(SUSPECT_HANDSHAKES_PER_SECOND_MAX * STEP_SECONDS)


class Port:
    """A queue with its clock, and what came of each handshake."""

    def __init__(self) -> None:
        self.clock: Any = Clock()
        self.queue = HandshakeQueue(self.clock)
        self.begun: list[int] = []
        self.dropped: list[int] = []
        self._count = 0

    def start(self, origin: str, times: int = 1) -> list[Connection]:
        """Start handshakes, which are numbered in order."""
        return [self._start(origin) for _ in range(times)]

    def _start(self, origin: str) -> Connection:
        number, self._count = self._count, self._count + 1
        made = Connection(origin, self.clock.seconds(), lambda: self.dropped.append(number))
        self.queue.start(made, lambda: self.begun.append(number))
        return made

    def suspect(self, origin: str) -> None:
        """Let an origin fail as often as it may."""
        for _ in range(CONNECTIONS_FAILED_PER_MINUTE_MAX):
            self.queue.failed(origin)

    def advance(self, seconds: float) -> None:
        """Let time pass in steps."""
        self.clock.pump([STEP_SECONDS] * round(seconds / STEP_SECONDS))


@pytest.fixture
def port() -> Port:
    """Return a port without handshakes."""
    return Port()


def test_so_many_handshakes_go_on_at_once(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one begins when one of them is complete, or its connection has ended; the oldest first."""
    monkeypatch.setattr(handshake_queue, "HANDSHAKES_MAX", 3)
    made = port.start(GOOD, 6)
    assert port.begun == [0, 1, 2]
    port.queue.ended(made[1])
    port.queue.ended(made[1])
    assert port.begun == [0, 1, 2, 3]
    port.queue.ended(made[4])
    port.queue.ended(made[0])
    assert port.begun == [0, 1, 2, 3, 5] and not port.dropped


def test_a_stalled_handshake_gives_way_to_one_that_waits(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that begins and then says nothing more has a second if others wait, and longer if none does."""
    monkeypatch.setattr(handshake_queue, "HANDSHAKES_MAX", 3)
    port.start(BAD, 3)
    port.advance(10 * STALLED_SECONDS)
    assert not port.dropped
    port.start(GOOD)
    port.advance(STEP_SECONDS)
    assert port.dropped == [0] and port.begun == [0, 1, 2, 3]
    port.start(GOOD, 3)
    port.advance(STEP_SECONDS)
    assert port.dropped == [0, 1, 2] and port.begun == [0, 1, 2, 3, 4, 5]
    port.advance(STALLED_SECONDS - 4 * STEP_SECONDS)
    assert len(port.begun) == 6
    port.advance(5 * STEP_SECONDS)
    assert port.dropped == [0, 1, 2, 3] and len(port.begun) == 7


def test_origins_have_their_turns(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer of another origin does not wait behind all connections of the first one."""
    monkeypatch.setattr(handshake_queue, "HANDSHAKES_MAX", 2)
    made = port.start(BAD, 10) + port.start(GOOD, 2)
    for _ in range(4):
        port.queue.ended(made[port.begun[0]])
        port.queue.ended(made[port.begun[1]])
        del port.begun[:2]
        if {10, 11} & set(port.begun):
            return
    raise AssertionError("the other origin had no turn")


def test_an_origin_that_fails_often_has_a_pace(port: Port) -> None:
    """Within it handshakes begin at once; beyond it the newest come first; other origins have none."""
    port.suspect(BAD)
    made = port.start(BAD, 3 * AT_ONCE)
    assert port.begun == list(range(AT_ONCE))
    port.start(GOOD, 10)
    assert port.begun[AT_ONCE:] == list(range(3 * AT_ONCE, 3 * AT_ONCE + 10))
    port.advance(STEP_SECONDS)
    assert port.begun[AT_ONCE + 10 :] == list(range(3 * AT_ONCE - 1, 2 * AT_ONCE - 1, -1))
    port.queue.ended(made[AT_ONCE])
    port.advance(1.0)
    assert len(port.begun) == 3 * AT_ONCE + 9
    for _ in range(3):
        port.begun.clear()
        port.start(BAD, AT_ONCE)
        assert len(port.begun) == AT_ONCE
        port.advance(STEP_SECONDS)


def test_a_minute_without_failures_ends_the_pace(port: Port) -> None:
    """A failure is not held against an address for longer."""
    port.suspect(BAD)
    port.start(BAD, AT_ONCE + 1)
    assert len(port.begun) == AT_ONCE
    port.advance(MINUTE_SECONDS + 1.0)
    port.start(BAD, 2 * AT_ONCE)
    assert len(port.begun) == 3 * AT_ONCE + 1
