"""Context of the commands of `opengnsc`: the daemon's address, output of results and errors, common options.

Results go to the standard output, notes and errors to the standard error stream. With --json, results and errors are
JSON.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from compass.cli.output import LINE_MAX, as_json
from compass.client.core.blocking_api import ApiProblem, HostApi, InvalidEndpoint, parse_api_endpoint
from compass.client.core.credential import CredentialProblem, check_token, read_credential
from compass.model.exit_codes import ExitCode, exit_of
from compass.model.limits import DETAIL_MAX
from compass.model.names import InvalidName, parse_address, parse_endpoint, parse_label, parse_service_id
from compass.model.rows import IDLE
from compass.model.text import escape_line
from compass.system.command_line import print_text

PROGRAM: Final = "opengnsc"

COMPLETION_SECONDS = 0.5
"""Time limit of each question to the daemon for a completion: a person waits with a finger on the key."""
SERVICES_COMPLETED_MAX = 20
"""Own services whose dependencies are offered."""

Command = TypeVar("Command", bound=Callable[..., Any])


class Failed(click.ClickException):
    """End of a command that failed, with its exit status."""

    def __init__(self, status: ExitCode, message: str, code: str = "", retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.exit_code = int(status)  # type: ignore[misc]  # click reads the instance's, and types the class's
        self.code = code
        self.retry_after_seconds = retry_after_seconds
        self.in_json = False

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message to the standard error stream."""
        again = f" (try again in {self.retry_after_seconds:g} s)" if self.retry_after_seconds else ""
        code = f" [{self.code}]" if self.code else ""
        text = f"{PROGRAM}: {escape_line(self.message, LINE_MAX)}{again}{code}"
        if self.in_json:
            problem = {"type": "refusal" if self.code else "problem", "code": self.code, "message": self.message}
            text = as_json(problem | {"retry_after_seconds": self.retry_after_seconds}, indent=None)
        print_text(text, err=True)


class CliContext:
    """Context that all commands share: the daemon's address, and the form of the output."""

    endpoint = ""
    in_json = False
    subject = ""
    """Beginning of each note, with a colon."""

    @property
    def api(self) -> HostApi:
        """Host API of the daemon. Raises Failed if the address is invalid."""
        try:
            return HostApi(parse_api_endpoint(self.endpoint))
        except InvalidEndpoint as problem:
            raise Failed(ExitCode.USAGE, str(problem)) from None

    def needs_no_credential(self) -> bool:
        """Return whether the daemon runs in development mode, where open categories need no credential."""
        with suppress(ApiProblem):
            return self.api.status().development
        return False

    def print_result(self, lines: Iterable[str], result: Any) -> None:
        """Print a result: `lines` for people, or `result` as JSON."""
        print_text(as_json(result) if self.in_json else "\n".join(lines))
        sys.stdout.flush()

    def print_note(self, text: str) -> None:
        """Print a note to the standard error stream."""
        print_text(f"{PROGRAM}: {escape_line(self.subject + text, LINE_MAX)}", err=True)

    @contextmanager
    def error_handling(self) -> Iterator[None]:
        """Turn every failure of a command into `Failed`, and Ctrl-C into an exit status."""
        try:
            try:
                yield
            except ApiProblem as problem:
                raise failure_of(problem) from None
            except CredentialProblem as problem:
                raise Failed(ExitCode.FAILED, str(problem)) from None
            except KeyboardInterrupt:
                # After ^C on a terminal, let the prompt begin on a new line.
                if sys.stderr.isatty():
                    print_text("", err=True)
                sys.exit(ExitCode.INTERRUPTED)
        except Failed as failure:
            failure.in_json = self.in_json
            raise


def failure_of(problem: ApiProblem) -> Failed:
    """Return the failure of a command for a problem of the API."""
    return Failed(exit_of(problem.code), problem.message, problem.code, problem.retry_after_seconds)


class ParsedParam(click.ParamType):  # type: ignore[type-arg]  # generic only for mypy
    """Parameter type parsed by a function of `compass.model.names`, whose errors say what would be right."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._parse(value) if isinstance(value, str) else value
        except InvalidName as problem:
            self.fail(str(problem), param, ctx)


class KnownName(ParsedParam):
    """Type of the names that the daemon knows, which a shell completes."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the names that begin with a text; none if the daemon does not answer."""
        context = ctx.find_object(CliContext) or CliContext()
        with suppress(ApiProblem, InvalidEndpoint):
            endpoint = context.endpoint or os.environ.get("OPENGNS_API", "")
            names = known_names(HostApi(parse_api_endpoint(endpoint), COMPLETION_SECONDS))
            # A category is no service.
            fitting = (name for name in sorted(names) if "." in name or self.name == "name")
            return [CompletionItem(name) for name in fitting if name.startswith(incomplete)]
        return []


def known_names(api: HostApi) -> set[str]:
    """Return the services of this host, and the services and categories that these depend on. Raises ApiProblem."""
    status = api.status()
    names = {*status.services, *(one.service for one in status.registrations)}
    for own in status.services[:SERVICES_COMPLETED_MAX]:
        for category in api.dependencies(own).categories:
            names |= {category.category, *(service.id for service in category.services)}
    return names


