"""The shortest script that still breaks a promise: delta debugging over the actions of a plan (Zeller, 2002)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tests.simulation.plan import Action, Plan

Fails = Callable[[Plan], bool]
PAUSES_TRIED = (0.0, 0.1)
"""Shorter pauses that are tried in place of those that are left."""


def shortest(plan: Plan, fails: Fails, runs_max: int = 400) -> Plan:
    """A plan that `fails` too, from which no action can be left out, as far as `runs_max` runs find out."""
    runs = 0

    def still(actions: tuple[Action, ...]) -> bool:
        nonlocal runs
        runs += 1
        return runs <= runs_max and fails(msgspec.structs.replace(plan, actions=actions))

    actions, parts = plan.actions, 2
    while len(actions) > 1:
        size = -(-len(actions) // parts)
        for start in range(0, len(actions), size):
            left = _without(actions, start, size)
            if still(left):
                actions, parts = left, max(parts - 1, 2)
                break
        else:
            if size == 1 or runs > runs_max:
                break
            parts = min(parts * 2, len(actions))
    for place in range(len(actions)):
        for pause in PAUSES_TRIED:
            action = msgspec.structs.replace(actions[place], pause_seconds=pause)
            tried = (*actions[:place], action, *actions[place + 1 :])
            if actions[place].pause_seconds > pause and still(tried):
                actions = tried
                break
    return msgspec.structs.replace(plan, actions=actions)


def _without(actions: tuple[Action, ...], start: int, size: int) -> tuple[Action, ...]:
    """All but some; the time that they took is kept, by those before them."""
    left = [*actions[:start], *actions[start + size :]]
    if start:
        kept = actions[start - 1].pause_seconds + sum(one.pause_seconds for one in actions[start : start + size])
        left[start - 1] = msgspec.structs.replace(actions[start - 1], pause_seconds=round(kept, 3))
    return tuple(left)
