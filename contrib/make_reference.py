"""Write the generated parts of docs/reference: `make man`, after a change of a setting, an option or a help text.

    python contrib/make_reference.py [DIRECTORY]

Each page has an introduction that is written by hand, and a pair of markers `<!-- made -->` and `<!-- /made -->`. What
stands between them comes from the programs: the settings of both daemons with type, default and description, the
commands of `opengnsc` and `opengnsadmin` with their help, and the tables of a store. `tests/docs/test_reference.py`
checks that it is current.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from make_pages import PROGRAMS, commands
from setting_types import settings

from compass.daemons.config.settings import HostConfig, ServerConfig
from compass.store import schema

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "reference"
MARKED = re.compile(r"<!-- made -->\n.*?<!-- /made -->", re.DOTALL)
WIDTH = 100
"""Columns of a usage line in a code block: what GitHub shows without scrolling."""


def configuration() -> Iterator[str]:
    """Yield the lines of the page about both files."""
    for program, kind in (("opengnssd", ServerConfig), ("opengnscd", HostConfig)):
        yield from (f"## {program}.toml", "")
        section = ""
        for one in settings(kind):
            if one.section != section:
                section = one.section
                yield from ("", f"### {section} of {program}", "")
                yield from ("| key | type | default | description |", "|---|---|---|---|")
            default = f"`{cell(one.default)}`" if one.default else "required"
            yield f"| `{one.key}` | {cell(one.type)} | {default} | {cell(prose(one.description))} |"
        yield ""
    yield from ("## Command lines of the daemons", "")
    top = context_of("opengns")
    for inner in commands(top.command, top):
        yield from section_of(inner, 3, tuple(options_of(top)))
    for program in ("opengnssd", "opengnscd"):
        top = context_of(program)
        for context in (top, *commands(top.command, top)):
            yield from section_of(context, 3, ())


def tables() -> Iterator[str]:
    """Yield the lines of the page about the tables of a store; a column's text is the comment above it in schema.py."""
    source = inspect.getsource(schema)
    for table in schema.metadata.tables.values():
        block = source[source.index(f'= Table(\n    "{table.name}"') :]
        yield from (f"## {table.name}", "", "| column | type | key | content |", "|---|---|---|---|")
        for column in table.columns:
            found = re.search(rf'((?:    # .*\n)+)    Column\(\s*"{column.name}"', block)
            if found is None:
                raise ValueError(f"schema.py has no comment above {table.name}.{column.name}")
            text = " ".join(line.strip().removeprefix("# ") for line in found[1].splitlines())
            references = sorted(f"`{one.target_fullname}`" for one in column.foreign_keys)
            key = ", ".join(["primary"] * column.primary_key + references)
            yield f"| `{column.name}` | {column.type} | {key} | {cell(prose(text))} |"
        yield ""


def context_of(program: str) -> click.Context:
    """Return the context of a whole program."""
    return click.Context(PROGRAMS[program], info_name=program, max_content_width=WIDTH, terminal_width=WIDTH)


def program_reference(program: str) -> Iterator[str]:
    """Yield the lines of the page about a program: its own options, then every command."""
    top = context_of(program)
    yield from ("## Options and exit statuses", "", *body_of(top, ()))
    below = list(commands(top.command, top))
    yield from ("## Commands", "", *overview(below), "")
    for inner in below:
        yield from section_of(inner, 3, tuple(options_of(top)))


def section_of(context: click.Context, level: int, common: tuple[tuple[str, str], ...]) -> Iterator[str]:
    """Yield a command with a heading of its own. `common`: options that are described once for all commands."""
    yield from (f"{'#' * level} {context.command_path}", "", *body_of(context, common))


def body_of(context: click.Context, common: tuple[tuple[str, str], ...]) -> Iterator[str]:
    """Yield usage, text, options and examples of a command."""
    command = context.command
    usage = "".join(command.get_usage(context)).removeprefix("Usage: ")
    yield from ("```text", *[line.removeprefix(" " * 7) for line in usage.splitlines()], "```", "")
    yield from blocks(inspect.cleandoc(command.help or "").partition("\f")[0])
    own = [option for option in options_of(context) if option not in common]
    shared = [names.split()[0].rstrip(",") for names, text in options_of(context) if (names, text) in common]
    if own:
        yield from ("| option | description |", "|---|---|")
        yield from (f"| `{cell(names)}` | {cell(prose(text))} |" for names, text in own)
        yield ""
    if shared:
        yield from ("Common options: " + ", ".join(f"`{name}`" for name in shared) + ".", "")
    yield from blocks(command.epilog or "")


def options_of(context: click.Context) -> Iterator[tuple[str, str]]:
    """Yield names and description of each option but --help."""
    for parameter in context.command.params:
        record = parameter.get_help_record(context)
        if record is not None and isinstance(parameter, click.Option):
            yield record[0], " ".join(record[1].split())


def overview(contexts: list[click.Context]) -> Iterator[str]:
    """Yield a table of commands, each a link to its section."""
    yield from ("| command | |", "|---|---|")
    for context in contexts:
        path = context.command_path.partition(" ")[2]
        anchor = re.sub(r"[^a-z0-9-]+", "-", context.command_path)
        short = context.command.get_short_help_str(limit=200)
        yield f"| [`{path}`](#{anchor}) | {cell(prose(short))} |"


def blocks(text: str) -> Iterator[str]:
    """Yield the paragraphs of a help text; those that click leaves as they are (`\\b`) become blocks of code."""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines = paragraph.splitlines()
        if lines and lines[0].strip() == "\b":
            title, rest = (lines[1], lines[2:]) if lines[1].rstrip().endswith(":") else ("", lines[1:])
            if title:
                yield from (f"{prose(title)}", "")
            yield from ("```text", *inspect.cleandoc("\n" + "\n".join(rest)).splitlines(), "```", "")
        elif lines:
            yield from (prose(" ".join(line.strip() for line in lines)), "")


def prose(text: str) -> str:
    """Return a help text as Markdown: `<` and `*` stand for themselves, and a path of a page becomes a link."""
    pieces = text.split("`")
    pieces[::2] = [re.sub(r"([<*])", r"\\\1", piece) for piece in pieces[::2]]
    return re.sub(r"(?<![`\w/])((?:docs|protocols)/[\w./-]+\.md)", link, "`".join(pieces))


def link(match: re.Match[str]) -> str:
    """Return a link from a page in PAGES to the page that a help text names by its path."""
    path = Path(match[1])
    return f"[{path.name}]({os.path.relpath(ROOT / path, PAGES)})"


def cell(text: str) -> str:
    """Return a text that is one cell of a table."""
    return text.replace("|", "\\|")


def pages() -> dict[str, str]:
    """Return every page that has a generated part, with that part current."""
    made: dict[str, Any] = {
        "configuration.md": configuration(),
        "opengnsc.md": program_reference("opengnsc"),
        "opengnsadmin.md": program_reference("opengnsadmin"),
        "tables.md": tables(),
    }
    return {name: filled((PAGES / name).read_text(), "\n".join(lines)) for name, lines in made.items()}


def filled(page: str, text: str) -> str:
    """Return a page with `text` between its markers. Raises ValueError when it has not one pair of them."""
    if len(MARKED.findall(page)) != 1:
        raise ValueError("a page needs one pair of <!-- made --> and <!-- /made -->")
    text = re.sub(r"\n{3,}", "\n\n", text.strip())
    block = f"<!-- made -->\n\n{text}\n\n<!-- /made -->"
    return MARKED.sub(lambda _: block, page)


def write(directory: Path) -> None:
    """Write all of them into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (directory / name).write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else PAGES)
