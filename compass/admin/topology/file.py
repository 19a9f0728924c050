"""Topology files: the declared part of a catalogue (categories, services, dependencies) as TOML.

    [category.web]
    depends_on = ["openuss"]
    services = ["portal"]

    [category.openuss]
    services = ["northeast"]
    backup = "emergency.rescue"
    probe = "http:/health"

A file is self-contained: it declares everything that it refers to. `parse` reports all mistakes at once, each with its
line, and stores each row's line, so that problems found by the server are reported in the same form. `dump` is the
inverse.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import msgspec

from compass.admin.shell.build_request import POLICY_FIELDS
from compass.model.names import InvalidName, parse_label, parse_service_id
from compass.model.replies import Problem
from compass.model.requests import Apply
from compass.model.rows import Category, Dependency, Policy, Service
from compass.model.rules.draft import Refused
from compass.model.rules.validation import parse_declared
from compass.wire.limits import FRAME_MAX_FROM_ADMIN
from compass.wire.messages import encode

TOPOLOGY_MAX = FRAME_MAX_FROM_ADMIN
"""Greatest size of a topology file in octets: its rows must fit into one request and are not smaller than the text."""
KEYS: tuple[str, ...] = ("depends_on", "services", "backup", *POLICY_FIELDS)
"""Keys of a category."""

Declared: TypeAlias = Category | Service | Dependency


class Mistake(msgspec.Struct, frozen=True, order=True):
    """Mistake in a file, with its line."""

    line: int
    message: str


class TopologyProblem(Exception):
    """An invalid topology, with all mistakes in the order of their lines."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(sorted(set(mistakes)))
        super().__init__("\n".join(f"line {mistake.line}: {mistake.message}" for mistake in self.mistakes))


class Topology(msgspec.Struct, frozen=True):
    """Rows of a file in its order, and the line of each."""

    rows: tuple[Declared, ...]
    lines: tuple[int, ...]


class _Header(msgspec.Struct, frozen=True):
    path: tuple[str, ...]
    line: int


class Locator:
    """Line numbers of tables and keys in a TOML text, which tomllib does not provide.

    They are found line by line, so a header or a key within a multi-line string can cause a wrong line number, but
    never a wrong value.
    """

    _HEADER = re.compile(r"\s*\[[^\[\]]+\]\s*(#.*)?")
    _KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")

    def __init__(self, text: str) -> None:
        self._text = text.splitlines()
        self._found: list[_Header] = []
        table: tuple[str, ...] = ()
        for number, line in enumerate(self._text, 1):
            if self._HEADER.fullmatch(line):
                table = _path_of(line)
                self._found.append(_Header(table, number))
            elif key := self._KEY.match(line):
                self._found.append(_Header((*table, *_path_of(f"{key[1]} = 0")), number))

    def line(self, *path: str, item: str | None = None) -> int:
        """Return the line of a table or key, or of the nearest enclosing one; with `item`, of that string in it."""
        for length in range(len(path), 0, -1):
            for index, entry in enumerate(self._found):
                if entry.path[:length] == path[:length]:
                    return self._item_line(index, item) if item is not None else entry.line
        return 1

    def _item_line(self, index: int, item: str) -> int:
        start = self._found[index].line
        end = self._found[index + 1].line if index + 1 < len(self._found) else len(self._text) + 1
        quoted = (json.dumps(item, ensure_ascii=False), f"'{item}'")
        for number in range(start, end):
            if any(text in self._text[number - 1] for text in quoted):
                return number
        return start


def _path_of(line: str) -> tuple[str, ...]:
    try:
        value: Any = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return ()
    path = []
    while isinstance(value, dict) and value:
        key = next(iter(value))
        path.append(key)
        value = value[key]
    return tuple(path)


def parse(text: str) -> Topology:
    """Parse a topology file. Raises TopologyProblem with all mistakes."""
    return _Parser(text).topology()


