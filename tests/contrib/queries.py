"""Parser of PromQL queries: the selected series, the labels by which they are summed, and the labels of the result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import promql_parser


class Selected(NamedTuple):
    """Selector of a query."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]
    """Label, operator and value."""


class Query:
    """Parsed query. Raises ValueError for invalid PromQL."""

    def __init__(self, text: str) -> None:
        # Grafana puts an interval in the place of its variable.
        self.text = text
        self._parsed = promql_parser.parse(text.replace("$__rate_interval", "1m"))

    def selected(self) -> list[Selected]:
        """Return every selector."""
        found = []
        for node in _nodes(self._parsed):
            if isinstance(node, promql_parser.VectorSelector):
                matchers = tuple(
                    (one.name, str(one.op).rpartition(".")[2], one.value) for one in node.matchers.matchers
                )
                found.append(Selected(node.name or "", matchers))
        return found

    def grouped(self) -> set[str]:
        """Return the labels of every `by` and `without`."""
        modifiers = [getattr(node, "modifier", None) for node in _nodes(self._parsed)]
        return {label for modifier in modifiers for label in getattr(modifier, "labels", None) or ()}


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for name in ("lhs", "rhs", "expr", "args", "param", "vector_selector"):
        inner = getattr(node, name, None)
        for one in inner if isinstance(inner, list) else [inner]:
            if one is not None:
                yield from _nodes(one)
