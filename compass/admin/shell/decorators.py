"""Decorators for commands: each command gets the context, has --json, and ends its help with examples."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from compass.admin.shell.build_request import duration, metadata
from compass.admin.shell.context import AdminContext

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


def command(
    group: click.Group, name: str, *lines: str, options: tuple[Callable[..., Any], ...] = ()
) -> Callable[[Callable[..., None]], click.Command]:
    """Add a command to `group`. `lines` are its examples, `options` the options that it shares with other commands."""

    def make(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def called(*arguments: Any, **named: Any) -> None:
            function(click.get_current_context().ensure_object(AdminContext), *arguments, **named)

        decorated: Callable[..., None] = called
        for option in reversed(options):
            decorated = option(decorated)
        return group.command(name, epilog=examples(*lines))(json_option(decorated))

    return make


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