class _Parser:
    """Parser of one file: its rows, declared names and mistakes."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.where = Locator(text)
        self.mistakes: list[Mistake] = []
        self.rows: list[tuple[Declared, int]] = []
        self.categories: dict[str, int] = {}
        self.services: dict[str, int] = {}

    def topology(self) -> Topology:
        tables = self._tables()
        for name, table in tables.items():
            self._category(name, table)
        for row, line in self.rows:
            self._check_references(row, line)
        if not self.rows and not self.mistakes:
            self._wrong(1, "no category is declared; write [category.NAME]")
        if self.mistakes:
            raise TopologyProblem(self.mistakes)
        rows = tuple(row for row, _ in self.rows)
        size = len(encode(Apply(rows)))
        if size > TOPOLOGY_MAX:
            big = f"the topology makes a request of {size} octets; the limit is {TOPOLOGY_MAX}"
            raise TopologyProblem([Mistake(1, f"{big}: apply it in parts, without --prune")])
        return Topology(rows, tuple(line for _, line in self.rows))

    def _wrong(self, line: int, message: str) -> None:
        self.mistakes.append(Mistake(line, message))

    def _wrong_key(self, category: str, key: str, message: str) -> None:
        self._wrong(self.where.line("category", category, key), message)

    def _tables(self) -> dict[str, Any]:
        try:
            document = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            at = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
            line = int(at[1]) if at else self.text.count("\n") + 1
            raise TopologyProblem([Mistake(line, f"not TOML: {error}")]) from None
        except RecursionError:
            raise TopologyProblem([Mistake(1, "not a topology: nested too deeply")]) from None
        for key in document.keys() - {"category"}:
            self._wrong(self.where.line(key), f"unknown key {key!r}; a topology has [category.NAME] tables only")
        tables = document.get("category", {})
        if not isinstance(tables, dict):
            self._wrong(self.where.line("category"), "category must be a table: write [category.NAME]")
            return {}
        return tables

    def _category(self, key: str, table: Any) -> None:
        line = self.where.line("category", key)
        try:
            name = parse_label(key, "category")
        except InvalidName as problem:
            return self._wrong(line, str(problem))
        if name in self.categories:
            return self._wrong(line, f"category {name!r} is declared twice, first in line {self.categories[name]}")
        self.categories[name] = line
        if not isinstance(table, dict):
            return self._wrong(line, f"category {name!r} must be a table: write [category.{name}]")
        for unknown in table.keys() - set(KEYS):
            why = f"unknown key {unknown!r} in category {name!r}; valid keys: {', '.join(KEYS)}"
            self._wrong_key(key, unknown, why)
        policy = self._policy(key, table)
        self._check_pools(key, policy, table.get("services", []))
        backup = self._backup(key, table)
        self.rows.append((Category(name, backup, policy), line))
        for label, at in self._labels(key, table, "services", "service"):
            self.services[f"{label}.{name}"] = at
            self.rows.append((Service(f"{label}.{name}"), at))
        for label, at in self._labels(key, table, "depends_on", "category"):
            self.rows.append((Dependency(name, label), at))

    def _backup(self, key: str, table: dict[str, Any]) -> str:
        backup = table.get("backup", "")
        if not isinstance(backup, str):
            self._wrong_key(key, "backup", "backup must be a string: the id of a service")
            return ""
        try:
            return parse_service_id(backup) if backup else ""
        except InvalidName as problem:
            self._wrong_key(key, "backup", f"backup: {problem}")
            return ""

    def _policy(self, key: str, table: dict[str, Any]) -> Policy:
        """Parse the policy, field by field, so that all mistakes are reported."""
        good: dict[str, Any] = {}
        for field in POLICY_FIELDS:
            if field not in table:
                continue
            try:
                value = msgspec.convert({field: table[field]}, Policy)
                parse_declared(Category("x", policy=value))
            except msgspec.ValidationError as error:
                why = str(error).partition(" - at")[0]
                self._wrong_key(key, field, f"{field}: {why}")
            except Refused as refused:
                self._wrong_key(key, field, refused.refusal.message)
            else:
                good[field] = getattr(value, field)
        return Policy(**good)

    def _check_pools(self, key: str, policy: Policy, services: Any) -> None:
        """Report pool policies of undeclared services, which are probably misspelt."""
        known = services if isinstance(services, list) else []
        for label in policy.pools.keys() - {value.lower() for value in known if isinstance(value, str)}:
            self._wrong_key(key, "pools", f"pools: {label!r} is not among the services")

    def _labels(self, key: str, table: dict[str, Any], field: str, what: str) -> list[tuple[str, int]]:
        """Return the names in a list, each with its line."""
        found: dict[str, int] = {}
        values = table.get(field, [])
        if not isinstance(values, list):
            self._wrong_key(key, field, f"{field} must be a list of strings")
            return []
        for value in values:
            if not isinstance(value, str):
                self._wrong_key(key, field, f"{field} must be a list of strings; {value!r} is not a string")
                continue
            at = self.where.line("category", key, field, item=value)
            try:
                label = parse_label(value, what)
            except InvalidName as problem:
                hint = "; write only the part before the dot" if what == "service" and "." in value else ""
                self._wrong(at, f"{field}: {problem}{hint}")
                continue
            if label in found:
                self._wrong(at, f"{field}: {label!r} is listed twice")
            found.setdefault(label, at)
        return list(found.items())

    def _check_references(self, row: Declared, line: int) -> None:
        match row:
            case Dependency(category=category, on=on) if on not in self.categories:
                self._wrong(line, f"{category} depends on {on!r}, which this file does not declare")
            case Category(name=name, backup=backup) if backup and backup not in self.services:
                self._wrong_key(name, "backup", f"the backup service {backup!r} of {name} is not declared in this file")


def locate_problems(topology: Topology, problems: Iterable[Problem]) -> tuple[Mistake, ...]:
    """Map the server's problems with rows to mistakes at the lines of these rows."""
    return tuple(
        Mistake(topology.lines[problem.index] if 0 <= problem.index < len(topology.lines) else 1, problem.message)
        for problem in problems
    )


