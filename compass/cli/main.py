"""Commands of `opengnsc`, the client of the host API for services and scripts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import compass
from compass.cli.context import (
    DETAIL,
    ENDPOINT,
    JSON_OPTION,
    NAME,
    PORT,
    PROGRAM,
    SERVICE,
    SHARE,
    CliContext,
    address_option,
    api_option,
    credential_of,
    credential_options,
    location_options,
    make_command,
    metadata_of,
    metadata_options,
    protocol_metadata,
    protocol_option,
)
from compass.cli.doctor import examine, lines_of
from compass.cli.output import as_json, line_of_event, lines_of_outcome, lines_of_resolved, lines_of_status, tree_of
from compass.cli.run_command import run
from compass.cli.templates import template
from compass.model.exit_codes import ExitCode, exit_table
from compass.model.host_api import LocalDeregister, LocalLoad, LocalRegister, LocalReport
from compass.system.command_line import CheckedGroup, print_text, version_option


@click.group(
    PROGRAM,
    cls=CheckedGroup,
    epilog=f"\b\n{exit_table(PROGRAM, with_codes=True)}",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@version_option(compass.__version__)
@api_option("OPENGNS_API")
@JSON_OPTION
def cli() -> None:
    """Use the OpenGNS daemon of this host: register services, look up others, report listeners that failed.

    opengnscd answers from memory, also when no server can be reached. 'opengnsc COMMAND --help' shows examples.
    """


cli.hints = {
    "dev": "opengns dev",
    "get": "opengnsc resolve SERVICE",
    "list": "opengnsc query SERVICE, or opengnsadmin service list",
    "lookup": "opengnsc resolve SERVICE",
    "members": "opengnsadmin host list",
    "put": "opengnsc register SERVICE PORT",
    "services": "opengnsadmin service list",
}


def _command(name: str, *examples: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of this program, as `make_command` does."""

    def make(function: Callable[..., None]) -> click.Command:
        made = make_command(name, *examples)(function)
        cli.add_command(made)
        return made

    return make


@_command(
    "register",
    "register chinaserver.openuss 2028 --credential-file /etc/opengns/chinaserver.token",
    "register chinaserver.openuss 2028 --address 192.0.2.7 --weight 2 --metadata zone=b --pid 4711",
)
@click.argument("service", type=SERVICE)
@click.argument("port", type=PORT)
@address_option
@credential_options
@metadata_options
@location_options
@protocol_option
@click.option(
    "--pid",
    type=click.IntRange(1),
    default=None,
    help="Number of the process that serves, as you see it; if it dies, the listener is marked down.",
)
@click.option(
    "--hold",
    is_flag=True,
    help="Stay in the foreground; the registration ends with this program. It works in every container.",
)
def register(
    context: CliContext,
    service: str,
    port: int,
    address: str | None,
    credential: str | None,
    credential_file: Path | None,
    weight: int,
    metadata: tuple[str, ...],
    protocol: str,
    pid: int | None,
    hold: bool,
    **placed: Any,
) -> None:
    """Register SERVICE at PORT of this host (function 2.1)."""
    token = credential_of(context, credential, credential_file)
    described = metadata_of(metadata) | protocol_metadata(protocol)
    wish = LocalRegister(service, port, token, address or "", weight, described, pid or 0, hold, **placed)
    for outcome in context.api.hold(wish, context.print_note) if hold else (context.api.register(wish),):
        context.print_result(lines_of_outcome(outcome), outcome)


@_command("load", "load chinaserver.openuss 2028 0.35 --credential-file /etc/opengns/chinaserver.token")
@click.argument("service", type=SERVICE)
@click.argument("port", type=PORT)
@click.argument("load", type=SHARE)
@address_option
@credential_options
def load(
    context: CliContext,
    service: str,
    port: int,
    load: float,
    address: str | None,
    credential: str | None,
    credential_file: Path | None,
) -> None:
    """Report the load of the listener at PORT: LOAD is 0 (idle) to 1 (full).

    It matters if the category's pool policy depends on load ('opengnsadmin category set --pool'). Each report is a
    change that is sent to all users, so report every few seconds at most, in steps of a tenth.
    """
    outcome = context.api.report_load(
        LocalLoad(service, port, credential_of(context, credential, credential_file), load, address or "")
    )
    context.print_result(lines_of_outcome(outcome), outcome)


@_command("deregister", "deregister chinaserver.openuss 2028 --credential-file /etc/opengns/chinaserver.token")
@click.argument("service", type=SERVICE)
@click.argument("port", type=PORT)
@address_option
@credential_options
@click.option(
    "--epoch",
    type=click.IntRange(0),
    default=0,
    help="Deregister only this instance; register --json prints its epoch.",
)
def deregister(
    context: CliContext,
    service: str,
    port: int,
    address: str | None,
    credential: str | None,
    credential_file: Path | None,
    epoch: int,
) -> None:
    """Deregister SERVICE at PORT of this host (function 2.2)."""
    token = credential_of(context, credential, credential_file)
    outcome = context.api.deregister(LocalDeregister(service, port, token, address or "", epoch))
    context.print_result(lines_of_outcome(outcome), outcome)


