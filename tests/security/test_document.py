"""The code and tests that docs/explanation/security.md names exist: a review must not outlive them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "explanation" / "security.md").read_text()
CODE = sorted(set(re.findall(r"`(compass/[a-z_/]+\.py):([A-Za-z_]+)`", TEXT)))
TESTS = sorted(set(re.findall(r"`(tests/[a-z_0-9/]+\.py)::([a-z_0-9]+)`", TEXT)))
BUG_LIST = (ROOT / "docs" / "project" / "bugs.md").read_text()
BUGS = sorted(set(re.findall(r"`(tests/[a-z_0-9/]+\.py)::([a-z_0-9]+)`", BUG_LIST)))


@pytest.mark.parametrize(("path", "name"), CODE)
def test_the_code_it_names_is_there(path: str, name: str) -> None:
    """A function, a class or a constant of that file."""
    assert re.search(rf"^\s*(?:def|class|async def) {name}\b|^{name}\b.* = ", (ROOT / path).read_text(), re.MULTILINE)


@pytest.mark.parametrize(("path", "name"), sorted({*TESTS, *BUGS}))
def test_the_tests_it_names_are_there(path: str, name: str) -> None:
    """The tests that the list of bugs names exist as well."""
    assert f"def {name}(" in (ROOT / path).read_text()


def test_every_threat_of_rfc_5355_has_a_row() -> None:
    """Section 2 has seventeen; each is answered by code and a test, or it is said that it is not."""
    rows = re.findall(r"^\| 2\.(\d+) \|(.*)\|$", TEXT, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 18))
    for number, row in rows:
        assert ("`compass/" in row and "::test_" in row) or "no answer, on purpose" in row, number
