"""Restart policy of `opengnsc run`: whether an ended command is restarted, and when. Pure."""

from __future__ import annotations

from typing import Literal

from compass.model.backoff import doubled_seconds
from compass.model.exit_codes import ExitCode

Policy = Literal["no", "on-failure", "always"]

FIRST_SECONDS = 0.5
"""Seconds before the first restart; the pause doubles with each further one."""
LONGEST_SECONDS = 30.0
"""Longest pause in seconds: a command that cannot start is tried twice a minute, which is no load."""
STABLE_SECONDS = 60.0
"""Seconds of running after which the counter is reset: the start has succeeded."""
FINAL_STATUSES = frozenset(
    {ExitCode.NOT_ALLOWED, ExitCode.NOT_FOUND, ExitCode.CONFLICT, ExitCode.BAD_INPUT, ExitCode.MISUNDERSTOOD}
)
"""Exit statuses of a refused registration that a restart does not change."""


class RestartCounter:
    """Counter of one command's restarts. `limit`: restarts in a row; 0: unlimited."""

    def __init__(self, policy: Policy, limit: int) -> None:
        self._policy = policy
        self._limit = limit
        self._restarts = 0

    def pause(self, status: int, ran_seconds: float, *, refused: bool) -> float | None:
        """Return the seconds until the next start, after an end without a stop signal; None: no restart.

        `refused`: the status is that of the refused registration, not the command's own.
        """
        if (
            self._policy == "no"
            or (self._policy == "on-failure" and status == 0)
            or (refused and status in FINAL_STATUSES)
        ):
            return None
        if ran_seconds >= STABLE_SECONDS:
            self._restarts = 0
        if self._limit and self._restarts >= self._limit:
            return None
        self._restarts += 1
        return doubled_seconds(self._restarts - 1, FIRST_SECONDS, LONGEST_SECONDS)

    @property
    def exhausted(self) -> bool:
        """True once the limit is reached."""
        return bool(self._limit) and self._restarts >= self._limit
