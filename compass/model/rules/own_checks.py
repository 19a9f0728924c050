"""Checks that a host makes of its own listeners: what their results do to the state of a listener.

A server's probe sees that a port accepts connections; the host's own check sees whether the service works. So a check
that fails makes a listener `suspect`, no probe brings it back, and the first success does. A probe that fails as well
makes it `down`, like every suspect listener. A listener that is `down` when its check passes again is probed.
"""

from __future__ import annotations

import msgspec

from compass.model.limits import CHECK_MAX, DETAIL_MAX
from compass.model.requests import Register
from compass.model.rows import FAILING, Listener
from compass.model.rules.draft import refuse
from compass.model.text import escape_line

FAILED = "its own check failed: "
PASSES = "its own check passes again"
CHECK_FAILED = "check-failed"
CHECK_PASSED = "check-passed"


def check_texts(request: Register) -> None:
    """Check the texts of a host's own check. Raises Refused."""
    for name, text, most in (("check", request.check, CHECK_MAX), ("failing", request.failing, DETAIL_MAX)):
        if len(text) > most:
            refuse("bad-value", f"{name} has {len(text)} characters; at most {most}")
    if request.failing and not request.check:
        refuse("bad-value", "failing without check: a problem needs the check that found it")


def apply_own_check(row: Listener, old: Listener | None, now: float) -> Listener:
    """Return a registered row with the state that its own check leaves it. `old`: the row of the same instance."""
    if not row.check and (old is None or not old.failing):
        return row
    checked_at = now if row.check else 0.0
    if old is not None and row.check and (old.check, bool(old.failing)) == (row.check, bool(row.failing)):
        checked_at = old.checked_at
    row = msgspec.structs.replace(row, checked_at=checked_at)
    drains = row.draining or row.state == "draining"
    if row.failing and row.state not in FAILING:
        cause = escape_line(FAILED + row.failing, DETAIL_MAX)
        return msgspec.structs.replace(row, state="suspect", changed_at=now, cause=cause, draining=drains)
    if old is not None and old.failing and not row.failing and row.state == "suspect":
        return msgspec.structs.replace(row, state="draining" if drains else "up", changed_at=now, cause=PASSES)
    return row


def operation_of(old: Listener | None, row: Listener) -> str:
    """Return the operation of a registration. `old`: the row of the same instance."""
    if old is None or bool(old.failing) == bool(row.failing):
        return "register"
    return CHECK_FAILED if row.failing else CHECK_PASSED


def answered(old: Listener, cause: str, now: float) -> Listener:
    """Return the row of a listener whose own check fails, after it has answered a probe: `suspect` at best."""
    if old.state != "down":
        return old
    text = escape_line(f"{cause}, but {FAILED}{old.failing}", DETAIL_MAX)
    return msgspec.structs.replace(old, state="suspect", changed_at=now, cause=text)


class CheckResults:
    """Results of one check: whether it fails. `failing`: the problem as it stands, if it failed before."""

    def __init__(self, failures: int, failing: str = "") -> None:
        self.failing = failing
        self.in_a_row = 0
        """Failures since the last success."""
        self.last = ""
        """Problem of the last check; empty: it passed, or there was none."""
        self._failures = failures

    def note(self, problem: str) -> bool:
        """Record a result; empty: the check passed. Returns whether `failing` has changed."""
        self.last = problem
        self.in_a_row = self.in_a_row + 1 if problem else 0
        before = self.failing
        if not problem:
            self.failing = ""
        elif not before and self.in_a_row >= self._failures:
            self.failing = problem
        return self.failing != before
