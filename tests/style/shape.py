"""The shape of the sources below compass/, counted: `make shape` prints each figure beside its limit."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from tests.style.sources import ROOT, Function, Source, sources

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50
"""Of a function without its docstring."""
ARGUMENTS_MAX = 6
"""Of a constructor, without `self`. What needs more takes one struct of dependencies."""
CALLABLES_PERCENT_MAX = 3.4
"""Share of the arguments of constructors that are callables, which may only fall; the goal is 6."""
MODULES_MAX = 13
"""In one folder, without `__init__`."""
BEFORE = {
    "lines": "35570",
    "lines of code": "24463",
    "files": "231",
    "longest file": "570",
    "longest function": "61",
    "functions too long": "4 of 2512",
    "constructors": "192",
    "most arguments": "11",
    "constructors with more than 6 arguments": "7",
    "arguments that are callables": "114 of 505",
    "of them written as Callable": "88 of 505",
    "fullest folder": "34",
}
"""The figures of commit 5213447, before the tree of today."""
Name: TypeAlias = tuple[str, str]
"""Module and name in it."""


@dataclass(frozen=True)
class Constructor:
    """An explicit `__init__`."""

    where: str
    arguments: int
    callables: int
    """Arguments with a callable in their annotation, under whatever name."""
    written_out: int
    """Of these, the ones that are spelled `Callable`."""

    def __str__(self) -> str:
        return f"{self.where}: {self.arguments} arguments, {self.callables} of them callables"


class Shape:
    """Everything that is counted of the sources below one folder."""

    def __init__(self, folder: Path = ROOT / "compass") -> None:
        self.files = sources(folder)

    @property
    def lines(self) -> int:
        """All lines."""
        return sum(source.lines for source in self.files)

    @property
    def code_lines(self) -> int:
        """Lines with code: neither empty, nor comment, nor docstring."""
        return sum(source.code_lines for source in self.files)

    @cached_property
    def functions(self) -> list[tuple[str, int]]:
        """Where each function is, and how many lines it has without its docstring."""
        return [
            (f"{source.name}:{function.lineno} {function.name}", function_lines(function))
            for source in self.files
            for function in source.functions
        ]

    @cached_property
    def constructors(self) -> list[Constructor]:
        """Each explicit `__init__` of a class."""
        known = Callables(self.files)
        found = [(source, *one) for source in self.files for one in _constructors(source)]
        return [known.constructor(source, owner, init) for source, owner, init in found]

    @cached_property
    def modules(self) -> Counter[str]:
        """Number of modules in each folder, without `__init__`."""
        return Counter(str(Path(source.name).parent) for source in self.files if source.path.stem != "__init__")

    def figures(self) -> dict[str, str]:
        """What `make shape` prints."""
        arguments = sum(one.arguments for one in self.constructors)
        callables = sum(one.callables for one in self.constructors)
        too_long = sum(lines > FUNCTION_LINES_MAX for _, lines in self.functions)
        return {
            "lines": str(self.lines),
            "lines of code": str(self.code_lines),
            "files": str(len(self.files)),
            "longest file": str(max(source.lines for source in self.files)),
            "longest function": str(max(lines for _, lines in self.functions)),
            "functions too long": f"{too_long} of {len(self.functions)}",
            "constructors": str(len(self.constructors)),
            "most arguments": str(max(one.arguments for one in self.constructors)),
            "constructors with more than 6 arguments": str(len(self.wide_constructors())),
            "arguments that are callables": f"{callables} of {arguments}",
            "of them written as Callable": f"{sum(one.written_out for one in self.constructors)} of {arguments}",
            "fullest folder": str(max(self.modules.values())),
        }

    def long_files(self) -> list[str]:
        """Files above the limit."""
        return [f"{one.name}: {one.lines} lines" for one in self.files if one.lines > FILE_LINES_MAX]

    def long_functions(self) -> list[str]:
        """Functions above the limit."""
        return [f"{where}: {lines} lines" for where, lines in self.functions if lines > FUNCTION_LINES_MAX]

    def wide_constructors(self) -> list[Constructor]:
        """Constructors above the limit."""
        return [one for one in self.constructors if one.arguments > ARGUMENTS_MAX]

    def callables_percent(self) -> float:
        """Share of the arguments of constructors that are callables."""
        return 100 * sum(one.callables for one in self.constructors) / sum(one.arguments for one in self.constructors)

    def full_folders(self) -> list[str]:
        """Folders above the limit."""
        return [f"{name}: {count} modules" for name, count in sorted(self.modules.items()) if count > MODULES_MAX]


class Callables:
    """Which annotations are callables: `Callable` itself, its aliases, and protocols that have `__call__` only."""

    def __init__(self, files: list[Source]) -> None:
        self._imported = {source.name: dict(_imports(source)) for source in files}
        self._aliases: set[Name] = set()
        grown = -1
        while grown != len(self._aliases):
            grown = len(self._aliases)
            self._aliases.update(name for source in files for name in self._found(source))

    def constructor(self, source: Source, owner: ast.ClassDef, init: Function) -> Constructor:
        """The figures of one `__init__`."""
        annotations = [one.annotation for one in _arguments(init)]
        return Constructor(
            f"{source.name}:{init.lineno} {owner.name}",
            len(annotations),
            sum(self.within(source, one) for one in annotations),
            sum("Callable" in _names(one) for one in annotations),
        )

    def within(self, source: Source, annotation: ast.expr | None) -> bool:
        """Whether an annotation in a file is a callable, or has one within."""
        names = _names(annotation)
        module = _module(source)
        imported = self._imported[source.name]
        return any(name == "Callable" or imported.get(name, (module, name)) in self._aliases for name in names)

    def _found(self, source: Source) -> Iterator[Name]:
        for node in source.tree.body:
            match node:
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    is_alias = isinstance(node.annotation, ast.Name) and node.annotation.id == "TypeAlias"
                    if is_alias and self.within(source, value):
                        yield _module(source), name
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Subscript() as value):
                    if self.within(source, value):
                        yield _module(source), name
                case ast.ClassDef(name=name, bases=[ast.Name(id="Protocol")]):
                    if [one.name for one in node.body if isinstance(one, Function)] == ["__call__"]:
                        yield _module(source), name


def function_lines(function: Function) -> int:
    """Lines of a function from its `def`, without its docstring."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None:
        lines -= (first.end_lineno or 0) - first.lineno + 1
    return lines


