"""Commands of `opengnsc template`: show the bundled templates, and render one with this host's current data."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import click
import msgspec
from click.shell_completion import CompletionItem

from compass.cli.context import JSON_OPTION, NAME, CliContext, Failed, api_option, example_lines
from compass.client.core.blocking_api import HostApi
from compass.client.core.view import view_of
from compass.model.catalogue.lookup_scope import LookupScope, scope_of
from compass.model.exit_codes import ExitCode, exit_of
from compass.model.names import category_of
from compass.model.replies import Refusal
from compass.model.selection.pool_view import PoolView, pools_of
from compass.templates import READY, RENDER_COMMAND, RENDER_SECONDS, ready_names, ready_text, reported_failure


@click.group(
    "template", epilog=example_lines("template list", "template show haproxy", "template try haproxy --on openuss")
)
def template() -> None:
    """Show templates of configuration files, and try them with the data of this host.

    opengnscd renders those of [[host.template]] in its configuration and keeps them up to date; these commands write
    no file. See docs/reference/hooks.md.
    """


class ReadyName(click.ParamType):  # type: ignore[type-arg]  # generic only for mypy
    """Parameter type: the name of a bundled template, with completion."""

    name = "name"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        return [CompletionItem(name) for name in ready_names() if name.startswith(incomplete)]


@template.command("list", epilog=example_lines("template list"))
@JSON_OPTION
def list_templates() -> None:
    """List the bundled templates and their purposes."""
    context = _context()
    with context.error_handling():
        about = {name: _about(ready_text(name)) for name in ready_names()}
        width = max(map(len, about))
        context.print_result([f"{name:<{width}}  {text}" for name, text in about.items()], about)


@template.command("show", epilog=example_lines("template show haproxy", "template show nginx > my-nginx.j2"))
@click.argument("name", type=ReadyName())
@JSON_OPTION
def show_template(name: str) -> None:
    """Print the template NAME, as documentation of its values or as a starting point for your own."""
    context = _context()
    with context.error_handling():
        if name not in ready_names():
            raise _no_such(name)
        text = ready_text(name)
        context.print_result([text.rstrip("\n")], {"type": "template", "name": name, "text": text})


@template.command(
    "try",
    epilog=example_lines(
        "template try haproxy --on chinaserver.openuss --value bind=127.0.0.1:8080",
        "template try ./my.j2 --on openuss --on openuso | diff /etc/my.conf -",
    ),
)
@click.argument("source", type=ReadyName(), metavar="NAME|FILE")
@click.option("--on", "names", type=NAME, multiple=True, help="Category or service (default: all categories).")
@click.option(
    "--value", "values", multiple=True, metavar="KEY=VALUE", help="Value for the template's `values`; repeatable."
)
@api_option(None)
@JSON_OPTION
def try_template(source: str, names: tuple[str, ...], values: tuple[str, ...]) -> None:
    """Render a template and print the result: a bundled one by its NAME, or a FILE (with a / or a .j2)."""
    context = _context()
    with context.error_handling():
        given = dict(_parse_value(text) for text in values)
        where = _find_source(source)
        status = context.api.status()
        scopes = list(_lookup_scopes(context.api, status.services))
        wanted = names or tuple(dict.fromkeys(name for scope in scopes for name in sorted(scope.categories or ())))
        if not wanted:
            raise Failed(
                ExitCode.NOT_FOUND,
                "no service of this host has dependencies yet, so there is no data for a template; name services in "
                "the daemon's configuration ([host] services) and declare their dependencies",
            )
        data = {
            "source": where,
            "values": given,
            "host": status.host,
            "zone": status.zone,
            "revision": status.revision,
            "reason": "try",
            "changed": wanted,
            "pools": {name: _pool(scopes, name) for name in wanted},
        }
        text = _render(msgspec.json.encode(data))
        context.print_result([text.rstrip("\n")], {"type": "rendered", "source": where, "text": text})


def _context() -> CliContext:
    return click.get_current_context().ensure_object(CliContext)


def _about(text: str) -> str:
    """Return the first sentence of a template's leading comment."""
    return " ".join(text.partition("{#")[2].partition("#}")[0].split()).partition(". ")[0].removesuffix(".")


def _no_such(name: str) -> Failed:
    return Failed(ExitCode.NOT_FOUND, f"unknown template {name!r}; available: {', '.join(ready_names())}")


def _find_source(text: str) -> str:
    if text in ready_names():
        return READY + text
    if "/" not in text and not text.endswith(".j2"):
        raise _no_such(text)
    if not Path(text).is_file():
        raise Failed(ExitCode.FAILED, f"file not found: {text}")
    return str(Path(text).absolute())


def _parse_value(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not key or not sign:
        raise Failed(ExitCode.USAGE, f"--value {text!r}: must be KEY=VALUE")
    return key, value


def _lookup_scopes(api: HostApi, services: Iterable[str]) -> Iterable[LookupScope]:
    """Yield the lookup scope of each of the host's services."""
    for service in services:
        catalogue = view_of(api.dependencies(service)).catalogue
        yield scope_of(catalogue, [category_of(service)])


def _pool(scopes: Sequence[LookupScope], name: str) -> PoolView:
    """Return the pool of that name as seen by the first service that may look it up. Raises Failed."""
    refusal = Refusal("unknown-dependency", f"{name}: unknown here, because no service of this host is known")
    for scope in scopes:
        pools = pools_of(scope, [name])
        if not isinstance(pools, Refusal):
            return pools[name]
        refusal = pools
    raise Failed(exit_of(refusal.code), refusal.message, refusal.code)


def _render(data: bytes) -> str:
    try:
        ended = subprocess.run(RENDER_COMMAND, input=data, capture_output=True, timeout=RENDER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Failed(ExitCode.BAD_INPUT, f"cannot render: time limit of {RENDER_SECONDS:g} s exceeded") from None
    if ended.returncode:
        # As in the daemon: a program that ends without output, by a signal for instance, is reported by its status.
        raise Failed(
            ExitCode.BAD_INPUT,
            f"cannot render: {reported_failure(ended.stdout) or f'the program ended with {ended.returncode}'}",
        )
    return ended.stdout.decode()
