"""Decorators for commands: each command gets the context, has --json, and ends its help with examples."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click

from compass.admin.shell.build_request import duration, metadata
from compass.admin.shell.connection import ConnectionFailed
from compass.admin.shell.context import AdminContext, Failed
from compass.admin.shell.formats import format_time
from compass.system.command_line import print_text

Command = TypeVar("Command", bound=Callable[..., Any])


def examples(*lines: str) -> str:
    """Return an epilog that click does not reformat."""
    return "\b\nExamples:\n" + "\n".join(f"  opengnsadmin {line}" for line in lines)


def _set_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(AdminContext).in_json = True


json_option = click.option(
    "--json", is_flag=True, expose_value=False, callback=_set_json, help="Print JSON, errors too, instead of text."
)


WATCH_SECONDS = 2.0
"""Pause between two looks with --watch, unless --interval says otherwise."""
WATCH_SECONDS_MIN, WATCH_SECONDS_MAX = 0.1, 3600.0
"""Bounds of it: a person reads no faster than that, and a server has others to answer."""
_watch_options = (
    click.option("--watch", is_flag=True, help="Show it again and again, until Ctrl-C."),
    click.option(
        "--interval",
        type=click.FloatRange(WATCH_SECONDS_MIN, WATCH_SECONDS_MAX),
        default=WATCH_SECONDS,
        show_default=True,
        metavar="SECONDS",
        help="Pause of --watch.",
    ),
)


def command(
    group: click.Group,
    name: str,
    *lines: str,
    options: tuple[Callable[..., Any], ...] = (),
    watchable: bool = False,
) -> Callable[[Callable[..., None]], click.Command]:
    """Add a command to `group`. `lines` are its examples, `options` the options that it shares with other commands.

    `watchable`: the command only shows something, and can do so again and again (`--watch`).
    """

    def make(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def called(*arguments: Any, watch: bool = False, interval: float = WATCH_SECONDS, **named: Any) -> None:
            context = click.get_current_context().ensure_object(AdminContext)
            if watch:
                repeat(context, interval, lambda: function(context, *arguments, **named))
            function(context, *arguments, **named)

        decorated: Callable[..., None] = called
        for option in reversed((*options, *_watch_options) if watchable else options):
            decorated = option(decorated)
        return group.command(name, epilog=examples(*lines))(json_option(decorated))

    return make


def repeat(context: AdminContext, seconds: float, show: Callable[[], None]) -> NoReturn:
    """Call `show` again and again, on a terminal each time from its top, until the program is interrupted.

    A server that does not answer is a note, and is asked again: what is watched is often an outage.
    """
    is_first = True
    while True:
        if sys.stdout.isatty():
            click.clear()
            print_text(f"every {seconds:g} s; {format_time(context.machine.now(), context.time_format)}\n")
        elif not is_first and not context.in_json:
            print_text("")
        try:
            show()
        except (ConnectionFailed, Failed) as problem:
            if is_first and not isinstance(problem, ConnectionFailed):
                # A wrong argument or a missing right will be wrong the next time, too.
                raise
            context.close_session()
            context.print_note(f"opengnsadmin: {problem}")
        is_first = False
        sys.stdout.flush()
        context.machine.sleep(seconds)


class _ParsedParam(click.ParamType):  # type: ignore[type-arg]  # generic only for mypy, not in click 8.1
    """Parameter type parsed by a pure function, whose ValueError says what would be right."""

    def parse(self, text: str) -> Any:
        """Return the value that a text stands for. Raises ValueError."""
        raise NotImplementedError

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except ValueError as problem:
            self.fail(str(problem), param, ctx)


class _Duration(_ParsedParam):
    name = "duration"

    def parse(self, text: str) -> float:
        return duration(text)


class _Pair(_ParsedParam):
    name = "key=value"

    def parse(self, text: str) -> tuple[str, str]:
        return next(iter(metadata([text]).items()))


DURATION = _Duration()
PAIR = _Pair()