def dump(rows: Sequence[Declared]) -> str:
    """Return the text of a topology file with these rows, which does not depend on their order."""
    services: dict[str, list[str]] = {}
    needs: dict[str, list[str]] = {}
    for row in rows:
        if isinstance(row, Service):
            service, _, category = row.id.partition(".")
            services.setdefault(category, []).append(service)
        elif isinstance(row, Dependency):
            needs.setdefault(row.category, []).append(row.on)
    categories = sorted((row for row in rows if isinstance(row, Category)), key=lambda row: row.name)
    return "\n".join(_table(row, services.get(row.name, []), needs.get(row.name, [])) for row in categories)


def _table(row: Category, services: list[str], needs: list[str]) -> str:
    lines = [f"[category.{row.name}]"]
    if needs:
        lines.append(f"depends_on = {_list(needs)}")
    if services:
        lines.append(f"services = {_list(services)}")
    if row.backup:
        lines.append(f"backup = {json.dumps(row.backup)}")
    for field in POLICY_FIELDS:
        value = getattr(row.policy, field)
        if value != getattr(Policy(), field):
            lines.append(f"{field} = {_value(value)}")
    return "\n".join([*lines, ""])


def _value(value: Any) -> str:
    """Format a TOML value. JSON strings and numbers are valid TOML, because the model allows printable ASCII only."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {json.dumps(value[name])}" for name in sorted(value)) + " }"
    return json.dumps(value)


def _list(names: list[str]) -> str:
    return (
        json.dumps(sorted(names)) if len(names) < 8 else "[\n" + "".join(f'    "{n}",\n' for n in sorted(names)) + "]"
    )
