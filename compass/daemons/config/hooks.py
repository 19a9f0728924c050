"""The sections [[host.hook]] and [[host.template]]: what their keys mean, and what can be wrong with them."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from compass.agent.hooks.runner import REACTIONS_MAX
from compass.model.names import parse_label, parse_service_id
from compass.templates import READY, ready_names


class ConfigReader(Protocol):
    """The file being read (`compass.daemons.config.reader`)."""

    problems: list[str]

    def parsed(self, where: str, parse: Callable[[str], Any], text: str) -> Any | None:
        """What `parse` makes of it, or None when it is wrong."""

    def absolute(self, text: str) -> str:
        """A path that does not depend on where the daemon was started."""

    def near(self, name: str, known: Any, form: str) -> str:
        """The one that was probably meant, for the end of a sentence."""


def hook(reading: ConfigReader, values: dict[str, Any]) -> dict[str, Any]:
    """The values of a [[host.hook]], with what is wrong with them told."""
    return _reaction(reading, "hook", values, ("command",), ("command",))


def template(reading: ConfigReader, values: dict[str, Any]) -> dict[str, Any]:
    """The values of a [[host.template]], with what is wrong with them told."""
    values = _reaction(reading, "template", values, ("check", "reload"), ())
    source = values.get("source", "")
    if source.startswith(READY):
        if source.removeprefix(READY) not in ready_names():
            near = reading.near(source.removeprefix(READY), ready_names(), READY + "{}")
            reading.problems.append(f"[host.template] source: there is no {source}{near}")
    elif source:
        values["source"] = reading.absolute(source)
        if not Path(values["source"]).is_file():
            reading.problems.append(f"[host.template] source: there is no file {values['source']}")
    if "target" in values:
        values["target"] = target = reading.absolute(values["target"])
        if not Path(target).parent.is_dir():
            reading.problems.append(f"[host.template] target: there is no directory {Path(target).parent}")
    mode = values.get("mode", "0644")
    if not re.fullmatch("0?[0-7]{3}", mode):
        reading.problems.append(f"[host.template] mode: {mode!r} is not octal; usual are 0644 and 0600")
    return values


def _reaction(
    reading: ConfigReader, kind: str, values: dict[str, Any], commands: tuple[str, ...], needed: tuple[str, ...]
) -> dict[str, Any]:
    """What hooks and templates have in common: names to look at, commands that can be run, and two times."""
    where = f"[host.{kind}]"
    if values.get("on") == ():
        reading.problems.append(f"{where} on is empty: nothing would ever happen")
    names = [reading.parsed(f"{where} on", _pool_name, text) for text in values.get("on", ())]
    values["on"] = tuple(dict.fromkeys(name for name in names if name is not None))
    for key in commands:
        command = values.get(key)
        if command:
            program = reading.absolute(command[0]) if "/" in command[0] else command[0]
            if shutil.which(program) is None:
                reading.problems.append(f"{where} {key}: there is no program {program!r}, or it may not be run")
            values[key] = (program, *command[1:])
        elif key in needed and command is not None:
            reading.problems.append(f"{where} {key} is empty: there is nothing to run")
    if values.get("quiet_seconds", 0.0) > values.get("quiet_seconds_max", float("inf")):
        reading.problems.append(f"{where} quiet_seconds is more than quiet_seconds_max")
    return values


def _pool_name(text: str) -> str:
    return parse_service_id(text) if "." in text else parse_label(text, "category")


def check_reactions(reading: ConfigReader, hooks: list[dict[str, Any]], templates: list[dict[str, Any]]) -> None:
    if len(hooks) + len(templates) > REACTIONS_MAX:
        reading.problems.append(f"{len(hooks) + len(templates)} hooks and templates; at most {REACTIONS_MAX}")
    for target, times in Counter(values.get("target") for values in templates).items():
        if target and times > 1:
            reading.problems.append(f"[host.template] target: {times} templates would write {target}")
