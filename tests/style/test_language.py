"""The language of the sources: it may only come nearer to plain English."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.style.language import BANNED, Tally, is_headless, others, packages, read_budget, spent, tally, write_budget
from tests.style.sources import Source

SLACK, SLACK_SHARE = 5, 0.1
"""A figure may be this far below its budget, or this share of the budget, before the budget has to be lowered."""
FIGURES = ("headless docstrings", "banned words in comments and docstrings", "banned words in messages")
LOWER = "run `make language ARGS=--lower`"


@pytest.fixture(scope="module")
def today() -> dict[str, tuple[int, int, int]]:
    return spent(packages() | others())


def test_no_package_exceeds_its_budget(today: dict[str, tuple[int, int, int]]) -> None:
    """A headless docstring or a banned word more than before is refused, in every package and in the documents."""
    budget = read_budget()
    assert today.keys() == budget.keys(), f"packages came or went: {LOWER}"
    more = [
        f"{name}: {now} {what}, the budget is {may}; `make language ARGS='--list {name}'` shows them"
        for name in today
        for what, now, may in zip(FIGURES, today[name], budget[name], strict=True)
        if now > may
    ]
    assert not more, "\n".join(more)


def test_the_budget_follows_what_has_been_corrected(today: dict[str, tuple[int, int, int]]) -> None:
    """Corrections cannot be undone: a budget well above its figure is refused."""
    far = [
        f"{name}: {now} {what}, the budget is still {may}: {LOWER}"
        for name, budget in read_budget().items()
        for what, now, may in zip(FIGURES, today.get(name, budget), budget, strict=True)
        if now < may - max(SLACK, SLACK_SHARE * may)
    ]
    assert not far, "\n".join(far)


def test_a_budget_is_only_lowered(tmp_path: Path) -> None:
    """A package with more than its budget is refused; one that moves brings its figures along."""
    path = tmp_path / "budget.txt"
    write_budget({"host": (3, 5, 1), "model": (1, 1, 1)}, path)
    with pytest.raises(ValueError, match="model"):
        write_budget({"host": (1, 1, 1), "model": (1, 2, 1)}, path)
    with pytest.raises(ValueError, match="all together"):
        write_budget({"agent": (3, 6, 1), "model": (1, 1, 1)}, path)
    write_budget({"agent": (3, 4, 1), "model": (1, 1, 0)}, path)
    assert read_budget(path) == {"agent": (3, 4, 1), "model": (1, 1, 0)}


def test_everything_that_is_prose_is_counted(tmp_path: Path) -> None:
    """Docstrings of all four kinds, comments, and messages of several words; a tag is no message."""
    path = tmp_path / "one.py"
    path.write_text(
        '"""Of nobody."""\n'
        "# Told anew.\n"
        "FIELD = 1\n"
        '"""How often."""\n'
        "class One:\n"
        '    """A class."""\n'
        "    def method(self) -> str:\n"
        '        """It is told."""\n'
        "        return f'{self} is told no more' + 'told'\n"
    )
    found = tally(Source(path, tmp_path))
    assert found == Tally(docstrings=4, headless=3, verbless=1, banned=4, messages=2, words=11)


def test_a_docstring_is_headless_by_its_first_word(tmp_path: Path) -> None:
    """The expression judges whole words only."""
    path = tmp_path / "one.py"
    path.write_text('"""Offers of a service."""\nX = 1\n"""Of a service."""\n')
    assert [is_headless(one) for one in Source(path, tmp_path).docstrings] == [False, True]
    assert [found.group() for found in BANNED.finditer("retell; Beside it\nin\nvain")] == ["Beside", "in\nvain"]
