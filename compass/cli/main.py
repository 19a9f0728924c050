"""`opengnsc`: what services and scripts on a host ask their daemon, as commands."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from compass.cli.context import (
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
    example_lines,
    location_options,
    metadata_of,
    metadata_options,
)
from compass.cli.output import (
    as_json,
    line_of_event,
    lines_of_outcome,
    lines_of_resolved,
    lines_of_status,
    tree_of,
)
from compass.cli.run.readiness import ANSWER_SECONDS, ReadinessCheck
from compass.cli.templates import template
from compass.model.exit_codes import ExitCode, exit_table
from compass.model.host_api import LocalDeregister, LocalLoad, LocalRegister, LocalReport
from compass.model.names import format_endpoint

READY_SECONDS = 30.0
"""For a command to begin listening: what a service that fills a cache first may take."""
SECRET_VARIABLES = ("OPENGNS_CREDENTIAL", "OPENGNS_CREDENTIAL_FILE")
"""Not handed on to a command: it is registered for, and needs no credential itself."""


@click.group(
    PROGRAM,
    epilog=f"\b\n{exit_table(PROGRAM, with_codes=True)}",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="opengns-compass", message="%(prog)s %(version)s")
@api_option("OPENGNS_API")
@JSON_OPTION
def cli() -> None:
    """Ask the OpenGNS daemon of this host: register what serves here, look up what others serve, report what is dead.

    opengnscd answers from memory, also when no server can be reached. 'opengnsc COMMAND --help' has examples.
    """


def _command(name: str, *examples: str) -> Callable[[Callable[..., None]], click.Command]:
    """A command that gets the context first and ends as `Desk.ending` says."""

    def make(function: Callable[..., None]) -> click.Command:
        def called(*arguments: Any, **named: Any) -> None:
            context = click.get_current_context().ensure_object(CliContext)
            with context.error_handling():
                function(context, *arguments, **named)

        called.__doc__ = function.__doc__
        called.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        return cli.command(name, epilog=example_lines(*examples))(api_option(None)(JSON_OPTION(called)))

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
@click.option(
    "--pid", type=click.IntRange(1), default=None, help="The process that serves; if it dies, users are told."
)
@click.option("--hold", is_flag=True, help="Stay, and keep the registration only as long as this program runs.")
def register(
    context: CliContext,
    service: str,
    port: int,
    address: str | None,
    credential: str | None,
    credential_file: Path | None,
    weight: int,
    metadata: tuple[str, ...],
    pid: int | None,
    hold: bool,
    **placed: Any,
) -> None:
    """Say that SERVICE is served at PORT of this host (function 2.1)."""
    token = credential_of(context, credential, credential_file)
    wish = LocalRegister(service, port, token, address or "", weight, metadata_of(metadata), pid or 0, hold, **placed)
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
    """Say how much of the listener at PORT is in use: LOAD is 0 (idle) to 1 (full).

    Its users get it at once when their category's pool policy goes by load ('opengnsadmin category set --pool'). Each
    report is a change that is told to all of them, so report what matters: every some seconds, in steps of a tenth.
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
@click.option("--epoch", type=click.IntRange(0), default=0, help="Only this instance, as register --json named it.")
def deregister(
    context: CliContext,
    service: str,
    port: int,
    address: str | None,
    credential: str | None,
    credential_file: Path | None,
    epoch: int,
) -> None:
    """Say that SERVICE is no longer served at PORT of this host (function 2.2)."""
    token = credential_of(context, credential, credential_file)
    outcome = context.api.deregister(LocalDeregister(service, port, token, address or "", epoch))
    context.print_result(lines_of_outcome(outcome), outcome)


@_command("query", "query frontpage.web", "query frontpage.web --json | jq '.categories[].services[].listeners'")
@click.argument("service", type=SERVICE)
def query(context: CliContext, service: str) -> None:
    """Show all that SERVICE depends on: categories, services, listeners, backups (function 2.3)."""
    dependencies = context.api.dependencies(service)
    context.print_result(tree_of(dependencies), dependencies)


