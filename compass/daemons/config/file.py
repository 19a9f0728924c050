"""Configuration file while it is read: its sections as values of their keys, and all problems found so far."""

from __future__ import annotations

import difflib
import shutil
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import msgspec

from compass.daemons.config.fields import description_of
from compass.model.names import InvalidName
from compass.model.text import escape, unprintable_in

CONFIG_OCTETS_MAX = 1024 * 1024
"""Longest configuration file: a page or two is usual; a larger file is something else."""
PROGRAM_TEXTS = frozenset({"command", "check", "reload", "alert_command"})
"""Keys whose texts are arguments of a program, which may have any character, as a script of several lines."""
Text = TypeVar("Text")
Parsed = TypeVar("Parsed")


class ConfigProblem(Exception):
    """All problems of one configuration file."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        super().__init__("\n".join(escape(f"{path}: {problem}") for problem in problems))
        self.problems = problems


class ConfigFile:
    """Configuration file with its sections and the problems found so far."""

    def __init__(self, path: Path, sections: Mapping[str, type[Any]]) -> None:
        """`sections`: every section by name, with the class of its keys. Raises ConfigProblem if it is not TOML."""
        self.path = path
        self.directory = path.absolute().parent
        self.problems: list[str] = []
        self._sections = sections
        self._tables = self._read()
        known = [name for name in sections if "." not in name]
        for name in [name for name in self._tables if name not in known]:
            self.problems.append(f"there is no section [{name}]{near(name, known, '[{}]')}")

    def __contains__(self, name: str) -> bool:
        """Return whether the file has a section of this name."""
        return self._table(name) is not None

    def section(self, name: str) -> dict[str, Any]:
        """Return the values of a section's keys, defaults included, without those that are missing or wrong."""
        table = self._table(name)
        return self._values(name, {} if table is None else table)

    def each(self, name: str) -> list[dict[str, Any]]:
        """Return the values of each section of a name that may be repeated."""
        tables = self._table(name)
        if tables is not None and not isinstance(tables, list):
            self.problems.append(f"[{name}] must be written [[{name}]]: there may be several")
            return []
        return [self._values(name, table) for table in tables or ()]

    def parsed(self, where: str, parse: Callable[[Text], Parsed], text: Text) -> Parsed | None:
        """Return the result of `parse`, or None if the text is wrong."""
        try:
            return parse(text)
        except InvalidName as problem:
            self.problems.append(f"{where}: {problem}")
            return None

    def absolute(self, text: str) -> str:
        """Return a path relative to the directory of the file as an absolute path."""
        return str(self.directory / text)

    def command(self, where: str, command: tuple[str, ...]) -> tuple[str, ...]:
        """Check that the program of a command can be run. Returns the command with an absolute path, if it has one."""
        program = self.absolute(command[0]) if "/" in command[0] else command[0]
        if shutil.which(program) is None:
            self.problems.append(f"{where}: there is no program {program!r}, or it is not executable")
        return (program, *command[1:])

    def finish(self) -> None:
        """Raise ConfigProblem if there are problems."""
        if self.problems:
            raise ConfigProblem(self.path, self.problems)

    def _read(self) -> dict[str, Any]:
        try:
            with self.path.open("rb") as file:
                data = file.read(CONFIG_OCTETS_MAX + 1)
        except OSError as error:
            raise ConfigProblem(self.path, [f"cannot be read: {error.strerror}"]) from None
        if len(data) > CONFIG_OCTETS_MAX:
            raise ConfigProblem(self.path, [f"has more than {CONFIG_OCTETS_MAX} octets; is it the right file?"])
        try:
            return tomllib.loads(data.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise ConfigProblem(self.path, [f"is not TOML: {error}"]) from None

    def _table(self, name: str) -> Any:
        """Return what the file has under a name; None: nothing."""
        outer, _, key = name.rpartition(".")
        table = self._table(outer) if outer else self._tables
        return table.get(key) if isinstance(table, dict) else None

    def _values(self, name: str, table: Any) -> dict[str, Any]:
        if not isinstance(table, dict):
            self.problems.append(f"{name} is a value; it must be a section [{name}]")
            return {}
        kind = self._sections[name]
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        for key in [key for key in table if key not in fields and f"{name}.{key}" not in self._sections]:
            self.problems.append(f"[{name}] has no key {key!r}{near(key, fields, '{!r}')}")
        values: dict[str, Any] = {}
        for key, field in fields.items():
            if key in table:
                try:
                    values[key] = _converted(table[key], field.type, key in PROGRAM_TEXTS)
                except ValueError as error:
                    self.problems.append(f"[{name}] {key}: {error}")
            elif field.required:
                self.problems.append(f"[{name}] needs {key}: {description_of(kind, key)}")
            elif field.default is not msgspec.NODEFAULT:
                values[key] = field.default
        return values


def _converted(value: object, kind: Any, is_for_program: bool) -> Any:
    """Return `value` as the type of a key. Raises ValueError, which says what is allowed."""
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    choices = get_args(plain) if get_origin(plain) is Literal else ()
    if choices and value not in choices:
        raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
    words = [word for other in get_args(plain) if get_origin(other) is Literal for word in get_args(other)]
    if isinstance(value, str) and words and value not in words:
        raise ValueError(f"{value!r} is neither a number nor {' or '.join(words)}")
    converted = msgspec.convert(value, kind)
    texts = converted if isinstance(converted, tuple) else (converted,)
    for text in texts:
        if not isinstance(text, str):
            continue
        if "\0" in text:
            raise ValueError("contains a NUL character")
        if (found := unprintable_in(text)) and not is_for_program:
            raise ValueError(f"contains the character {found}, which cannot be printed")
    return converted


def near(name: str, known: Iterable[str], form: str) -> str:
    """Return a suggestion of the nearest known name for the end of a sentence; empty if none is near."""
    found = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {form.format(found[0])}?" if found else ""
