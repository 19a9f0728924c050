"""The pages are written in plain technical English."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import ROOT, all_pages

BANNED = re.compile(
    r"\b(whoever|nobody|somebody|everybody|anew|in vain|besides?|as ever|c[ao]mes? to nothing|so (many|long|often|much)"
    r"|has gone|is away|no more|tells?|told|telling)\b",
    re.IGNORECASE,
)
GENERATED = re.compile(r"<!-- (made|metrics:\w+) -->.*?<!-- /\1 -->", re.DOTALL)
"""Parts of pages that are generated from help texts and descriptions, which are checked where they are written."""
QUOTED = re.compile(r"^\s*```.*?^\s*```|^( {4,}|\t).*?$|`[^`]*`", re.DOTALL | re.MULTILINE)
"""Blocks and pieces of code: output of programs, and names on the wire."""
PAGES = [page.relative_to(ROOT).as_posix() for page in all_pages()]
OURS = [page for page in PAGES if page.startswith("docs/") or "/" not in page]


@pytest.mark.parametrize("page", OURS)
def test_no_banned_word(page: str) -> None:
    """A page has none of the words that CONTRIBUTING lists, except in quotations of real output."""
    text = QUOTED.sub(" ", GENERATED.sub(" ", (ROOT / page).read_text()))
    found = [match[0] for match in BANNED.finditer(text)]
    assert not found, f"{page}: {found}"