@_command("resolve", "resolve chinaserver.openuss", "resolve openuss | head -1", "resolve openuss --json")
@click.argument("name", type=NAME)
def resolve(context: CliContext, name: str) -> None:
    """Print the listeners to use for a service or a category, one address:port in a line, the best first.

    When none of a service is usable these are its backup's. When there is nothing at all the exit status is 9.
    """
    resolved = context.api.resolve(name)
    if context.in_json or resolved.listeners:
        context.print_result(lines_of_resolved(resolved), resolved)
    if not resolved.listeners:
        context.print_note(f"{name}: nothing is registered that could be used")
        sys.exit(ExitCode.NONE_USABLE)


@_command(
    "report",
    "report chinaserver.openuss 192.0.2.7:2028",
    "report chinaserver.openuss '[2001:db8::7]:2028' --slow --reporter frontpage.web --detail 'answers after 9 s'",
)
@click.argument("service", type=SERVICE)
@click.argument("listener", type=ENDPOINT, metavar="ADDRESS:PORT")
@click.option("--slow", is_flag=True, help="It answers, but too late; administrators are told.")
@click.option("--reporter", type=SERVICE, help="The service that found out. Without it: this host.")
@click.option("--detail", default="", help="What happened, in words, for administrators.")
def report(
    context: CliContext, service: str, listener: tuple[str, int], slow: bool, reporter: str | None, detail: str
) -> None:
    """Say that a listener of SERVICE cannot be reached (function 2.5).

    The server looks for itself before everybody is told; this host does not use the listener meanwhile.
    """
    address, port = listener
    state: Any = "slow" if slow else "unreachable"
    outcome = context.api.report(LocalReport(service, address, port, state, reporter or "", detail))
    context.print_result(lines_of_outcome(outcome), outcome)


@_command("watch", "watch frontpage.web", "watch frontpage.web --json | while read -r event; do reload; done")
@click.argument("service", type=SERVICE)
@click.option("--since", type=click.IntRange(0), default=None, help="Only what came after this revision.")
def watch(context: CliContext, service: str, since: int | None) -> None:
    """Print all that SERVICE depends on and then each change of it, one line each, until interrupted.

    When the connection is lost it comes back by itself and goes on after the last line; nothing is left out.
    """
    for event in context.api.follow(service, since, context.print_note):
        click.echo(as_json(event, indent=None) if context.in_json else line_of_event(event))
        sys.stdout.flush()


@_command("status", "status", "status --json | jq .session")
def status(context: CliContext) -> None:
    """Show how the daemon of this host is: its session, its view, and what is registered here."""
    told = context.api.status()
    context.print_result(lines_of_status(told), told)


