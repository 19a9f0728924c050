"""The pages of the documentation, their blocks of code, and the choice of blocks that a test types.

A fenced block `console` is a session: lines that start with `$ ` are typed (`> ` continues one), the others are the
output. A fenced block with a file name after its language, as in `toml topology.toml`, is written to that file. A
comment right before a block says more:

    <!-- again -->             the commands are repeated until the output is right: the effect needs time
    <!-- install -->           typed by `make wheel-check` only; quick runs have an environment with the wheel
    <!-- not run: REASON -->   needs root, the network, or is what runs the tests
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
TYPED = ("README.md", "README.zh.md", "docs/tutorial.md", "docs/tutorial.zh.md")
"""Pages of which a test types every shell block."""
SHELLS = ("console", "sh", "bash", "shell", "zsh")


@dataclass
class Command:
    """Command of a session, with its expected output."""

    text: str
    output: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Block:
    """Fenced or indented block; `line` and `end` are those of its content, counted from 0."""

    page: str
    line: int
    end: int
    language: str
    file: str
    mark: str
    text: str

    @property
    def commands(self) -> list[Command]:
        """Commands of a session."""
        found: list[Command] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append(Command(line[2:]))
            elif line.startswith("> ") and found and not found[-1].output:
                found[-1].text += "\n" + line[2:]
            else:
                assert found, f"{self.page}:{self.line + 1}: output before the first command"
                found[-1].output.append(line)
        return found


def all_pages() -> list[Path]:
    """Return every Markdown file of the project."""
    hidden = (".venv", "build", "node_modules", "site", ".hypothesis", "dist")
    return [p for p in sorted(ROOT.rglob("*.md")) if not any(part in hidden for part in p.relative_to(ROOT).parts)]


def blocks(page: str) -> list[Block]:
    """Return all blocks of code of a page."""
    text = (ROOT / page).read_text()
    found, mark = [], ""
    for token in MarkdownIt().parse(text):
        if token.type == "html_block":
            comment = re.fullmatch(r"<!-- (.*) -->\s*", token.content)
            mark = comment[1] if comment else ""
        elif token.type in ("fence", "code_block"):
            assert token.map is not None
            language, _, file = token.info.strip().partition(" ") if token.type == "fence" else ("indented", "", "")
            start, end = token.map[0] + (token.type == "fence"), token.map[1] - (token.type == "fence")
            found.append(Block(page, start, end, language, file.strip(), mark, token.content))
            mark = ""
        else:
            mark = ""
    return found
