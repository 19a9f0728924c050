"""`server drain`, `server undrain`: hosts leave a server before its machine is serviced, and may come back."""

from __future__ import annotations

import click

from compass.admin.shell.context import AdminContext
from compass.admin.shell.decorators import DURATION, command
from compass.model.names import InvalidName, parse_server
from compass.model.replies import Steered
from compass.model.requests import Steer


@click.group("server")
def server() -> None:
    """One server: whether hosts keep their sessions with it. Name it with --server before the command."""


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
    help="Where its hosts go, repeatable; without it each host goes to another server that it knows.",
)
@click.option("--over", type=DURATION, default="30s", show_default=True, help="Spread over so long (30s, 5m).")
def server_drain(context: AdminContext, to: tuple[str, ...], over: float) -> None:
    """Send the hosts of a server to others, a few at a time, and turn away those that come.

    Nothing is lost and no listener changes: each host goes on where it was. The server keeps serving administrators.
    It welcomes hosts again after 'server undrain' or when it is started anew; hosts that prefer it are back within
    half an hour.
    """
    for text in to:
        try:
            parse_server(text)
        except InvalidName as problem:
            raise click.BadParameter(str(problem), param_hint="--to") from None
    reply = context.ask(Steer(True, to, over), Steered)
    hosts = f"{reply.hosts} host{'s'[: reply.hosts != 1]}"
    context.print_result([f"{hosts} will be sent away; 'status' shows how many still watch."], reply)


@command(server, "undrain", "server undrain", "--server gns1.example.net server undrain")
def server_undrain(context: AdminContext) -> None:
    """Welcome hosts again."""
    reply = context.ask(Steer(away=False), Steered)
    context.print_result(["Hosts are welcome again."], reply)