@_command(
    "run",
    "run chinaserver.openuss --port 2028 --credential-file /etc/opengns/chinaserver.token -- my-server --listen 2028",
    "run frontpage.web --port 8080 --address 192.0.2.7 -- gunicorn --bind 192.0.2.7:8080 pages:app",
)
@click.argument("service", type=SERVICE)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--port", type=PORT, required=True, help="Where the command listens.")
@address_option
@credential_options
@metadata_options
@location_options
@click.option(
    "--also",
    type=(SERVICE, PORT, click.Path(exists=True, dir_okay=False, path_type=Path)),
    multiple=True,
    metavar="SERVICE PORT FILE",
    help="Another service of the same command, where it listens, and the file with its credential. Repeatable.",
)
@click.option(
    "--ready-timeout",
    type=click.FloatRange(0, min_open=True),
    default=READY_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long the command may take until it listens and passes its check.",
)
@click.option("--check-http", default="", metavar="PATH", help="Register when GET of this path is answered below 400.")
@click.option("--check-command", default="", metavar="COMMAND", help="Register when this ends with status 0.")
@click.option(
    "--check-timeout",
    type=click.FloatRange(0, min_open=True),
    default=ANSWER_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long one check may take.",
)
@click.option(
    "--drain",
    type=click.FloatRange(0),
    default=0.0,
    metavar="SECONDS",
    help="Before a stop, let users go for so long: no new ones come, those that are there are served.",
)
@click.option(
    "--restart",
    type=click.Choice(["no", "on-failure", "always"]),
    default="no",
    show_default=True,
    help="Start the command again when it ends without being asked to; first after half a second, then ever later.",
)
@click.option(
    "--restart-limit",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="At most so many new starts in a row; a minute of running begins the count anew. 0: without end.",
)
@click.option(
    "--dependencies-file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    metavar="FILE",
    help="Keep what the service depends on in this file, as JSON that is replaced whole at each change.",
)
def run(
    context: CliContext,
    service: str,
    command: tuple[str, ...],
    port: int,
    address: str | None,
    credential: str | None,
    credential_file: Path | None,
    weight: int,
    metadata: tuple[str, ...],
    also: tuple[tuple[str, int, Path], ...],
    ready_timeout: float,
    check_http: str,
    check_command: str,
    check_timeout: float,
    drain: float,
    restart: Any,
    restart_limit: int,
    dependencies_file: Path | None,
    **placed: Any,
) -> None:
    """Run COMMAND, registered as SERVICE from when it listens until it ends, however it ends.

    COMMAND stays in the foreground and finds in its environment OPENGNS_SERVICE, OPENGNS_PORT and (with --address)
    OPENGNS_ADDRESS, and for each category that it depends on OPENGNS_DEPENDENCY_<CATEGORY> with the listeners that
    were usable when it started. SIGTERM, SIGINT and SIGQUIT first let users go (--drain) and deregister, so that they
    are told before it is gone, and are then passed on, like SIGHUP, SIGUSR1 and SIGUSR2; a second one does not wait.
    If it crashes, opengnscd tells its users within a second. When opengnscd is not there, COMMAND runs and is
    registered later.

    As the first process of a container it lets go of orphans, and is watched by a connection to opengnscd, which cannot
    see a container's processes. Under a service manager (Type=notify) it says when the
    service is registered, when it leaves, and, with WatchdogSec=, that it is alive; COMMAND does not get NOTIFY_SOCKET.

    The exit status is COMMAND's, 128 + N when signal N killed it; if its registration is refused, the command is
    stopped and the status is the refusal's ('opengnsc --help').
    """
    from compass.cli.run.supervisor import RunOptions, Supervisor

    token = credential_of(context, credential, credential_file)
    described = metadata_of(metadata)
    wish = LocalRegister(service, port, token, address or "", weight, described, **placed)
    others = [
        LocalRegister(name, at, credential_of(context, None, file), address or "", weight, described, **placed)
        for name, at, file in also
    ]
    environment = {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES}
    environment |= {"OPENGNS_SERVICE": service, "OPENGNS_PORT": str(port)}
    if address:
        environment["OPENGNS_ADDRESS"] = address
    check = ReadinessCheck(check_http, tuple(shlex.split(check_command)), check_timeout)
    options = RunOptions(
        (wish, *others), command, environment, ready_timeout, check, drain, restart, restart_limit, dependencies_file
    )
    at = f"{service} {format_endpoint(address, port) if address else port}"
    sys.exit(Supervisor(context.api, options, lambda text: context.print_note(f"{at}: {text}")).run())


@_command("completion", "completion bash > ~/.local/share/bash-completion/completions/opengnsc")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(context: CliContext, shell: str) -> None:
    """Print what makes SHELL complete the commands and options of this program.

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


cli.add_command(template)


def main() -> None:
    """The console script."""
    cli(prog_name=PROGRAM)


if __name__ == "__main__":
    main()
