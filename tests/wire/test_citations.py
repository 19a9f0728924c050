"""Citations of the written protocol in sources and tests lead to a chapter, sentence or promise that exists.

The forms are, in a docstring or a comment:

    opengnsp.md, "Digests"                  a heading of the protocol; so is ("Digests") alone
    opengnsp/transport.md, "Framing"        a heading of that chapter
    Choice of a server, 2: "A host ..."     a numbered sentence; the text in quotes is part of it
    P5, V3                                  a promise of the protocol, a rule of the shared view

A path below `protocols/` is a file, wherever it stands.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.wire.protocol import CHAPTERS, ENTRY, FOLDER, ROOT, section

TREES = ("compass", "tests", "bench", "examples", "contrib")
CITATIONS_MIN = 40
"""Citations of headings that were in the tree when this test was written: the patterns still find them."""
_TITLES = r'((?:(?: and |, |,? ?\()*"[^"]+"\)?)+)'
_OF_DOCUMENT = re.compile(rf"\b(opengnsp(?:/[\w/-]+)?\.md),? {_TITLES}")
_ALONE = re.compile(r'\("([A-Z][a-z]+(?: [a-z]+)*)"\)')
_SENTENCE = re.compile(r'^\s*"?([A-Z][a-z]+(?: [a-z]+)*), (\d+): (?:"([^"]+)")?')
_PROMISE = re.compile(r"\bP(\d{1,2})\b(?! ?=)")
_RULE = re.compile(r"(?:^|\W)V(\d)(?=[,: ]| and )")
_PATH = re.compile(r"\bprotocols/[\w./-]*\w")


class Note(NamedTuple):
    """A docstring or a run of comments, on one line, and where it begins."""

    place: str
    text: str


def notes(path: Path) -> Iterator[Note]:
    """Yield the docstrings, attribute docstrings and comments of a file. Lines of comments in a row are one text."""
    source = path.read_text()
    name = path.relative_to(ROOT).as_posix()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield Note(f"{name}:{node.lineno}", " ".join(node.value.value.split()))
    begin, lines = 0, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if lines and token.start[0] != begin + len(lines):
                yield Note(f"{name}:{begin}", " ".join(lines))
                lines = []
            begin = begin if lines else token.start[0]
            lines.append(token.string.lstrip("# "))
    if lines:
        yield Note(f"{name}:{begin}", " ".join(lines))


FILES = [
    path
    for tree in TREES
    for path in sorted((ROOT / tree).rglob("*.py"))
    if path != Path(__file__).resolve() and "node_modules" not in path.parts
]
NOTES = [note for path in FILES for note in notes(path)]


@cache
def headings(file: str) -> frozenset[str]:
    """Return the headings of a file in protocols/, of every level. `opengnsp.md` stands for all its chapters."""
    paths = [path for path in (CHAPTERS if file == ENTRY.name else [FOLDER.parent / file]) if path.exists()]
    return frozenset(found for path in paths for found in re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE))


def titles(text: str) -> Iterator[tuple[str, str]]:
    """Yield each title that a note cites, with the file that is to have it."""
    for file, found in _OF_DOCUMENT.findall(text):
        yield from ((file, title) for title in re.findall(r'"([^"]+)"', found))
    yield from (("opengnsp.md", title) for title in _ALONE.findall(_OF_DOCUMENT.sub("", text)))


def sentence(title: str, number: str) -> str | None:
    """Return the numbered sentence of a section as plain text, or None if the section has no such number."""
    found = re.search(rf"^{number}\. ((?:.|\n)*?)(?=^\d+\. |^\S|\Z)", section(title), re.MULTILINE)
    return " ".join(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", found[1]).split()) if found else None


def why_wrong(title: str, number: str, quote: str) -> str:
    """Return why a citation of a numbered sentence is wrong, or an empty string."""
    if title not in headings(ENTRY.name):
        return f"no heading {title!r}"
    text = sentence(title, number)
    if text is None:
        return f"{title!r} has no sentence {number}"
    return "" if quote.strip(". ") in text else f"{title!r}, {number} does not say {quote!r}"


def test_cited_headings_exist() -> None:
    """A citation names a heading of the protocol; the entry page leads to the chapter that has it."""
    cited = [(note.place, file, title) for note in NOTES for file, title in titles(note.text)]
    assert [one for one in cited if one[2] not in headings(one[1])] == []
    assert len(cited) >= CITATIONS_MIN


def test_cited_sentences_exist_and_are_quoted_verbatim() -> None:
    """A test that quotes a requirement quotes the sentence that has the number."""
    cited = [(note.place, *found.groups("")) for note in NOTES if (found := _SENTENCE.match(note.text))]
    assert {place: why for place, *citation in cited if (why := why_wrong(*citation))} == {}
    assert cited


def test_cited_promises_exist() -> None:
    """P1 to P13, and V1 to V5 of the shared view in the sources that are about it."""
    promises = set(re.findall(r"^\d+\. \*\*P(\d+) ", section("Promises"), re.MULTILINE))
    cited = [(note.place, number) for note in NOTES for number in _PROMISE.findall(note.text)]
    assert [one for one in cited if one[1] not in promises] == []
    rules = set(re.findall(r"^\*\*V(\d)\*\*", (FOLDER.parent / "shared-view.md").read_text(), re.MULTILINE))
    of_view = [(note.place, number) for note in NOTES if "view" in note.place for number in _RULE.findall(note.text)]
    assert [one for one in of_view if one[1] not in rules] == []


def test_paths_of_the_protocol_exist() -> None:
    """A path below protocols/ in a source is that of a file or a folder."""
    named = [(path, found) for path in FILES for found in _PATH.findall(path.read_text())]
    assert [one for one in named if not (ROOT / one[1]).exists()] == []
    assert named


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('Frames (opengnsp.md, "Framing").', ["Framing"]),
        ('Judged (opengnsp.md, "Cap") and offered ("Pools").', ["Cap", "Pools"]),
        ('Commits (opengnsp.md, "Promises", P1 and P2).', ["Promises"]),
        ('opengnsp.md, "Verdict" and "Flap damping"', ["Verdict", "Flap damping"]),
        ('Reads ("Monotonic reads").', ["Monotonic reads"]),
        ('Frames (opengnsp/transport.md, "Framing")', ["Framing"]),
        ('The reply ("it is full") is text.', []),
    ],
)
def test_each_form_of_a_citation_is_recognized(text: str, found: list[str]) -> None:
    """The patterns of this test find what they are for."""
    assert [title for _, title in titles(text)] == found


def test_a_wrong_citation_is_found() -> None:
    """A heading, a number and a quotation that the protocol does not have."""
    assert "Digests" in headings("opengnsp.md") and "While the moon is full" not in headings("opengnsp.md")
    assert "Digests" not in headings("opengnsp/transport.md") and not headings("opengnsp/none.md")
    assert why_wrong("Many moons", "1", "") and why_wrong("Announcements", "99", "")
    assert why_wrong("Announcements", "1", "A server may announce itself as it likes")
    assert not why_wrong("Announcements", "4", "... and how many datagrams it reads in a second")
