"""Command lines of the programs: arguments are printable text, and every terminal can show what is printed.

Arguments come from scripts, which insert text of others. A program must not fail on octets that are not UTF-8, which
Python decodes to lone surrogates, nor print a forged line or a control sequence of a terminal.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from typing import Any, TypeVar

import click

from compass.model.text import escape, escape_in, unprintable_in


def print_text(text: str, err: bool = False, newline: bool = True, colour: str | None = None) -> None:
    """Print text to a standard stream, with escapes for what its encoding lacks. Foreign parts are escaped already.

    `colour`: shown on a terminal, unless NO_COLOR is set (no-color.org).
    """
    stream = sys.stderr if err else sys.stdout
    # On a stream of ASCII, click would write UTF-8.
    shown = escape_in(text, getattr(stream, "encoding", None) or "ascii")
    if colour and not os.environ.get("NO_COLOR"):
        shown = click.style(shown, fg=colour)
    click.echo(shown, err=err, nl=newline)


_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])

LIBRARIES = ("Twisted", "pyOpenSSL", "cryptography", "SQLAlchemy", "msgspec", "click")
"""Libraries whose versions matter in a report of a fault."""


def version_option(version: str) -> Callable[[_Decorated], _Decorated]:
    """Return the option --version, which shows the versions of the program, of Python and of the libraries."""

    def show(context: click.Context, _: click.Parameter, wanted: bool) -> None:
        if not wanted or context.resilient_parsing:
            return
        print_text(f"{context.find_root().info_name} {version}")
        found = [f"Python {platform.python_version()}"]
        for name in LIBRARIES:
            with suppress(metadata.PackageNotFoundError):
                found.append(f"{name} {metadata.version(name)}")
        print_text(f"with {', '.join(found)}")
        context.exit()

    return click.option(
        "--version",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=show,
        help="Show the version, with those of Python and the libraries, and exit.",
    )


def open_streams() -> None:
    """Let the standard streams of this process write every text; libraries write to them, too."""
    for stream in (sys.stdout, sys.stderr):
        # A stream that a test or an embedding program has put there may not be a file.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


@contextmanager
def printable_errors() -> Iterator[None]:
    """Escape the texts of usage errors, which quote arguments."""
    try:
        yield
    except click.UsageError as error:
        # This one has the help as its text, which has several lines.
        if type(error).__name__ != "NoArgsIsHelpError":
            error.message = escape(error.message)  # type: ignore[misc]  # click assigns it as well
        raise


class CheckedCommand(click.Command):
    """Command whose arguments without a type of their own must be printable, from the environment as well."""

    def make_context(self, *arguments: Any, **named: Any) -> click.Context:
        """Parse the arguments. Raises UsageError."""
        open_streams()
        with printable_errors():
            return super().make_context(*arguments, **named)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. Raises UsageError."""
        rest = super().parse_args(ctx, args)
        check_parameters(ctx, self)
        return rest


class CheckedGroup(CheckedCommand, click.Group):
    """Outermost group of a program: checks its own arguments, and escapes the usage errors of all its commands."""

    command_class = CheckedCommand

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.aliases: dict[str, str] = {}
        """Other names of commands, which no list shows."""
        self.hints: dict[str, str] = {}
        """Commands to type in place of names that people try, by name."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name or another name of it."""
        return super().get_command(ctx, self.aliases.get(cmd_name, cmd_name))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command. Raises UsageError, with what to type instead if the name is one that people try."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if args[0] in self.hints:
                error.message = f"{error.message} Try: {self.hints[args[0]]}"  # type: ignore[misc]
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises UsageError."""
        with printable_errors():
            return super().invoke(ctx)


def check_parameters(ctx: click.Context, command: click.Command) -> None:
    """Check the texts among the values of a command. Raises BadParameter."""
    for param in command.params:
        if not isinstance(param.type, click.types.StringParamType):
            continue
        value = ctx.params.get(param.name or "")
        for text in value if isinstance(value, tuple | list) else (value,):
            if isinstance(text, str) and (found := unprintable_in(text)):
                raise click.BadParameter(f"it has the character {found}, which cannot be printed", ctx, param)