SERVICE = KnownName("service.category", parse_service_id)
NAME = KnownName("name", lambda text: parse_service_id(text) if "." in text else parse_label(text, "category"))
ADDRESS = ParsedParam("address", parse_address)
ENDPOINT = ParsedParam("address:port", parse_endpoint)
DETAIL = ParsedParam("text", lambda text: escape_line(text, DETAIL_MAX))
"""Type of a detail: scripts insert the error texts of other programs, which are cut and escaped, not refused."""
PORT = click.IntRange(1, 65535)
SHARE = click.FloatRange(0, 1)


def _set_endpoint(context: click.Context, _: click.Parameter, value: str) -> None:
    if value:
        context.ensure_object(CliContext).endpoint = value


def _set_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(CliContext).in_json = True


JSON_OPTION = click.option(
    "--json", is_flag=True, expose_value=False, callback=_set_json, help="Print JSON, errors too."
)


def api_option(envvar: str | None) -> Callable[[Command], Command]:
    # Only the program itself reads the environment; read by a command, it would override the program's own option.
    return click.option(
        "--api",
        metavar="ADDRESS",
        expose_value=False,
        callback=_set_endpoint,
        envvar=envvar,
        help="Address of opengnscd: unix:/PATH or http://127.0.0.1:4866. Default: OPENGNS_API, else the usual socket "
        "if its directory exists, else that of 'opengns dev' while it runs, else that port, to which no credential is "
        "sent.",
    )


def make_command(name: str, *examples: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command that gets the context as its first argument and handles errors by `CliContext.error_handling`."""

    def make(function: Callable[..., None]) -> click.Command:
        def called(*arguments: Any, **named: Any) -> None:
            context = click.get_current_context().ensure_object(CliContext)
            with context.error_handling():
                function(context, *arguments, **named)

        called.__doc__ = function.__doc__
        called.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        return click.command(name, epilog=example_lines(*examples))(api_option(None)(JSON_OPTION(called)))

    return make


def credential_options(command: Command) -> Command:
    """Add the options for a credential."""
    for option in (
        click.option(
            "--credential-file",
            type=click.Path(path_type=Path),
            envvar="OPENGNS_CREDENTIAL_FILE",
            show_envvar=True,
            help="File with the credential, readable by you only. Preferred.",
        ),
        click.option(
            "--credential",
            type=click.UNPROCESSED,
            metavar="TOKEN",
            envvar="OPENGNS_CREDENTIAL",
            show_envvar=True,
            help="Credential of the service. Other users can see it in the list of processes.",
        ),
    ):
        command = option(command)
    return command


def metadata_options(command: Command) -> Command:
    """Add the options for metadata and weight."""
    for option in (
        click.option(
            "--metadata", multiple=True, metavar="KEY=VALUE", help="Metadata for users of the listener; repeatable."
        ),
        click.option(
            "--weight",
            type=click.IntRange(0),
            default=1,
            show_default=True,
            help="Relative share of users. 0: used only if nothing else is up.",
        ),
    ):
        command = option(command)
    return command


def location_options(command: Command) -> Command:
    """Add the other options that pool policies use."""
    for option in (
        click.option("--degradation", type=SHARE, default=IDLE, help="Amount by which one more user raises the load."),
        click.option("--load", type=SHARE, default=IDLE, help="Share of the capacity in use, 0 to 1; see 'load'."),
        click.option(
            "--zone",
            default="",
            help="Zone of the listener, one word (default: the zone that opengnscd is configured with).",
        ),
    ):
        command = option(command)
    return command


def address_option(command: Command) -> Command:
    return click.option(
        "--address", type=ADDRESS, help="Address of the listener (default: the one that opengnscd is configured with)."
    )(command)


def protocol_option(command: Command) -> Command:
    """Add the option for the transport protocol."""
    return click.option(
        "--protocol",
        type=click.Choice(["tcp", "udp"]),
        default="tcp",
        show_default=True,
        help="udp: the metadata says so, and no connection is tried; give the category '--probe none'.",
    )(command)


def protocol_metadata(protocol: str) -> dict[str, str]:
    """Return the metadata by which users know a listener over UDP."""
    return {} if protocol == "tcp" else {"protocol": protocol}


def credential_of(context: CliContext, token: str | None, file: Path | None) -> str:
    """Return the credential from the options, else from the environment, where a file is preferred."""
    click_context = click.get_current_context()
    given = [
        click_context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        for name in ("credential", "credential_file")
    ]
    if all(given):
        raise Failed(ExitCode.USAGE, "give --credential or --credential-file, not both")
    if token and not (file and not given[0]):
        return check_token(token, "the credential")
    if file:
        return read_credential(file, context.print_note)
    if context.needs_no_credential():
        return ""
    raise Failed(
        ExitCode.USAGE,
        "a credential is required: --credential-file FILE, or OPENGNS_CREDENTIAL in the environment; "
        "an administrator creates one with: opengnsadmin credential add SERVICE, and with 'opengns dev' none is needed",
    )


def metadata_of(pairs: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key or key in found:
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE with a new key", param_hint="--metadata")
        found[key] = value
    return found


def example_lines(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  {PROGRAM} {line}" for line in lines)
