"""Manual pages and shell completions, made from the programs' own help: `make man`, after a change of any of them.

    python contrib/make_pages.py [DIRECTORY]

One page for each program tells all of its commands, as a page for each would be a hundred. Two more explain the
configuration files by what --print-config writes. `tests/docs/test_pages.py` sees that they are current.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from compass.admin.main import cli as opengnsadmin
from compass.cli.main import cli as opengnsc
from compass.daemons import main
from compass.daemons.config.settings import HostConfig, ServerConfig, example
from compass.daemons.development.command import cli as opengns

HERE = Path(__file__).parent
PROGRAMS: dict[str, click.Command] = {
    "opengns": opengns,
    "opengnssd": main.server,
    "opengnscd": main.host,
    "opengnsc": opengnsc,
    "opengnsadmin": opengnsadmin,
}
FILES = {"opengnssd.toml": ServerConfig, "opengnscd.toml": HostConfig}
SEE_ALSO = "opengns(1), opengnssd(1), opengnscd(1), opengnsc(1), opengnsadmin(1), opengnssd.toml(5), opengnscd.toml(5)"
SHELLS = {"bash": "{}", "zsh": "_{}", "fish": "{}.fish"}
WIDTH = 78
"""Of the help as it is quoted: fits a terminal of 80 columns with a margin."""


def quoted(text: str) -> str:
    """Text as roff shows it: nothing in it is a request or an escape."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"(?m)^([.'])", r"\\&\1", text)


def commands(command: click.Command, context: click.Context) -> Iterator[click.Context]:
    """The context of each command below, hidden ones left out."""
    if not isinstance(command, click.Group):
        return
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        if below is None or below.hidden:
            continue
        inner = click.Context(below, context, name, max_content_width=WIDTH, terminal_width=WIDTH)
        yield inner
        yield from commands(below, inner)


def program_page(name: str, command: click.Command) -> str:
    """The page of a program, section 1."""
    settings = {**command.context_settings, "max_content_width": WIDTH, "terminal_width": WIDTH}
    context = click.Context(command, info_name=name, **settings)
    lines = [*head(name, 1, command.get_short_help_str(limit=100).rstrip(".").lower())]
    lines += [".SH DESCRIPTION", ".nf", quoted(command.get_help(context)), ".fi"]
    for inner in commands(command, context):
        lines += [f'.SH "{quoted(inner.command_path.upper())}"', ".nf", quoted(inner.command.get_help(inner)), ".fi"]
    return "\n".join([*lines, ".SH SEE ALSO", quoted(SEE_ALSO), ""])


def file_page(name: str, kind: type[ServerConfig | HostConfig]) -> str:
    """The page of a configuration file, section 5."""
    lines = [*head(name, 5, f"configuration of {name.partition('.')[0]}"), ".SH DESCRIPTION"]
    lines.append(quoted("TOML. Required keys are shown with an example, all others as comments with their default."))
    lines += ["Relative paths are relative to the directory of the file.", ".PP", ".nf", quoted(example(kind)), ".fi"]
    return "\n".join([*lines, ".SH SEE ALSO", quoted(SEE_ALSO), ""])


def head(name: str, section: int, what: str) -> Iterator[str]:
    """The lines that man(7) and whatis(1) want."""
    yield f'.TH "{name.upper()}" "{section}" "" "compass" "OpenGNS"'
    yield from (".SH NAME", f"{quoted(name)} \\- {quoted(what)}")


def completion(name: str, command: click.Command, shell: str) -> str:
    """What makes a shell complete a program."""
    made = get_completion_class(shell)
    assert made is not None  # Click has one for each of SHELLS.
    return made(command, {}, name, f"_{name.upper()}_COMPLETE").source()


def pages() -> dict[str, str]:
    """Every file that is made, by its path below this directory."""
    made = {f"man/{name}.1": program_page(name, command) for name, command in PROGRAMS.items()}
    made |= {f"man/{name}.5": file_page(name, kind) for name, kind in FILES.items()}
    for shell, file in SHELLS.items():
        made |= {f"completions/{file.format(n)}": completion(n, command, shell) for n, command in PROGRAMS.items()}
    return made


def write(directory: Path) -> None:
    """Write all of them below a directory."""
    for file, text in pages().items():
        path = directory / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
