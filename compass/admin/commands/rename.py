"""Commands `category rename` and `service rename`: another name, with all that is known under the old one."""

from __future__ import annotations

from typing import Literal

import click

from compass.admin.shell.context import AdminContext
from compass.admin.shell.decorators import command
from compass.admin.shell.tables import row_kind, row_name, sentences
from compass.model.names import parse_label, parse_service_id
from compass.model.replies import Done
from compass.model.requests import Rename
from compass.model.rows import Change
from compass.model.rules.renaming import ADDED

_STEPS = (
    click.argument("name"),
    click.argument("to"),
    click.option("--begin", is_flag=True, help="First step: add the new name, and keep the old one in use."),
    click.option("--end", is_flag=True, help="Second step: remove the old name, which nothing uses any longer."),
    click.option("--force", is_flag=True, help="Rename also if hosts that name the old one get less than now."),
    click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing."),
)


def rename_commands(category: click.Group, service: click.Group) -> None:
    """Add the commands to the groups `category` and `service`."""

    @command(
        category,
        "rename",
        "category rename files documents --dry-run",
        "category rename files documents",
        "category rename web portals --begin",
        "category rename web portals --end",
        options=_STEPS,
    )
    def category_rename(context: AdminContext, name: str, to: str, begin: bool, end: bool, **flags: bool) -> None:
        """Rename the category NAME with its services to TO.

        Policy, services with their credentials, dependencies both ways, and the relations to backup services go over:
        every token stays valid. It is refused while listeners are registered under the old name, and while hosts would
        lose what the category depends on. To rename without a pause, let both names exist for a time: --begin,
        register each listener under the new name as well, move those who use the old one, deregister it, --end.
        """
        request = Rename(parse_label(name, "category"), parse_label(to, "category"), _step(begin, end), **flags)
        _rename(context, "category", request)

    @command(
        service,
        "rename",
        "service rename docs.files manuals.files --dry-run",
        "service rename docs.files manuals.files",
        "service rename docs.files manuals.files --begin",
        "service rename docs.files manuals.files --end",
        options=_STEPS,
    )
    def service_rename(context: AdminContext, name: str, to: str, begin: bool, end: bool, **flags: bool) -> None:
        """Rename the service NAME to TO, which is a service of the same category.

        Credentials, pool policy, list of hosts, and the categories whose backup it is go over: every token stays valid.
        It is refused while listeners are registered under the old name. To rename without a pause, let both names exist
        for a time: --begin, register each listener under the new name as well, move those who use the old one,
        deregister it, --end.
        """
        _rename(context, "service", Rename(parse_service_id(name), parse_service_id(to), _step(begin, end), **flags))


def _step(begin: bool, end: bool) -> Literal["", "begin", "end"]:
    if begin and end:
        raise click.UsageError("--begin and --end are two steps; without both, a renaming is one step")
    return "begin" if begin else "end" if end else ""


def _rename(context: AdminContext, kind: str, request: Rename) -> None:
    reply = context.ask(request, Done)
    if request.dry_run:
        lines = [_planned(change) for change in reply.changes]
        context.print_result([*lines, f"{len(lines)} changes; nothing was changed."], reply)
        return
    again = f"opengnsadmin {kind} rename {request.name} {request.to} --end"
    more = (
        f"Both names exist, with the same tokens. When nothing is registered as {request.name}, run '{again}'."
        if request.step == "begin"
        else f"Topology files and configurations that name {request.name} have to name {request.to}."
    )
    context.print_result([*sentences(reply), more], reply)


def _planned(change: Change) -> str:
    sign = "-" if change.removed else "+" if change.operation == ADDED else "~"
    return f"{sign} {row_kind(change.row)} {row_name(change.row)}"
