"""Pace of handshakes: origins whose handshakes fail share a third of a core, and no origin is refused."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from compass.daemons.net import handshake_pace
from compass.daemons.net.handshake_pace import HANDSHAKES_PER_SECOND_MAX, STEP_SECONDS, HandshakePace
from compass.server.sessions.rate_limit import CONNECTIONS_FAILED_PER_MINUTE_MAX, MINUTE_SECONDS

BAD, GOOD = "192.0.2.1", "192.0.2.2"
AT_ONCE = int(HANDSHAKES_PER_SECOND_MAX * STEP_SECONDS)


@pytest.fixture
def pace() -> HandshakePace:
    """Return a pace that has seen as many failures of one origin as it may have."""
    clock: Any = Clock()
    made = HandshakePace(clock)
    for _ in range(CONNECTIONS_FAILED_PER_MINUTE_MAX):
        made.failed(BAD)
    return made


def advance(pace: HandshakePace, seconds: float) -> None:
    clock: Any = pace._clock
    clock.pump([STEP_SECONDS] * round(seconds / STEP_SECONDS))


def test_other_origins_have_no_pace(pace: HandshakePace) -> None:
    """All handshakes of an origin that fails seldom begin at once."""
    begun: list[int] = []
    for number in range(10 * AT_ONCE):
        pace.start(GOOD, lambda number=number: begun.append(number))  # type: ignore[misc]
    assert len(begun) == 10 * AT_ONCE


def test_within_the_pace_handshakes_begin_at_once(pace: HandshakePace) -> None:
    """A peer that can prove itself is not refused for what others of its address do, nor does it wait."""
    begun: list[int] = []
    for number in range(5):
        for _ in range(AT_ONCE):
            pace.start(BAD, lambda number=number: begun.append(number))  # type: ignore[misc]
        assert begun.count(number) == AT_ONCE
        advance(pace, STEP_SECONDS)


def test_beyond_the_pace_they_begin_one_after_another(pace: HandshakePace) -> None:
    """A second begins a number of them, the newest first; a minute without failures ends the pace."""
    begun: list[int] = []
    for number in range(3 * AT_ONCE):
        pace.start(BAD, lambda number=number: begun.append(number))  # type: ignore[misc]
    assert begun == list(range(AT_ONCE))
    advance(pace, STEP_SECONDS)
    assert begun[AT_ONCE:] == list(range(3 * AT_ONCE - 1, 2 * AT_ONCE - 1, -1))
    advance(pace, 1.0)
    assert len(begun) == 3 * AT_ONCE
    advance(pace, MINUTE_SECONDS)
    for number in range(2 * AT_ONCE):
        pace.start(BAD, lambda number=number: begun.append(number))  # type: ignore[misc]
    assert len(begun) == 5 * AT_ONCE


def test_those_that_wait_are_bounded(pace: HandshakePace) -> None:
    """A further one drops the oldest, whose connection ends when its time is over."""
    begun: list[int] = []
    for number in range(AT_ONCE + handshake_pace.WAITING_MAX + 1):
        pace.start(BAD, lambda number=number: begun.append(number))  # type: ignore[misc]
    advance(pace, 60.0)
    assert len(begun) == AT_ONCE + handshake_pace.WAITING_MAX and AT_ONCE not in begun
