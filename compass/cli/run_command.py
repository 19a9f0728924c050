"""Command `opengnsc run`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from compass.cli.context import (
    PORT,
    SERVICE,
    CliContext,
    Command,
    address_option,
    credential_of,
    credential_options,
    location_options,
    make_command,
    metadata_of,
    metadata_options,
    protocol_metadata,
    protocol_option,
)
from compass.cli.run.readiness import ANSWER_SECONDS, ReadinessCheck
from compass.model.host_api import (
    CHECK_FAILURES_MAX,
    CHECK_INTERVAL_SECONDS_MAX,
    CHECK_INTERVAL_SECONDS_MIN,
    FAILURES,
    INTERVAL_SECONDS,
    LocalRegister,
)
from compass.model.names import format_endpoint

READY_SECONDS = 30.0
"""Seconds for a command to begin listening: a service may fill a cache first."""
SECRET_VARIABLES = ("OPENGNS_CREDENTIAL", "OPENGNS_CREDENTIAL_FILE")
"""Environment variables kept from a command: `run` registers it, so it needs no credential."""


def _environment(service: str, port: int, address: str | None) -> dict[str, str]:
    """Return the environment of the command."""
    environment = {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES}
    environment |= {"OPENGNS_SERVICE": service, "OPENGNS_PORT": str(port)}
    return environment | ({"OPENGNS_ADDRESS": address} if address else {})


def _check_interval(_: click.Context, __: click.Parameter, value: float) -> float:
    if 0 < value < CHECK_INTERVAL_SECONDS_MIN:
        raise click.BadParameter(f"{value:g} is below {CHECK_INTERVAL_SECONDS_MIN:g}; 0 makes no repeated checks")
    return value


def _time_limit(name: str, default: float, help: str) -> Callable[[Command], Command]:
    kind = click.FloatRange(0, min_open=True)
    return click.option(name, type=kind, default=default, show_default=True, metavar="SECONDS", help=help)


@make_command(
    "run",
    "run chinaserver.openuss --port 2028 --credential-file /etc/opengns/chinaserver.token -- my-server --listen 2028",
    "run frontpage.web --port 8080 --address 192.0.2.7 -- gunicorn --bind 192.0.2.7:8080 pages:app",
)
@click.argument("service", type=SERVICE)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--port", type=PORT, required=True, help="Port on which the command listens.")
@address_option
@credential_options
@metadata_options
@location_options
@click.option(
    "--also",
    type=(SERVICE, PORT, click.Path(exists=True, dir_okay=False, path_type=Path)),
    multiple=True,
    metavar="SERVICE PORT FILE",
    help="Another service of the same command, its port, and the file with its credential. Repeatable.",
)
@_time_limit("--ready-timeout", READY_SECONDS, "Time limit for the command to listen and to pass its check.")
@click.option(
    "--check-http", default="", metavar="PATH", help="Register once GET of this path returns a status below 400."
)
@click.option("--check-command", default="", metavar="COMMAND", help="Register once this command ends with status 0.")
@_time_limit("--check-timeout", ANSWER_SECONDS, "Time limit of one check.")
@click.option(
    "--check-interval",
    type=click.FloatRange(0, CHECK_INTERVAL_SECONDS_MAX),
    callback=_check_interval,
    default=INTERVAL_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="Seconds between two checks of the registered command; 0: it is checked only before.",
)
@click.option(
    "--check-failures",
    type=click.IntRange(1, CHECK_FAILURES_MAX),
    default=FAILURES,
    show_default=True,
    metavar="N",
    help="Failed checks in a row after which users go elsewhere, and COMMAND is restarted if --restart says so.",
)
@click.option(
    "--check-watchdog",
    type=click.FloatRange(0, CHECK_INTERVAL_SECONDS_MAX),
    default=0.0,
    metavar="SECONDS",
    help="Check that COMMAND sends WATCHDOG=1 to NOTIFY_SOCKET (sd_notify) at least this often. 0: it need not.",
)
@protocol_option
@click.option(
    "--port-holder",
    type=click.Choice(["command", "any"]),
    default="command",
    show_default=True,
    help="Who must hold the port: COMMAND or its descendants, or any program, such as a container engine.",
)
@click.option(
    "--drain",
    type=click.FloatRange(0),
    default=0.0,
    metavar="SECONDS",
    help="Seconds to drain before stopping: current users are served, no new ones are sent.",
)
@click.option(
    "--restart",
    type=click.Choice(["no", "on-failure", "always"]),
    default="no",
    show_default=True,
    help="Restart the command if it ends by itself; the pause starts at half a second and doubles.",
)
@click.option(
    "--restart-limit",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Restarts in a row before giving up; reset after a minute of running. 0: unlimited.",
)
@click.option(
    "--dependencies-file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    metavar="FILE",
    help="Write the service's dependencies to this file as JSON; it is replaced at each change.",
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
    check_interval: float,
    check_failures: int,
    check_watchdog: float,
    port_holder: str,
    protocol: str,
    drain: float,
    restart: Any,
    restart_limit: int,
    dependencies_file: Path | None,
    **placed: Any,
) -> None:
    """Run COMMAND and keep it registered as SERVICE from when it listens until it ends.

    COMMAND may also become a daemon, or replace itself: what serves the port is followed. Its environment has
    OPENGNS_SERVICE, OPENGNS_PORT and (with --address) OPENGNS_ADDRESS, and for each category that it depends on
    OPENGNS_DEPENDENCY_<CATEGORY> with the listeners that were usable at its start. SIGTERM, SIGINT and SIGQUIT first
    drain (--drain) and deregister, so that users are notified before the command ends; then the signal is forwarded,
    like every other one. A second stop signal does not wait. When COMMAND has ended, all processes that it has left
    are ended, too. If COMMAND crashes, opengnscd reports it within a second. Without opengnscd, COMMAND runs and is
    registered later.

    The check (--check-http, --check-command, --check-watchdog, else an accepted connection) is repeated while COMMAND
    is registered. While it fails, COMMAND gets new users only if no other listener is left; the first success ends
    that.

    Where opengnscd cannot see a container's processes, a connection to opengnscd shows that COMMAND lives. Under a
    service manager (Type=notify), run reports when the service is registered, when it stops, and, with WatchdogSec=,
    signs of life. COMMAND gets a NOTIFY_SOCKET with --check-watchdog only, and that one is of run.

    The exit status is COMMAND's, or 128 + N when signal N killed it. If the registration is refused, the command is
    stopped and the status is that of the refusal ('opengnsc --help').
    """
    from compass.cli.run.process import RunOptions
    from compass.cli.run.repeated_check import CheckPlan
    from compass.cli.run.supervisor import Supervisor

    token = credential_of(context, credential, credential_file)
    described = metadata_of(metadata) | protocol_metadata(protocol)
    services = [(service, port, token), *((name, at, credential_of(context, None, file)) for name, at, file in also)]
    wishes = [LocalRegister(*each, address or "", weight, described, **placed) for each in services]
    check = ReadinessCheck(check_http, tuple(shlex.split(check_command)), check_timeout, protocol == "tcp")
    options = RunOptions(
        registrations=tuple(wishes),
        command=command,
        environment=_environment(service, port, address),
        ready_seconds=ready_timeout,
        check=check,
        plan=CheckPlan(check_interval, check_failures, check_watchdog),
        any_holder=port_holder == "any",
        drain_seconds=drain,
        restart=restart,
        restart_limit=restart_limit,
        dependencies_file=dependencies_file,
    )
    context.subject = f"{service} {format_endpoint(address, port) if address else port}: "
    sys.exit(Supervisor(context.api, options, context).run())
