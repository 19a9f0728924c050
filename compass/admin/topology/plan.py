"""Plan of the changes that applying a topology makes, from the server's dry run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from compass.admin.shell.build_request import POLICY_FIELDS
from compass.admin.shell.tables import row_kind, row_name
from compass.model.rows import Category, Change, Key, Row, key_of


class Step(msgspec.Struct, frozen=True):
    """Change of one object. `details`: the changed fields, each with its value before and after."""

    action: Literal["add", "set", "remove"]
    kind: str
    name: str
    details: tuple[tuple[str, str, str], ...] = ()


def steps(before: Mapping[str, Category], changes: Iterable[Change]) -> tuple[Step, ...]:
    """Return the steps that `changes` make; `before`: the current categories by name.

    Several changes of one row are one step: the server adds a category first and its backup later.
    """
    last: dict[tuple[type, Key], Change] = {}
    for change in changes:
        last[type(change.row), key_of(change.row)] = change
    found = [_step(before, change) for change in last.values()]
    return tuple(step for step in found if step.action != "set" or step.details)


def _step(before: Mapping[str, Category], change: Change) -> Step:
    row = change.row
    if change.removed:
        return Step("remove", row_kind(row), row_name(row))
    old = before.get(row.name) if isinstance(row, Category) else None
    if old is None:
        return Step("add", row_kind(row), row_name(row), _differences(Category(row_name(row)), row))
    return Step("set", row_kind(row), row_name(row), _differences(old, row))


def _differences(old: Category, row: Row) -> tuple[tuple[str, str, str], ...]:
    if not isinstance(row, Category):
        return ()
    pairs = [("backup", old.backup or "none", row.backup or "none")]
    for field in POLICY_FIELDS:
        pairs.append((field, str(getattr(old.policy, field)), str(getattr(row.policy, field))))
    return tuple(pair for pair in pairs if pair[1] != pair[2])


_SIGNS: dict[str, tuple[str, str]] = {"add": ("+", "green"), "set": ("~", "yellow"), "remove": ("-", "red")}


def plan_lines(planned: Iterable[Step]) -> list[tuple[str, str]]:
    """Format the plan for people: lines, each with its colour."""
    lines: list[tuple[str, str]] = []
    for step in planned:
        sign, colour = _SIGNS[step.action]
        lines.append((f"{sign} {step.kind} {step.name}", colour))
        for field, old, new in step.details:
            lines.append((f"    {field}: {new}" if step.action == "add" else f"    {field}: {old} -> {new}", colour))
    return lines


def plan_summary(planned: Iterable[Step]) -> str:
    """Summarize the plan in one sentence."""
    actions = [step.action for step in planned]
    if not actions:
        return "No changes: the catalogue equals the file."
    counts = ", ".join(f"{actions.count(action)} to {action}" for action in _SIGNS if action in actions)
    return f"{len(actions)} changes: {counts}."


def plan_json(planned: Iterable[Step], revision: int, applied: bool) -> dict[str, Any]:
    """Format the plan for programs. `revision`: that of the catalogue, after the changes if they are applied."""
    return {
        "type": "plan",
        "applied": applied,
        "revision": revision,
        "changes": [
            {
                "action": step.action,
                "kind": step.kind,
                "name": step.name,
                "fields": {field: {"before": old, "after": new} for field, old, new in step.details},
            }
            for step in planned
        ],
    }