def _constructors(source: Source) -> Iterator[tuple[ast.ClassDef, Function]]:
    for owner in ast.walk(source.tree):
        if isinstance(owner, ast.ClassDef):
            yield from ((owner, one) for one in owner.body if isinstance(one, Function) and one.name == "__init__")


def _arguments(init: Function) -> list[ast.arg]:
    """Without `self`, `*args` and `**kwargs`."""
    return [*init.args.posonlyargs, *init.args.args][1:] + init.args.kwonlyargs


def _module(source: Source) -> str:
    return source.name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _names(annotation: ast.expr | None) -> list[str]:
    """All names in an annotation, also in one that is quoted."""
    if annotation is None:
        return []
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    nodes = [node for node in ast.walk(annotation) if isinstance(node, ast.Name | ast.Attribute)]
    return [node.id if isinstance(node, ast.Name) else node.attr for node in nodes]


def _imports(source: Source) -> Iterator[tuple[str, Name]]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((alias.asname or alias.name, (node.module, alias.name)) for alias in node.names)


def main() -> None:
    """Print every figure beside that of before, and what is above a limit."""
    shape = Shape()
    print(f"{'':42}{'before':>14}{'today':>14}")
    for name, figure in shape.figures().items():
        print(f"{name:42}{BEFORE[name]:>14}{figure:>14}")
    print(f"{'arguments that are callables, %':42}{'22.6':>14}{shape.callables_percent():>14.1f}")
    above = [*shape.long_files(), *shape.long_functions(), *shape.wide_constructors(), *shape.full_folders()]
    print("\nAbove the limits:", *above, sep="\n  ")
    print("\nCallables in constructors:")
    print(*sorted(filter(lambda one: one.callables, shape.constructors), key=lambda one: -one.callables), sep="\n")


if __name__ == "__main__":
    main()
