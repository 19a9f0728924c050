"""Commands `token`: bearer tokens for HTTPS without a certificate."""

from __future__ import annotations

from pathlib import Path

import click

from compass.admin.commands.objects import issue_credential, print_done
from compass.admin.shell import build_request
from compass.admin.shell.context import AdminContext
from compass.admin.shell.decorators import DURATION, command
from compass.admin.shell.formats import as_json
from compass.admin.shell.tables import table_of_tokens
from compass.model.names import category_of
from compass.model.replies import Done
from compass.model.requests import Apply, Fetch, IssueCredential, Remove, RevokeCredential
from compass.model.rows import Category, Credential, Service
from compass.model.rules.tokens import TOKEN_ROLES
from compass.system.command_line import CheckedGroup

CATEGORY_OF_ROLE: dict[str, str] = {role: category for category, role in TOKEN_ROLES.items()}
_ROLE = click.option(
    "--role",
    type=click.Choice(sorted(CATEGORY_OF_ROLE)),
    default="viewer",
    show_default=True,
    help="viewer: read-only; admin: the same rights as yours.",
)


@click.group("token", cls=CheckedGroup)
def token() -> None:
    """Bearer tokens for the servers' HTTPS API: for scripts, scrapers and browsers that have no certificate.

    A token is the credential of a service in the category gns-admin or gns-viewer, which defines its role; the logs
    record the service. 'apply --prune' does not change these categories.
    """


@command(
    token,
    "add",
    "token add grafana",
    "token add deploy --role admin --output deploy.token",
    "token add deploy --role admin --overlap 1d --output deploy.token",
    options=(_ROLE,),
)
@click.argument("name")
@click.option("--overlap", type=DURATION, help="Time until older tokens of that name expire (1h, 2d; 0s: now).")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the token to this file, mode 0600."
)
def token_add(context: AdminContext, name: str, role: str, overlap: float | None, output: Path | None) -> None:
    """Create a token for NAME, a program or a person. It is shown only now and not stored.

    Send it as 'Authorization: Bearer TOKEN'. Existing tokens of NAME stay valid unless --overlap limits them.
    """
    service = build_request.token_service(name, CATEGORY_OF_ROLE[role])
    context.ask(Apply((Category(category_of(service)), Service(service))), Done)
    issue_credential(context, IssueCredential(service, overlap), output)


@command(token, "list", "token list", watchable=True)
def token_list(context: AdminContext) -> None:
    """List the tokens: name, role, times of creation and expiry; never the tokens themselves."""
    parts = context.rows(*(Fetch("credential", within=category) for category in TOKEN_ROLES))
    rows = [row for part in parts for row in part.rows if isinstance(row, Credential)]
    context.print_result(
        table_of_tokens(rows, context.time_format), {"type": "tokens", "tokens": [as_json(row) for row in rows]}
    )


@command(token, "remove", "token remove grafana", "token remove deploy 1f2e3d4c5b6a --role admin", options=(_ROLE,))
@click.argument("name")
@click.argument("id", required=False)
def token_remove(context: AdminContext, name: str, id: str | None, role: str) -> None:
    """Remove all tokens of NAME with that role, or the one with ID. Open event streams end."""
    service = build_request.token_service(name, CATEGORY_OF_ROLE[role])
    print_done(context, RevokeCredential(service, id) if id else Remove("service", service))
