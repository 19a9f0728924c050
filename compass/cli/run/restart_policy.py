"""Whether `opengnsc run` starts a command again that has ended, and when. Pure."""

from __future__ import annotations

from typing import Literal

from compass.model.backoff import doubled_seconds
from compass.model.exit_codes import ExitCode

Policy = Literal["no", "on-failure", "always"]

FIRST_SECONDS = 0.5
"""Before the first new start; it doubles from one to the next."""
LONGEST_SECONDS = 30.0
"""A command that cannot start is tried twice a minute: often enough for whoever mends it, and no load."""
STABLE_SECONDS = 60.0
"""A command that ran for so long was no failed start: the count begins anew."""
FINAL_STATUSES = frozenset(
    {ExitCode.NOT_ALLOWED, ExitCode.NOT_FOUND, ExitCode.CONFLICT, ExitCode.BAD_INPUT, ExitCode.MISUNDERSTOOD}
)
"""Verdicts about the registration that a new start does not change."""


class RestartCounter:
    """Counts the starts of one command. `limit`: new starts in a row; 0: without end."""

    def __init__(self, policy: Policy, limit: int) -> None:
        self._policy = policy
        self._limit = limit
        self._restarts = 0

    def pause(self, status: int, ran_seconds: float, *, refused: bool) -> float | None:
        """Seconds until the next start after an end that nobody asked for; None: it stays ended.

        `refused`: the status is a verdict about its registration, not the command's own.
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
        """Whether the limit, and nothing else, ended it."""
        return bool(self._limit) and self._restarts >= self._limit
