"""Numbers of the documents are those of the code.

A page names the constant next to its number: `600 connections (`CONNECTIONS_FAILED_PER_MINUTE_MAX`)`, or
`` `PER_MINUTE`, 10 ``, or a row `` | `NAME` | 10 | `` of a table. The number is compared with the constant. The page on
security has no other numbers.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for folder in ("docs", "protocols")
    for page in (ROOT / folder).rglob("*.md")
    if "benchmark" not in page.name
)
NUMBER = r"(?<![\w.,/-])(\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?)"
BEFORE = re.compile(NUMBER + r"(?P<unit>[^\d(;|`]{0,60})\(`(?P<name>[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)`\)")
AFTER = re.compile(r"`(?P<name>[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)`(?:,| =| \|) " + NUMBER + r"(?P<unit> ?\w*)")
UNITS = {
    "kib": 1024,
    "mib": 1024**2,
    "minute": 60,
    "minutes": 60,
    "hour": 3600,
    "hours": 3600,
    "day": 86400,
    "days": 86400,
}


def constants() -> dict[str, set[float]]:
    """Every numeric constant below compass/ by its name; modules that use one name for different things have a set."""
    found: dict[str, set[float]] = {}
    for path in (ROOT / "compass").rglob("*.py"):
        known: dict[str, object] = {}
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.Assign | ast.AnnAssign):
                continue
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if not isinstance(target, ast.Name) or not target.id.lstrip("_").isupper() or node.value is None:
                continue
            try:
                # Constants are written in this repository; expressions of numbers need no other name.
                value = eval(
                    compile(ast.Expression(node.value), path.name, "eval"),
                    {"__builtins__": {}, "timedelta": timedelta},
                    known,
                )
            except Exception:
                continue  # Not made of numbers only.
            known[target.id] = value
            value = value.total_seconds() if isinstance(value, timedelta) else value
            if isinstance(value, int | float):
                found.setdefault(target.id, set()).add(value)
    return found


KNOWN = constants()


def numbers_of(text: str) -> Iterator[tuple[str, float]]:
    """Yield each constant with the number next to it, in the constant's unit."""
    for found in (*BEFORE.finditer(text), *AFTER.finditer(text)):
        word = re.match(r"\s*(\w*)", found["unit"])
        number = next(part for part in found.groups() if part and part[0].isdigit())
        factor = UNITS.get(word[1].lower() if word else "", 1) if not found["name"].endswith("_DAYS") else 1
        yield found["name"], (float(number) if "." in number else int(number.replace(",", ""))) * factor


def wrong_numbers(text: str) -> list[str]:
    wrong = []
    for name, number in numbers_of(" ".join(text.split()) if "|" not in text else text):
        if name not in KNOWN:
            wrong.append(f"{name} is no constant of the code")
        elif number not in KNOWN[name]:
            wrong.append(f"{name} is {sorted(KNOWN[name])}, not {number:g}")
    return wrong


def paragraphs(page: str) -> list[str]:
    """Paragraphs and rows of tables, each in one line, without code blocks."""
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    return [
        " ".join(part.split()) for part in re.split(r"\n\s*\n|\n(?=\||\d+\. |- )", text) if not part.startswith("    ")
    ]


@pytest.mark.parametrize("page", PAGES)
def test_a_number_next_to_a_constant_is_its_value(page: str) -> None:
    """W19: a page that says 60 where the code has 600 is wrong in a place that an operator relies on."""
    wrong = [f"{problem}: {part[:80]}" for part in paragraphs(page) for problem in wrong_numbers(part)]
    assert not wrong, "\n".join([page, *wrong])


NOT_OF_THE_CODE = re.compile(
    r"RFCs? \d+|\d+ random bits|\(?section \d+[\d.]*|TLS 1\.3|SHA-256|\b0[0-7]{3}\b|^\d+\. |\| 2\.\d+ \|"
    r"|function \d\.\d|\(P\d+\)|`[^`]*`|\[[^]]*\]\([^)]*\)"
)
"""Numbers that are names: of documents, of versions, modes of files, places in a list."""


def loose_numbers(text: str) -> list[str]:
    """Numbers without a constant next to them."""
    shown = re.sub(BEFORE, "", text)
    return re.findall(NUMBER, NOT_OF_THE_CODE.sub("", re.sub(AFTER, "", shown)))


def test_the_page_on_security_has_no_number_without_its_constant() -> None:
    """No number of it can grow old. What the fuzzers did is a record and not a limit."""
    before, _, rest = (ROOT / "docs/explanation/security.md").read_text().partition("## Fuzzing")
    _, _, after = rest.partition("## What compass does not answer")
    for part in re.split(r"\n\s*\n|\n(?=\||\d+\. |- )", before + "\n\n" + after):
        if not part.startswith("    "):
            assert not loose_numbers(" ".join(part.split())), part


def test_the_rules_of_this_test_find_a_wrong_number() -> None:
    """Each of the three forms, with units and thousands; and a number alone."""
    assert wrong_numbers("after 60 failures in a minute (`CONNECTIONS_FAILED_PER_MINUTE_MAX`) none")
    assert not wrong_numbers("after 600 failures in a minute (`CONNECTIONS_FAILED_PER_MINUTE_MAX`) none")
    assert wrong_numbers("| `SESSIONS_MAX` | 2000 | connections |") and wrong_numbers("`NO_SUCH_MAX`, 3")
    assert not wrong_numbers("at most 4,096 (`REGISTRATIONS_MAX`)") and not wrong_numbers(
        "64 KiB (`FRAME_MAX_FROM_HOST`)"
    )
    assert loose_numbers("at most 32 of them") == ["32"] and not loose_numbers("1. TLS 1.3 of RFC 8446, mode 0600")
