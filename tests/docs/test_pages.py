"""Consistency of the pages: links have targets, code compiles, and few blocks are not typed by a test."""

from __future__ import annotations

import ast
import json
import re
import tomllib
import unicodedata
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.docs.pages import ROOT, SHELLS, TYPED, all_pages, blocks
from tests.docs.shell import matches

PAGES = [page.relative_to(ROOT).as_posix() for page in all_pages()]
NOT_RUN = {"README.md": 1, "README.zh.md": 1}
"""Number of blocks of typed pages that are not typed: those that run the tests."""
INSTALLS = {"README.md": 1, "README.zh.md": 1, "docs/tutorial.md": 1, "docs/tutorial.zh.md": 1}
DECISIONS = ROOT / "docs" / "decisions"
DECISION_PAGES = [path.relative_to(ROOT).as_posix() for path in DECISIONS.glob("*.md")]
MADE_INTO = {"bench/page.md": "docs/explanation", "bench/tables.md": "docs/explanation"}
"""Templates with the folder of the generated page. Pictures that are generated with it may be missing."""
TRANSLATED = {"README.md": "README.zh.md", "docs/tutorial.md": "docs/tutorial.zh.md"}


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MkDocs make them."""
    found: set[str] = set()
    tokens = MarkdownIt().parse(path.read_text())
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            text = "".join(child.content for child in inline.children or [])
            kept = (c for c in text.lower() if c in " -_" or unicodedata.category(c)[0] in "LN")
            anchor = "".join(kept).replace(" ", "-")
            number = sum(1 for other in found if re.fullmatch(re.escape(anchor) + r"(-\d+)?", other))
            found.add(f"{anchor}-{number}" if number else anchor)
    return found | set(re.findall(r'<a (?:name|id)="([^"]+)"', path.read_text()))


def links(path: Path) -> list[str]:
    """Return the targets of a page's links and pictures."""
    found = []
    for token in MarkdownIt().parse(path.read_text()):
        for child in token.children or []:
            target = child.attrGet("href") if child.type == "link_open" else child.attrGet("src")
            if child.type in ("link_open", "image") and target:
                found.append(str(target))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Each link leads to an existing file and, with an anchor, to a heading of it; other sites are not tried."""
    path, broken = ROOT / page, []
    for link in links(path):
        if re.match(r"(https?|mailto):", link):
            continue
        file, _, anchor = link.partition("#")
        base = ROOT / MADE_INTO[page] if page in MADE_INTO else path.parent
        target = (base / file).resolve() if file else path
        if page in MADE_INTO and target.suffix == ".svg":
            continue
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert not broken, f"{page}: {broken}"


@pytest.mark.parametrize("page", PAGES)
def test_code_in_pages_can_be_read(page: str) -> None:
    """Python compiles; TOML and JSON can be parsed."""
    for block in blocks(page):
        text = block.text
        if block.language == "python":
            # A page may show lines of a coroutine on their own.
            compile(text, f"{page}:{block.line + 1}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        elif block.language == "toml":
            tomllib.loads(text)
        elif block.language == "json" and not re.search(r"\.\.\.|…", text):
            json.loads(text)


@pytest.mark.parametrize("page", TYPED)
def test_few_blocks_are_not_typed(page: str) -> None:
    """Each block is a session, a file, or gives a reason for being neither; no block is an indented one."""
    marked = {"not run": 0, "install": 0}
    for block in blocks(page):
        where = f"{page}:{block.line + 1}"
        assert block.language != "indented", f"{where}: fence it, and say what it is"
        if block.language in SHELLS:
            assert block.language == "console", f"{where}: a session is 'console', with '$ ' before commands"
            assert block.commands, f"{where}: nothing to type"
        assert block.mark in ("", "again", "install") or block.mark.startswith("not run: "), where
        for mark in marked:
            marked[mark] += block.mark.startswith(mark)
    assert marked == {"not run": NOT_RUN.get(page, 0), "install": INSTALLS.get(page, 0)}


@pytest.mark.parametrize("page", TRANSLATED)
def test_the_chinese_page_has_the_same_blocks(page: str) -> None:
    """A Chinese page types and shows exactly what the English one does, so that typing one proves both."""
    own, others = ([(b.language, b.file, b.mark[:7], b.text) for b in blocks(p)] for p in (page, TRANSLATED[page]))
    for one, other in zip(own, others, strict=True):
        assert one == other


def listed(text: str) -> list[tuple[str, list[str]]]:
    """Return each section of docs/index.md, or of the navigation in mkdocs.yml, with its pages in order."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if section := re.match(r"(?:## |  - )([\w-]+):?$", line):
            found.append((section[1], []))
        elif found:
            found[-1][1].extend(re.findall(r"(?:\(|: )([\w/.-]+\.md)\b", line))
    return [(name, [page for page in pages if not page.startswith("..")]) for name, pages in found]


def test_both_tables_of_contents_name_every_page_in_the_same_order() -> None:
    """docs/index.md and the site have the same sections and pages; decisions have an index of their own."""
    index = listed((ROOT / "docs/index.md").read_text())
    site = listed((ROOT / "mkdocs.yml").read_text().partition("nav:")[2])
    assert [name for name, _ in index] == ["Tutorial", "How-to", "Reference", "Explanation", "Project"]
    assert site == index
    named = {"index.md", *(page for _, pages in index for page in pages)}
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if not page.startswith("decisions/0")} == named


