"""Sections [[host.hook]] and [[host.template]]: the checks of their values."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from compass.agent.hooks.runner import REACTIONS_MAX
from compass.daemons.config.file import ConfigFile, near
from compass.model.names import parse_pool_name
from compass.templates import READY, ready_names


def read_hook(reader: ConfigFile, values: dict[str, Any]) -> dict[str, Any]:
    """Check the values of a [[host.hook]]. Returns the values with absolute paths."""
    return _read_common(reader, "hook", values, ("command",), ("command",))


def read_template(reader: ConfigFile, values: dict[str, Any]) -> dict[str, Any]:
    """Check the values of a [[host.template]]. Returns the values with absolute paths."""
    values = _read_common(reader, "template", values, ("check", "reload"), ())
    source = values.get("source", "")
    if source.startswith(READY):
        if source.removeprefix(READY) not in ready_names():
            hint = near(source.removeprefix(READY), ready_names(), READY + "{}")
            reader.problems.append(f"[host.template] source: there is no {source}{hint}")
    elif source:
        values["source"] = reader.absolute(source)
        if not Path(values["source"]).is_file():
            reader.problems.append(f"[host.template] source: there is no file {values['source']}")
    if "target" in values:
        values["target"] = target = reader.absolute(values["target"])
        if not Path(target).parent.is_dir():
            reader.problems.append(f"[host.template] target: there is no directory {Path(target).parent}")
    mode = values.get("mode", "")
    if mode and not re.fullmatch("0?[0-7]{3}", mode):
        reader.problems.append(f"[host.template] mode: {mode!r} is not octal; usual are 0644 and 0600")
    return values


def check_together(reader: ConfigFile, hooks: list[dict[str, Any]], templates: list[dict[str, Any]]) -> None:
    """Check all hooks and templates together: their number, and the files that templates write."""
    if len(hooks) + len(templates) > REACTIONS_MAX:
        reader.problems.append(f"{len(hooks) + len(templates)} hooks and templates; at most {REACTIONS_MAX}")
    for target, times in Counter(values.get("target") for values in templates).items():
        if target and times > 1:
            reader.problems.append(f"[host.template] target: {times} templates would write {target}")


def _read_common(
    reader: ConfigFile, kind: str, values: dict[str, Any], commands: tuple[str, ...], needed: tuple[str, ...]
) -> dict[str, Any]:
    """Check what hooks and templates have in common: watched names, commands, and the two delays."""
    where = f"[host.{kind}]"
    if values.get("on") == ():
        reader.problems.append(f"{where} on is empty: nothing would ever run")
    names = [reader.parsed(f"{where} on", parse_pool_name, text) for text in values.get("on", ())]
    values["on"] = tuple(dict.fromkeys(name for name in names if name is not None))
    for key in commands:
        command = values.get(key)
        if command:
            values[key] = reader.command(f"{where} {key}", command)
        elif key in needed and command is not None:
            reader.problems.append(f"{where} {key} is empty: there is nothing to run")
    if values.get("quiet_seconds", 0.0) > values.get("quiet_seconds_max", float("inf")):
        reader.problems.append(f"{where} quiet_seconds is more than quiet_seconds_max")
    return values
