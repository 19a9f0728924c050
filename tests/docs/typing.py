"""Type a page: `python -m tests.docs.typing PAGE… [--rewrite] [--wheel FILE]`.

`--rewrite` writes the real output into the page, except for blocks with `...` that are right already; review the
difference before committing it. `--wheel` types the page from an empty environment, installation included.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.docs.pages import ROOT, SHELLS, Block, blocks
from tests.docs.shell import LOOPBACK, Shell, matches, play
from tests.packaging.installed import built, installed

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
REWRITE_SECONDS = 8.0
"""Pause before the output of a block `again` is recorded."""


def type_page(
    page: str, home: Path, path: str, network: str = LOOPBACK, *, install: bool = False, rewrite: bool = False
) -> list[str]:
    """Type a page in order, with `install` also the blocks that install. Returns the differences, readable."""
    wrong: list[str] = []
    new: list[tuple[Block, str]] = []
    with Shell(home, path, network) as shell:
        for block in blocks(page):
            if block.mark.startswith("not run") or (block.mark == "install" and not install):
                continue
            if block.file:
                shell.write_file(block.file, block.text)
            elif block.language in SHELLS:
                if rewrite and block.mark == "again":
                    time.sleep(REWRITE_SECONDS)
                played = play(shell, block, block.mark == "again" and not rewrite)
                text = ""
                for was, now in zip(block.commands, played, strict=True):
                    good = matches(was.output, now.output)
                    if not good and block.mark != "install":
                        wrong.append(
                            f"{page}:{block.line + 1}: $ {was.text}\n  the page says\n"
                            + "".join(f"    {line}\n" for line in was.output)
                            + "  it was\n"
                            + "".join(f"    {line}\n" for line in now.output)
                        )
                    shown = was.output if good else now.output
                    text += "".join(f"{line}\n" for line in ["$ " + was.text.replace("\n", "\n> "), *shown])
                new.append((block, text))
                if wrong and not rewrite:
                    # The following blocks depend on this one.
                    return wrong
    if rewrite:
        lines = (ROOT / page).read_text().splitlines(keepends=True)
        for block, text in reversed(new):
            if block.mark != "install":
                lines[block.line : block.end] = [text]
        (ROOT / page).write_text("".join(lines))
    return wrong


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="+")
    parser.add_argument("--rewrite", action="store_true")
    parser.add_argument("--wheel", type=Path)
    given = parser.parse_args()
    wrong = []
    for page in given.pages:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="opengns-docs-") as directory:
            home = Path(directory) / "home"
            home.mkdir()
            python = str(Path(sys.base_prefix) / "bin")
            if given.wheel:
                shutil.copy(given.wheel, home)
                path = f"{python}:{SYSTEM_PATH}"
            else:
                path = f"{installed(built(Path(directory)), Path(directory))}:{python}:{SYSTEM_PATH}"
            here = type_page(page, home, path, install=given.wheel is not None, rewrite=given.rewrite)
        print(f"{page}: {time.monotonic() - began:.1f} s, {'as it says' if not here else 'not as it says'}")
        wrong += here
    print("\n".join(wrong), end="")
    return 1 if wrong and not given.rewrite else 0


if __name__ == "__main__":
    # A reader's shell must not find compass in the environment of the tests.
    os.environ.pop("PYTHONPATH", None)
    sys.exit(main())
