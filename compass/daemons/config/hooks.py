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

REACTION_DESCRIPTIONS = {
    "hook.on": "Categories and services: when what is to be known of one of them changes, the command is run.",
    "hook.command": "Program and arguments. It finds JSON on its standard input and a summary in OPENGNS_… variables.",
    "hook.name": "What it is called in `opengnsc status` and in the log; empty: like its program.",
    "hook.quiet_seconds": "How long nothing may have changed before it runs, so that many changes are one run.",
    "hook.quiet_seconds_max": "How long a change waits for that at most.",
    "hook.timeout_seconds": "A command that takes longer is ended, with all it has started.",
    "template.on": "Categories and services that the file is made of.",
    "template.source": "The Jinja2 template: a path, or ready:NAME for one that comes with compass "
    "(`opengnsc template list`).",
    "template.target": "The file that is written. It is replaced whole or not at all.",
    "template.name": "What it is called in `opengnsc status` and in the log; empty: like the file.",
    "template.mode": "The file's permissions, octal.",
    "template.check": "Program and arguments that look at the new file, {file}, before it gets its place; a "
    "status other than 0 keeps it out. Empty: nobody looks.",
    "template.reload": "Program and arguments that make a program read the file anew, run only when it differs. When "
    "it fails the old file is put back, and it is run once more. Empty: nobody needs to be told.",
    "template.values": "What the template finds in `values`, as text.",
    "template.quiet_seconds": "As in [[host.hook]].",
    "template.quiet_seconds_max": "As in [[host.hook]].",
    "template.timeout_seconds": "Of each of the commands.",
}
REACTION_EXAMPLES: dict[str, str | list[str]] = {
    "hook.on": ["openuss"],
    "hook.command": ["/usr/local/bin/on-change"],
    "template.on": ["openuss"],
    "template.source": "ready:haproxy",
    "template.target": "/etc/haproxy/haproxy.cfg",
}


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
