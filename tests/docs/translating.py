"""Copy the blocks of the English pages into the Chinese ones: python -m tests.docs.translating.

Both have the same blocks in the same order; only the text between them is translated.
"""

from __future__ import annotations

from tests.docs.pages import ROOT, blocks

PAIRS = {"README.md": "README.zh.md", "docs/tutorial.md": "docs/tutorial.zh.md"}


def main() -> None:
    """Replace the content of every block."""
    for page, other in PAIRS.items():
        lines = (ROOT / other).read_text().splitlines(keepends=True)
        for source, block in reversed(list(zip(blocks(page), blocks(other), strict=True))):
            assert source.language == block.language, f"{other}:{block.line}"
            lines[block.line : block.end] = [source.text]
        (ROOT / other).write_text("".join(lines))


if __name__ == "__main__":
    main()
