"""Command `host invite`: a join token, with which a machine becomes a host in one command."""

from __future__ import annotations

from pathlib import Path

import click

from compass.admin.shell.context import AdminContext, output_file
from compass.admin.shell.decorators import DURATION, command
from compass.admin.shell.formats import format_time
from compass.model.limits import INVITATION_SECONDS
from compass.model.names import format_endpoint, parse_host_name
from compass.model.replies import Invited
from compass.model.requests import Invite
from compass.model.rules.networks import is_loopback
from compass.pki.join_token import SERVERS_MAX, JoinToken, encode


def invite_command(group: click.Group) -> None:
    """Add the command to the group `host`."""

    @command(
        group,
        "invite",
        "host invite web1.example.net",
        "host invite web1.example.net --also 192.0.2.7 --valid 1d --output web1.join",
    )
    @click.argument("name")
    @click.option("--also", multiple=True, metavar="NAME_OR_ADDRESS", help="Further name or address; repeatable.")
    @click.option("--valid", type=DURATION, help="Time until the token expires (10min, 2d; default 1h, at most 7d).")
    @click.option(
        "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the token to this file, mode 0600."
    )
    def host_invite(
        context: AdminContext, name: str, also: tuple[str, ...], valid: float | None, output: Path | None
    ) -> None:
        """Make a join token, with which the machine NAME gets certificate and configuration in one command.

        The token is valid once, for a short time, and for this name only; it is shown only now. It needs a server that
        holds the authority's key ('authority' in [server] of opengnssd) and that serves HTTPS. The servers that the
        host will use are those of your settings.
        """
        request = Invite(parse_host_name(name), also, INVITATION_SECONDS if valid is None else valid)
        if output is None:
            invited, token = _invite(context, request)
            lines = f"On {invited.name}, run:", f"  opengnscd join --token {token}"
        else:
            # The file is opened first: a token that cannot be written would be lost.
            with output_file(output, 0o600) as file:
                invited, token = _invite(context, request)
                file.write(f"{token}\n")
            lines = f"Bring {output} to {invited.name}, and run there:", f"  opengnscd join --token-file {output.name}"
        until = format_time(invited.expires_at, context.time_format)
        result = {"type": "invited", "name": invited.name, "expires_at": invited.expires_at}
        result |= {"token": token} if output is None else {"written": str(output)}
        context.print_result((f"The token is valid once, until {until}.", *lines), result)


def _invite(context: AdminContext, request: Invite) -> tuple[Invited, str]:
    """Ask for a join token. Returns the reply, and the text of the token."""
    servers = tuple(format_endpoint(server.host, server.port) for server in context.settings.servers)
    invited = context.ask(request, Invited)
    if all(is_loopback(server.host) for server in context.settings.servers):
        text = "your settings name the server by an address of this machine, and so does the token"
        context.print_note(f"Note: {text}: for another machine use --server with a name that it can reach")
    parts = invited.https_port, invited.store, invited.authority, invited.secret
    return invited, encode(JoinToken(invited.name, servers[:SERVERS_MAX], *parts))
