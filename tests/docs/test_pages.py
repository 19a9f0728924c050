"""The documents hold together: links lead somewhere, code compiles, and few blocks are not typed by a test."""

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
"""How many blocks of typed pages are not typed, and no more: those that run the tests."""
INSTALLS = {"README.md": 1, "README.zh.md": 1, "docs/tutorial.md": 1, "docs/tutorial.zh.md": 1}
HOWTO_MIN = 10
MADE_INTO = {"bench/page.md": "docs"}
"""Templates, and the folder of the page that is made of them. Pictures that are made with it may not be there."""
TRANSLATED = {"README.md": "README.zh.md", "docs/tutorial.md": "docs/tutorial.zh.md"}


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
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
    """Where a page's links and pictures lead."""
    found = []
    for token in MarkdownIt().parse(path.read_text()):
        for child in token.children or []:
            target = child.attrGet("href") if child.type == "link_open" else child.attrGet("src")
            if child.type in ("link_open", "image") and target:
                found.append(str(target))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """To a file that is there and to a heading that it has; links to other sites are not followed."""
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
    """Python compiles; TOML and JSON are such."""
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
    """Each is a session, a file, or says why it is neither; nothing hides in an indented block."""
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
    """Word for word what the English page types and shows, so that typing one proves both."""
    own, others = ([(b.language, b.file, b.mark[:7], b.text) for b in blocks(p)] for p in (page, TRANSLATED[page]))
    for one, other in zip(own, others, strict=True):
        assert one == other


def test_there_is_a_page_for_each_of_the_ten_things() -> None:
    """And both tables of contents, for readers and for the site, name every page there is."""
    index = (ROOT / "docs/index.md").read_text()
    howto = sorted((ROOT / "docs/howto").glob("*.md"))
    assert len(howto) >= HOWTO_MIN
    site = (ROOT / "mkdocs.yml").read_text()
    for path in (ROOT / "docs").rglob("*.md"):
        name = path.relative_to(ROOT / "docs").as_posix()
        assert name == "index.md" or f"({name})" in index, f"docs/index.md does not name {name}"
        assert re.search(rf"[ :]{re.escape(name)}$", site, re.MULTILINE), f"mkdocs.yml does not name {name}"


def test_what_the_faq_quotes_is_there() -> None:
    """Each answer names a promise of the protocol, and tests that exist."""
    text = (ROOT / "docs/faq.md").read_text()
    promises = set(re.findall(r"\*\*(P\d+)\b|\| (P\d+) ", (ROOT / "protocols/opengnsp/promises.md").read_text()))
    known = {number for pair in promises for number in pair if number} or {f"P{n}" for n in range(1, 14)}
    assert set(re.findall(r"\bP\d+\b", text)) <= known
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) >= 15
    for file, test in named:
        assert (ROOT / file).exists(), file
        assert not test or f"def {test}(" in (ROOT / file).read_text(), f"{file} has no {test}"


def test_times_and_numbers_may_differ_and_words_may_not() -> None:
    """The comparison by which typed pages are judged."""
    assert matches(["a  at 2026-11-26T06:00:00+00:00 (3 s ago)"], ["a at 2027-01-02T01:02:03+00:00   (11 s ago)"])
    assert matches(["...", "last ... line"], ["one", "two", "last of all line"])
    assert matches([], []) and not matches([], ["more"])
    assert not matches(["127.0.0.3:8001"], ["127.0.0.3:8002"])
    assert not matches(["up"], ["up", "down"])
