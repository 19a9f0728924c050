"""Python sources as the gauges read them: files, docstrings, comments, other strings, lines of code.

A gauge works on whatever lies below a folder and knows no module by name, so that it measures two trees alike.
"""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).parents[2]
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
Documented: TypeAlias = ast.Module | ast.ClassDef | Function
LAYOUT = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER, tokenize.COMMENT}


@dataclass(frozen=True)
class Text:
    """A piece of prose and its first line."""

    line: int
    text: str
    kind: str
    """module, class, function or attribute for a docstring; comment; string."""


class Source:
    """One file."""

    def __init__(self, path: Path, root: Path = ROOT) -> None:
        self.path = path
        self.name = path.relative_to(root).as_posix()
        self.text = path.read_text("utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed file."""
        return ast.parse(self.text)

    @cached_property
    def docstrings(self) -> list[Text]:
        """Those of modules, classes, functions, and of attributes: a string that follows an assignment."""
        return [Text(node.lineno, str(node.value), kind) for node, kind in self._documented]

    @cached_property
    def docstring_lines(self) -> set[int]:
        """Numbers of the lines that docstrings occupy."""
        found = [node for node, _ in self._documented]
        return {line for node in found for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}

    @cached_property
    def comments(self) -> list[Text]:
        """The text of each comment, without its marks. Comments that only steer a tool are left out."""
        found = [token for token in self._tokens if token.type == tokenize.COMMENT]
        texts = [Text(token.start[0], token.string.lstrip("#!: "), "comment") for token in found]
        return [one for one in texts if not one.text.startswith(("noqa", "type:", "pragma", "fmt:", "mypy:"))]

    @cached_property
    def strings(self) -> list[Text]:
        """All other literals; of a formatted one its constant parts, joined."""
        documented = {id(node) for node, _ in self._documented}
        return [Text(node.lineno, text, "string") for node, text in _strings(self.tree) if id(node) not in documented]

    @cached_property
    def functions(self) -> list[Function]:
        """Every function and method."""
        return [node for node in ast.walk(self.tree) if isinstance(node, Function)]

    @cached_property
    def code_lines(self) -> int:
        """Lines with code on them: neither empty, nor comment, nor docstring."""
        lines: set[int] = set()
        for token in self._tokens:
            if token.type not in LAYOUT:
                lines.update(range(token.start[0], token.end[0] + 1))
        return len(lines - self.docstring_lines)

    @cached_property
    def lines(self) -> int:
        """All lines."""
        return len(self.text.splitlines())

    @cached_property
    def _documented(self) -> list[tuple[ast.Constant, str]]:
        return list(_docstrings(self.tree))

    @cached_property
    def _tokens(self) -> list[tokenize.TokenInfo]:
        return list(tokenize.generate_tokens(StringIO(self.text).readline))


def sources(folder: Path, without: str = "") -> list[Source]:
    """Every Python file below a folder, in the order of their names; without the subfolder of that name."""
    paths = sorted(path for path in folder.rglob("*.py") if without not in path.relative_to(folder).parts)
    return [Source(path, folder.parent) for path in paths]


def _docstrings(tree: ast.Module) -> Iterator[tuple[ast.Constant, str]]:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        for position, statement in enumerate(body):
            literal = _literal(statement)
            if literal is None:
                continue
            if position == 0 and isinstance(node, Documented):
                yield literal, _kind(node)
            elif position and isinstance(body[position - 1], ast.Assign | ast.AnnAssign):
                yield literal, "attribute"


def _literal(statement: ast.AST) -> ast.Constant | None:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def _kind(node: Documented) -> str:
    if isinstance(node, Function):
        return "function"
    return "class" if isinstance(node, ast.ClassDef) else "module"


def _strings(node: ast.AST) -> Iterator[tuple[ast.Constant | ast.JoinedStr, str]]:
    if isinstance(node, ast.JoinedStr):
        yield node, "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        for part in node.values:
            if not isinstance(part, ast.Constant):
                yield from _strings(part)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node, node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from _strings(child)
