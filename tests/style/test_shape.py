"""The shape of the sources: short files and functions, constructors with few arguments, and those no callables."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.style.shape import CALLABLES_PERCENT_MAX, Shape


@pytest.fixture(scope="module")
def shape() -> Shape:
    return Shape()


def test_no_file_is_too_long(shape: Shape) -> None:
    """A file has at most 400 lines."""
    assert not shape.long_files()


def test_no_function_is_too_long(shape: Shape) -> None:
    """A function has at most 50 lines without its docstring."""
    assert not shape.long_functions()


def test_no_constructor_has_too_many_arguments(shape: Shape) -> None:
    """A constructor has at most 6 arguments; what needs more takes one struct of dependencies."""
    assert not list(map(str, shape.wide_constructors()))


def test_constructors_take_objects_and_no_callables(shape: Shape) -> None:
    """No more arguments of constructors than the ceiling are callables: an editor follows a call to a named method."""
    callables = [str(one) for one in shape.constructors if one.callables]
    assert shape.callables_percent() < CALLABLES_PERCENT_MAX, "\n".join(callables)


def test_everything_is_counted_as_it_is_defined(tmp_path: Path) -> None:
    """Lines of code are neither empty, comments nor docstrings; an alias of a callable is a callable in each module."""
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "one.py").write_text(
        '"""A module.\n\nIt has text."""\nfrom typing import Protocol\nCall: TypeAlias = Callable[[], None] | None\n'
        'class Answer(Protocol):\n    """A callable."""\n    def __call__(self) -> None: ...\n'
    )
    (folder / "two.py").write_text(
        "from package.one import Answer, Call as Made\n\n\n# A comment.\nclass Two:\n"
        '    def __init__(self, made: Made, name: str, *, end: "Callable[[], None]", done: list[Answer]) -> None:\n'
        '        """Make\n        it."""\n        self.made = (\n            made)  # kept\n'
    )
    shape = Shape(folder)
    assert (shape.lines, shape.code_lines) == (8 + 10, 4 + 5)
    assert [lines for _, lines in shape.functions] == [1, 3]
    [constructor] = shape.constructors
    assert (constructor.arguments, constructor.callables) == (4, 3)
    assert not shape.long_files() + shape.long_functions() + shape.full_folders()