def test_each_decision_has_a_row_in_the_index() -> None:
    """Decisions are numbered without gaps and have three sections; the index has their numbers and titles."""
    rows = re.findall(r"^\| (\d{4}) \| \[(.+)\]\((.+)\) \| .+ \|$", (DECISIONS / "index.md").read_text(), re.MULTILINE)
    files = sorted(path.name for path in DECISIONS.glob("0*.md"))
    assert [file for _, _, file in rows] == files
    for count, (number, title, file) in enumerate(rows, 1):
        lines = (DECISIONS / file).read_text().splitlines()
        assert (number, lines[0]) == (f"{count:04}", f"# {number}: {title}")
        assert [line for line in lines if line.startswith("## ")] == ["## Context", "## Decision", "## Consequence"]


@pytest.mark.skipif(not (ROOT / "compass/daemons").exists(), reason="the pages name the files of the next tree")
@pytest.mark.parametrize("page", ["docs/explanation/architecture.md", "CONTRIBUTING.md", *sorted(DECISION_PAGES)])
def test_the_files_that_a_page_names_are_there(page: str) -> None:
    """Every path of a module in the pages about the code is that of a file, from the top or from compass/."""
    named = re.findall(r"`([a-z_]+/[\w/]+\.(?:py|md|toml))\b", (ROOT / page).read_text())
    tops = ("", "compass/", "compass/server/", "compass/model/")
    assert not [path for path in named if not any((ROOT / top / path).exists() for top in tops)]


def test_what_the_faq_quotes_is_there() -> None:
    """Each answer names a promise of the protocol, and tests that exist."""
    text = (ROOT / "docs/explanation/faq.md").read_text()
    promises = set(re.findall(r"\*\*(P\d+)\b|\| (P\d+) ", (ROOT / "protocols/opengnsp/promises.md").read_text()))
    known = {number for pair in promises for number in pair if number} or {f"P{n}" for n in range(1, 14)}
    assert set(re.findall(r"\bP\d+\b", text)) <= known
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) >= 15
    for file, test in named:
        assert (ROOT / file).exists(), file
        assert not test or f"def {test}(" in (ROOT / file).read_text(), f"{file} has no {test}"


def test_times_and_numbers_may_differ_and_words_may_not() -> None:
    """The comparison ignores times, ids and widths, and nothing else."""
    assert matches(["a  at 2026-11-26T06:00:00+00:00 (3 s ago)"], ["a at 2027-01-02T01:02:03+00:00   (11 s ago)"])
    assert matches(["...", "last ... line"], ["one", "two", "last of all line"])
    assert matches([], []) and not matches([], ["more"])
    assert not matches(["127.0.0.3:8001"], ["127.0.0.3:8002"])
    assert not matches(["up"], ["up", "down"])
