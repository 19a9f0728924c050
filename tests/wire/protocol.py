"""The written protocol as text: the entry page `protocols/opengnsp.md` and its chapters below `protocols/opengnsp/`."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENTRY = ROOT / "protocols" / "opengnsp.md"
FOLDER = ROOT / "protocols" / "opengnsp"
CHAPTERS = sorted(FOLDER.rglob("*.md"))
DOCUMENT = "\n".join(path.read_text() for path in CHAPTERS)
"""All chapters, one after the other. The entry page states no rule of its own."""
ANCHORS_OF_ONE_FILE = (
    "concepts",
    "names",
    "objects",
    "transport",
    "framing",
    "versions",
    "sessions",
    "messages",
    "requests",
    "replies",
    "watching-what-a-host-does",
    "digests",
    "dialled-sessions",
    "many-servers",
    "announcements",
    "epochs",
    "failure-reports",
    "several-servers",
    "while-the-store-is-away",
    "pools",
    "exchanges",
    "limits",
    "timers",
    "refusals",
    "promises",
    "extending",
    "vectors",
)
"""The chapters of the protocol when it was one file: their anchors stay on the entry page."""


def section(heading: str) -> str:
    """Return the text under a heading of whatever level, up to the next heading of the same or a higher level."""
    starts = list(re.finditer(rf"^(#+) {re.escape(heading)}$", DOCUMENT, re.MULTILINE))
    assert len(starts) == 1, f"{len(starts)} sections {heading!r} instead of one"
    rest = DOCUMENT[starts[0].end() :]
    end = re.search(rf"^#{{1,{len(starts[0][1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest
