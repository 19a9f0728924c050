"""The tree below compass/: who imports whom, file by file and folder by folder, and what a search by name finds.

python -m tests.style.tree            circles, full folders, and terms that find nothing
python -m tests.style.tree --folders  which folder imports which
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from tests.style.sources import ROOT, Source, sources
from tests.style.terms import TERMS

Graph: TypeAlias = dict[str, set[str]]
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
"""A word of a name, in any of the usual spellings."""


class Tree:
    """Every file below a folder, with its imports of others."""

    def __init__(self, folder: Path = ROOT / "compass") -> None:
        self.files = sources(folder)
        self._modules = {_module(source): source.name for source in self.files}

    @cached_property
    def imports(self) -> Graph:
        """Which file imports which, also inside functions and under TYPE_CHECKING."""
        return {source.name: set(self._imported(source)) - {source.name} for source in self.files}

    @cached_property
    def folders(self) -> Graph:
        """Which folder imports which. A package's own modules and its subfolders are different folders."""
        graph: Graph = {}
        for importer, imported in self.imports.items():
            theirs = graph.setdefault(_folder(importer), set())
            theirs.update(_folder(one) for one in imported)
        return {folder: imported - {folder} for folder, imported in graph.items()}

    def find(self, term: str) -> set[str]:
        """Files for which each word of the term begins a word of their path, or of the name of one of their classes."""
        wanted = [word.lower() for word in re.findall(r"[A-Za-z]+", term)]
        return {
            name
            for name, names in self._names.items()
            if any(all(any(word.startswith(one) for word in words) for one in wanted) for words in names)
        }

    def missed(self, terms: Mapping[str, tuple[str, ...]] = TERMS) -> list[str]:
        """Terms that do not find any of the files in which they should be."""
        return [
            f"{term}: expected {' or '.join(paths)}, found {', '.join(sorted(found)[:4]) or 'nothing'}"
            for term, paths in terms.items()
            for found in [self.find(term)]
            if not found & {f"compass/{path}" for path in paths}
        ]

    @cached_property
    def _names(self) -> dict[str, list[list[str]]]:
        """The words of each file's path, and of each of its classes."""
        return {source.name: [_words(_inside(source)), *map(_words, _classes(source))] for source in self.files}

    def _imported(self, source: Source) -> Iterator[str]:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Import):
                yield from (self._modules[alias.name] for alias in node.names if alias.name in self._modules)
            elif isinstance(node, ast.ImportFrom):
                base = _absolute(source, node)
                for alias in node.names:
                    module = f"{base}.{alias.name}"
                    found = module if module in self._modules else base
                    if found in self._modules:
                        yield self._modules[found]


def mutual(graph: Graph) -> list[str]:
    """Pairs that import each other."""
    return sorted(f"{one} and {other}" for one in graph for other in graph[one] if one < other and one in graph[other])


def circles(graph: Graph) -> list[str]:
    """Groups in which each one is reached from each other one: Tarjan's strongly connected components."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[str] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in order:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], order[other])
        if lowest[node] == order[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(", ".join(sorted(group)))

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return found


def _inside(source: Source) -> str:
    """The path below compass/, without the suffix."""
    return source.name.partition("/")[2].removesuffix(".py").removesuffix("__init__")


def _module(source: Source) -> str:
    return source.name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _words(name: str) -> list[str]:
    return [word.lower() for word in WORD.findall(name)]


def _classes(source: Source) -> list[str]:
    return [node.name for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef)]


def _absolute(source: Source, node: ast.ImportFrom) -> str:
    """The module that an import names, also a relative one."""
    if not node.level:
        return node.module or ""
    parts = Path(source.name).parent.parts
    return ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])


def main() -> None:
    """Print what is against the rules, or the folders."""
    parser = argparse.ArgumentParser(prog="python -m tests.style.tree", description="The tree below compass/.")
    parser.add_argument("--folders", action="store_true", help="print which folder imports which")
    given = parser.parse_args()
    tree = Tree()
    if given.folders:
        for folder, imported in sorted(tree.folders.items()):
            print(folder, *sorted(imported), sep="\n    ")
        return
    missed = tree.missed()
    print(f"{len(tree.files)} files in {len(tree.folders)} folders")
    print("circles of files:", *circles(tree.imports), sep="\n  ")
    print("folders that import each other:", *mutual(tree.folders), sep="\n  ")
    print("circles of folders:", *circles(tree.folders), sep="\n  ")
    print(f"{len(TERMS) - len(missed)} of {len(TERMS)} terms find the right file; not found:", *missed, sep="\n  ")


if __name__ == "__main__":
    main()