@_command("query", "query frontpage.web", "query frontpage.web --json | jq '.categories[].services[].listeners'")
@click.argument("service", type=SERVICE)
def query(context: CliContext, service: str) -> None:
    """Show the dependencies of SERVICE: categories, services, listeners, backups (function 2.3)."""
    dependencies = context.api.dependencies(service)
    context.print_result(tree_of(dependencies), dependencies)


@_command("resolve", "resolve chinaserver.openuss", "resolve openuss | head -1", "resolve openuss --json")
@click.argument("name", type=NAME)
def resolve(context: CliContext, name: str) -> None:
    """Print the listeners to use for a service or a category, one address:port per line, best first.

    If a service has no usable listener, those of its backup are printed. If there are none either, the exit status
    is 9.
    """
    resolved = context.api.resolve(name)
    if context.in_json or resolved.listeners:
        context.print_result(lines_of_resolved(resolved), resolved)
    if not resolved.listeners:
        context.print_note(f"{name}: no usable listener is registered")
        sys.exit(ExitCode.NONE_USABLE)


@_command(
    "report",
    "report chinaserver.openuss 192.0.2.7:2028",
    "report chinaserver.openuss '[2001:db8::7]:2028' --slow --reporter frontpage.web --detail 'answers after 9 s'",
)
@click.argument("service", type=SERVICE)
@click.argument("listener", type=ENDPOINT, metavar="ADDRESS:PORT")
@click.option("--slow", is_flag=True, help="The listener answers, but too late; only administrators are notified.")
@click.option("--reporter", type=SERVICE, help="The service that noticed it (default: this host).")
@click.option(
    "--detail",
    type=DETAIL,
    default="",
    help="Description of the failure, for administrators; made one line and cut to 255 characters.",
)
def report(
    context: CliContext, service: str, listener: tuple[str, int], slow: bool, reporter: str | None, detail: str
) -> None:
    """Report that a listener of SERVICE cannot be reached (function 2.5).

    The server probes the listener before it notifies other hosts; this host avoids the listener in the meantime.
    """
    address, port = listener
    state: Any = "slow" if slow else "unreachable"
    outcome = context.api.report(LocalReport(service, address, port, state, reporter or "", detail))
    context.print_result(lines_of_outcome(outcome), outcome)


@_command("watch", "watch frontpage.web", "watch frontpage.web --json | while read -r event; do reload; done")
@click.argument("service", type=SERVICE)
@click.option("--since", type=click.IntRange(0), default=None, help="Print only changes after this revision.")
def watch(context: CliContext, service: str, since: int | None) -> None:
    """Print the dependencies of SERVICE and then each change, one line each, until interrupted.

    A lost connection is restored automatically; output continues after the last line and nothing is left out.
    """
    for event in context.api.follow(service, since, context.print_note):
        print_text(as_json(event, indent=None) if context.in_json else line_of_event(event))
        sys.stdout.flush()


@_command("status", "status", "status --json | jq .session")
def status(context: CliContext) -> None:
    """Show the state of this host's daemon: its session, its data, and the registrations of this host."""
    status = context.api.status()
    context.print_result(lines_of_status(status), status)


@_command("doctor", "doctor", "doctor --json | jq '.checks[] | select(.ok | not)'")
def doctor(context: CliContext) -> None:
    """Check this host from end to end: daemon, certificates, clock, session, data, registrations, DNS.

    Each failed check says what to do. The exit status is 0 if every check is ok, else 1.
    """
    checks = list(examine(context.api))
    context.print_result(lines_of(checks), {"type": "doctor", "checks": checks})
    if not all(one.ok for one in checks):
        sys.exit(ExitCode.FAILED)


@_command("completion", "completion bash > ~/.local/share/bash-completion/completions/opengnsc")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(context: CliContext, shell: str) -> None:
    """Print the completion script of this program for SHELL.

    \b
    bash: into ~/.local/share/bash-completion/completions/opengnsc
    zsh:  into a file named _opengnsc in a directory of $fpath
    fish: into ~/.config/fish/completions/opengnsc.fish
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None  # Click has one for each of the choices.
    source = made(cli, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source()
    context.print_result([source], {"type": "completion", "shell": shell, "source": source})


cli.add_command(run)
cli.add_command(template)


def main() -> None:
    """Run the console script."""
    cli(prog_name=PROGRAM)


if __name__ == "__main__":
    main()
