"""Program `opengnsadmin`: its command groups, global options and help."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import get_completion_class

import compass
from compass.admin.commands.digest import digest_command
from compass.admin.commands.doctor import doctor_command
from compass.admin.commands.init import init
from compass.admin.commands.invitations import invite_command
from compass.admin.commands.listeners import drain_commands, explain_command, listener
from compass.admin.commands.objects import category, credential, dependency, host, service
from compass.admin.commands.rename import rename_commands
from compass.admin.commands.servers import server
from compass.admin.commands.status import alert, log, status_commands
from compass.admin.commands.tls import tls
from compass.admin.commands.tokens import token
from compass.admin.commands.topology import topology_commands
from compass.admin.shell.config import CONFIG_VARIABLE, PORT, SERVER_VARIABLE, SYSTEM_CONFIG, USER_CONFIG, Given
from compass.admin.shell.context import WAIT_SECONDS_MAX, AdminContext
from compass.admin.shell.decorators import command, examples, json_option
from compass.model.exit_codes import ExitCode, exit_table
from compass.system.command_line import CheckedGroup, print_text, version_option

PROGRAM = "opengnsadmin"


class _Program(CheckedGroup):
    """Outermost group, which turns every failure into a message and an exit status.

    The commands for the store itself are loaded on demand, because they import the database's libraries.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        self._load()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands and cmd_name not in self.hints:
            self._load()
        return super().get_command(ctx, cmd_name)

    def _load(self) -> None:
        from compass.admin.commands.store import store_commands

        store_commands(self)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with ctx.ensure_object(AdminContext).error_handling():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(ExitCode.INTERRUPTED.value)


_EPILOG = f"""\b
Settings: options, else ${SERVER_VARIABLE} (for --server), else a TOML file: --config, ${CONFIG_VARIABLE},
~/{USER_CONFIG} or {SYSTEM_CONFIG}. Its keys, with paths relative to it:
  server = ["gns1.example.net:{PORT}", "gns2.example.net:{PORT}"]
  certificate = "admin-alice.crt"
  key = "admin-alice.key"
  authority = "authority.crt"

\b
{exit_table("opengnsadmin")}

{
    examples(
        "tls init",
        "doctor",
        "apply examples/uss.toml",
        "credential add chinaserver.openuss",
        "listener list --within openuss",
        "log updates --follow",
        "--json status",
        "backup /var/backups/gns.sqlite3",
    ).lstrip()
}"""


@click.group(PROGRAM, cls=_Program, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--server", "servers", multiple=True, metavar="HOST:PORT", help="Server to use; repeat for alternatives.")
@click.option("--certificate", default="", metavar="FILE", help="Your certificate (PEM).")
@click.option("--key", default="", metavar="FILE", help="Private key of your certificate (PEM).")
@click.option(
    "--authority",
    default="",
    metavar="FILE",
    help="Certificate of the authority that issued the servers' certificates (PEM).",
)
@click.option("--server-name", default="", metavar="NAME", help="Name that servers must prove (default: HOST).")
@click.option("--config", default="", metavar="FILE", help="Settings file (TOML).")
@click.option(
    "--wait",
    type=click.FloatRange(0, WAIT_SECONDS_MAX),
    default=0.0,
    metavar="SECONDS",
    help="Wait this long for a server that cannot be reached, such as one that starts.",
)
@version_option(compass.__version__)
@json_option
@click.pass_context
def cli(click_context: click.Context, /, **given: Any) -> None:
    """Administer an OpenGNS name service: categories, services, dependencies, credentials, hosts and logs.

    Commands use a server, over TLS, with your certificate; the servers' administration log records your name with
    each change. 'opengnsadmin COMMAND --help' describes each command, with examples.
    """
    context = click_context.ensure_object(AdminContext)
    context.given = Given(**given)


for _group, _lines in (
    (init, ("init server gns1.example.net --sign", "init admin alice --server gns1.example.net")),
    (category, ("category list", "category add web", "category set openuss --backup emergency.rescue")),
    (service, ("service list", "service add chinaserver.openuss")),
    (dependency, ("dependency add web openuss",)),
    (credential, ("credential add chinaserver.openuss",)),
    (token, ("token add grafana", "token list")),
    (host, ("host list", "host invite web1.example.net", "host set web1.example.net --barred")),
    (listener, ("listener list --state down", "listener show chinaserver.openuss 192.0.2.7:2028")),
    (server, ("server drain --over 5m", "--server gns1.example.net server undrain")),
    (alert, ("alert list", "alert ways", "alert test")),
    (log, ("log updates --follow", "log security --last 50")),
):
    _group.epilog = examples(*_lines)
    cli.add_command(_group)
cli.hints = {
    "dev": "opengns dev",
    "logs": "opengnsadmin log",
    "lookup": "opengnsc resolve SERVICE",
    "members": "opengnsadmin host list, or opengnsadmin lag for their sessions and revisions",
    "nodes": "opengnsadmin host list",
    "register": "opengnsc register, or opengnsadmin listener add",
    "resolve": "opengnsc resolve SERVICE",
    "run": "opengnsc run SERVICE --port PORT -- COMMAND",
    "servers": "opengnsadmin status",
    "services": "opengnsadmin service list",
}
server.hints = {"list": "opengnsadmin status", "show": "opengnsadmin status"}
log.aliases = {"administration": "admin", "update": "updates"}
cli.add_command(tls)
invite_command(host)
rename_commands(category, service)
drain_commands(cli)
status_commands(cli)
topology_commands(cli)
digest_command(cli)
doctor_command(cli)
explain_command(cli)


@command(cli, "completion", "completion bash > ~/.local/share/bash-completion/completions/opengnsadmin")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(context: AdminContext, shell: str) -> None:
    """Print the completion script of this program for SHELL.

    \b
    bash: into ~/.local/share/bash-completion/completions/opengnsadmin
    zsh:  into a file named _opengnsadmin in a directory of $fpath
    fish: into ~/.config/fish/completions/opengnsadmin.fish
    """
    made = get_completion_class(shell)
    assert made is not None  # Click has one for each of the choices.
    source = made(cli, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source()
    if context.in_json:
        context.print_result((), {"type": "completion", "shell": shell, "source": source})
    else:
        print_text(source)


def main() -> None:
    """Run the console script."""
    cli(prog_name=PROGRAM)
