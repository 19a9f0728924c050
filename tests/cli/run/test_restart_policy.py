"""Restart policy: when an ended command is restarted."""

from __future__ import annotations

import pytest

from compass.cli.run.restart_policy import FIRST_SECONDS, LONGEST_SECONDS, STABLE_SECONDS, Policy, RestartCounter
from compass.model.exit_codes import ExitCode


@pytest.mark.parametrize(
    ("policy", "status", "refused", "again"),
    [
        ("no", 1, False, False),
        ("on-failure", 0, False, False),
        ("on-failure", 1, False, True),
        ("on-failure", 137, False, True),
        ("always", 0, False, True),
        ("always", ExitCode.NOT_ALLOWED, True, False),
        ("always", ExitCode.NOT_ALLOWED, False, True),
        ("always", ExitCode.NOT_LISTENING, True, True),
    ],
)
def test_the_policy_and_a_refusal_decide(policy: Policy, status: int, refused: bool, again: bool) -> None:
    """A registration that is refused for good is refused the next time, too; 4 may also be the command's own status."""
    assert (RestartCounter(policy, 0).pause(status, 1.0, refused=refused) is not None) == again


def test_the_pauses_grow_and_a_stable_run_resets_them() -> None:
    """The pause doubles from half a second to the longest; a stable run resets it."""
    restarts = RestartCounter("always", 0)
    pauses = [restarts.pause(1, 0.1, refused=False) for _ in range(12)]
    assert pauses[:3] == [FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS]
    assert pauses[-1] == LONGEST_SECONDS
    assert restarts.pause(1, STABLE_SECONDS, refused=False) == FIRST_SECONDS


def test_after_the_limit_it_stays_ended() -> None:
    """n new starts, and not n + 1."""
    restarts = RestartCounter("on-failure", 3)
    assert all(restarts.pause(1, 0.1, refused=False) is not None for _ in range(3))
    assert restarts.pause(1, 0.1, refused=False) is None
    assert restarts.exhausted
