"""Commands `server drain` and `server undrain`: send hosts away before maintenance, and admit hosts again."""

from __future__ import annotations

import click

from compass.admin.shell.context import AdminContext
from compass.admin.shell.decorators import DURATION, command
from compass.model.names import InvalidName, parse_server
from compass.model.replies import Steered
from compass.model.requests import Steer
from compass.system.command_line import CheckedGroup


@click.group("server", cls=CheckedGroup)
def server() -> None:
    """Drain one server before maintenance. Select the server with --server before the command."""


@command(
    server,
    "drain",
    "server drain",
    "server drain --over 5m",
    "--server gns1.example.net server drain --to gns2.example.net --to gns3.example.net",
)
@click.option(
    "--to",
    "to",
    multiple=True,
    metavar="HOST[:PORT]",
    help="Server for its hosts, repeatable (default: each host chooses another server that it knows).",
)
@click.option(
    "--over", type=DURATION, default="30s", show_default=True, help="Time over which the hosts are sent away (30s, 5m)."
)
@click.option("--force", is_flag=True, help="Drain also the only server: its hosts are then without one.")
def server_drain(context: AdminContext, to: tuple[str, ...], over: float, force: bool) -> None:
    """Send the hosts of a server to other servers, a few at a time, and refuse new ones.

    Nothing is lost and no listener changes: each host continues at its revision. The server still serves
    administrators. It admits hosts again after 'server undrain' or a restart; hosts that prefer it return within half
    an hour. The only server over its store is not drained unless --to or --force is given.
    """
    for text in to:
        try:
            parse_server(text)
        except InvalidName as problem:
            raise click.BadParameter(str(problem), param_hint="--to") from None
    reply = context.ask(Steer(True, to, over, force), Steered)
    hosts = f"{reply.hosts} host{'s'[: reply.hosts != 1]}"
    where = f"to {', '.join(reply.to)}" if reply.to else "to servers that they know; none runs over this store"
    context.print_result([f"{hosts} will be sent away, {where}. 'status' shows how many are still watching."], reply)


@command(server, "undrain", "server undrain", "--server gns1.example.net server undrain")
def server_undrain(context: AdminContext) -> None:
    """Admit hosts again."""
    reply = context.ask(Steer(away=False), Steered)
    context.print_result(["Hosts are admitted again."], reply)
