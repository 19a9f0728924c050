"""Commands `listener`, `drain`, `undrain`, `explain`: registered listeners, of hosts and of administrators."""

from __future__ import annotations

from collections import deque
from typing import Any, Literal, cast

import click
import msgspec

from compass.admin.commands.objects import print_done
from compass.admin.commands.status import log_pages
from compass.admin.shell import build_request
from compass.admin.shell.context import AdminContext, Failed, failure_of, no_such
from compass.admin.shell.decorators import DURATION, PAIR, command
from compass.admin.shell.formats import as_json
from compass.admin.shell.tables import sentences, table_of_listener, table_of_rows
from compass.model.catalogue.catalogue import Catalogue, catalogue_of
from compass.model.catalogue.lookup_scope import parse_name
from compass.model.explanation.lookup import explain, sentences_of
from compass.model.names import category_of, parse_host_name
from compass.model.replies import CaseFile, Done, Refusal, Registered, Reported
from compass.model.requests import Examine, Fetch, Purge, ReadLog
from compass.model.rows import Category, Host, Listener, State, UpdateEntry
from compass.system.command_line import CheckedGroup

HISTORY_SEARCHED = 5_000
"""Newest entries of the update log that are searched for a listener's own: some 2 MB."""
HISTORY_SHOWN = 10
"""Entries shown of those found."""

_STATES = click.Choice(["up", "slow", "suspect", "down", "draining", "offline"])


@click.group("listener", cls=CheckedGroup)
def listener() -> None:
    """Listeners: the addresses and ports that serve a service, with their states.

    \b
    up        in use
    slow      in use, but reported as slow
    suspect   reported or lost; checks are running
    down      failed
    draining  serves its current users; not returned to new ones
    offline   deregistered; the row is kept until it is purged
    """


_METADATA = click.option("--metadata", "pairs", type=PAIR, multiple=True, help="Metadata for its users; repeatable.")


_PARAMETERS = (
    _METADATA,
    click.option(
        "--weight", type=int, help="Relative share of new users (default 1). 0: used only if nothing else is up."
    ),
    click.option("--zone", help="Zone of the listener, one word."),
    click.option("--load", type=float, help="Share of the capacity in use, 0 to 1."),
    click.option("--degradation", type=float, help="Amount by which one more user raises the load."),
)


def _given(pairs: tuple[tuple[str, str], ...], values: dict[str, Any]) -> dict[str, Any]:
    changes = {name: value for name, value in values.items() if value is not None}
    return changes | ({"metadata": dict(pairs)} if pairs else {})


@command(listener, "add", "listener add chinaserver.openuss 192.0.2.7:2028 --weight 10", options=_PARAMETERS)
@click.argument("service")
@click.argument("endpoint", metavar="ADDRESS:PORT")
def listener_add(
    context: AdminContext, service: str, endpoint: str, pairs: tuple[tuple[str, str], ...], **values: Any
) -> None:
    """Register a listener that no host daemon manages, such as a device."""
    request = build_request.add_listener(service, endpoint, _given(pairs, values))
    present = context.rows(build_request.fetch_listener(service, endpoint))[0].rows
    if any(isinstance(row, Listener) and row.state != "offline" for row in present):
        raise failure_of(
            Refusal("exists", f"{service} is already registered at {endpoint}; change it with 'listener set'")
        )
    reply = context.ask(request, Registered)
    context.print_result(sentences(reply), reply)


@command(listener, "set", "listener set chinaserver.openuss 192.0.2.7:2028 --weight 0", options=_PARAMETERS)
@click.argument("service")
@click.argument("endpoint", metavar="ADDRESS:PORT")
@click.option("--no-metadata", is_flag=True, help="Remove all metadata.")
def listener_set(
    context: AdminContext,
    service: str,
    endpoint: str,
    pairs: tuple[tuple[str, str], ...],
    no_metadata: bool,
    **values: Any,
) -> None:
    """Change a listener: all of its metadata, or single values. The next registration by its host replaces them."""
    if pairs and no_metadata:
        raise click.UsageError("--metadata and --no-metadata exclude each other")
    changes = _given(pairs, values) | ({"metadata": {}} if no_metadata else {})
    if not changes:
        raise click.UsageError("nothing to change; use at least one option, see --help")
    reply = context.ask(build_request.change_listener(_listener(context, service, endpoint), changes), Registered)
    context.print_result(sentences(reply), reply)


@command(
    listener,
    "list",
    "listener list --within openuss",
    "listener list --state down --older-than 1h",
    "listener list --within web1.example.net --json",
    "listener list --state down --watch",
    watchable=True,
)
@click.option("--within", metavar="NAME", default="", help="Only listeners of this category, service or host.")
@click.option("--state", type=_STATES, help="Only listeners in this state.")
@click.option("--older-than", type=DURATION, help="Only listeners in their state for longer than this (90s, 1h, 2d).")
def listener_list(context: AdminContext, within: str, state: str | None, older_than: float | None) -> None:
    """List the listeners."""
    place = parse_host_name(within) if within else ""
    fetch = Fetch("listener", within=place, state=cast(State | Literal[""], state or ""))
    reply = context.rows(fetch)[0]
    if older_than is not None:
        listeners = (row for row in reply.rows if isinstance(row, Listener))
        rows = build_request.older_than(listeners, older_than, context.machine.now())
        reply = msgspec.structs.replace(reply, rows=rows, total=len(rows))
    context.print_result(table_of_rows("listener", reply.rows, context.time_format), reply)


@command(listener, "show", "listener show chinaserver.openuss 192.0.2.7:2028", watchable=True)
@click.argument("service")
@click.argument("endpoint", metavar="ADDRESS:PORT")
def listener_show(context: AdminContext, service: str, endpoint: str) -> None:
    """Show a listener: its state, the evidence about its health, the last decision, and its last changes.

    The evidence is that of the server you ask, since its start; the changes come from the update log.
    """
    row = _listener(context, service, endpoint)
    examine = Examine(row.service, row.address, row.port)
    case: CaseFile | None = None
    try:
        case = context.ask(examine, CaseFile)
    except Failed as failed:
        # An older server does not know this request, but answers the others.
        if failed.refusal is None or failed.refusal.code != "unknown-message":
            raise
    key = (row.service, row.address, row.port)
    own: deque[UpdateEntry] = deque(maxlen=HISTORY_SHOWN)
    for page in log_pages(context, ReadLog("updates", last=HISTORY_SEARCHED)):
        entries = (entry for entry in page.entries if isinstance(entry, UpdateEntry))
        own += [entry for entry in entries if (entry.subject, entry.address, entry.port) == key]
    history = list(own)
    shown = as_json(row) | {"case": as_json(case), "history": as_json(history)}
    context.print_result(table_of_listener(row, context.time_format, case, history), shown)


@command(listener, "remove", "listener remove chinaserver.openuss 192.0.2.7:2028")
@click.argument("service")
@click.argument("endpoint", metavar="ADDRESS:PORT")
def listener_remove(context: AdminContext, service: str, endpoint: str) -> None:
    """Take a listener out of use. Only a new instance can register it again."""
    print_done(context, build_request.remove_listener(service, endpoint))


@command(listener, "purge", "listener purge --older-than 7d", "listener purge --older-than 1d --state down")
@click.option("--older-than", type=DURATION, required=True, help="Minimum time in that state (1h, 7d).")
@click.option("--state", type=click.Choice(["offline", "down"]), default="offline", show_default=True)
def listener_purge(context: AdminContext, older_than: float, state: str) -> None:
    """Remove the rows of listeners that have been offline or down for long."""
    request = Purge(older_than, cast(Literal["offline", "down"], state))
    reply = context.ask(request, Done)
    while reply.more:
        rest = context.ask(request, Done)
        reply = msgspec.structs.replace(rest, changes=reply.changes + rest.changes)
    context.print_result(sentences(reply) if reply.changes else ["No row is that old."], reply)


def drain_commands(group: click.Group) -> None:
    """Add `drain` and `undrain` to the program."""

    @command(group, "drain", "drain chinaserver.openuss 192.0.2.7:2028")
    @click.argument("service")
    @click.argument("endpoint", metavar="ADDRESS:PORT")
    def drain(context: AdminContext, service: str, endpoint: str) -> None:
        """Stop sending new users to a listener before it is stopped; current users may finish."""
        _drain(context, service, endpoint, True)

    @command(group, "undrain", "undrain chinaserver.openuss 192.0.2.7:2028")
    @click.argument("service")
    @click.argument("endpoint", metavar="ADDRESS:PORT")
    def undrain(context: AdminContext, service: str, endpoint: str) -> None:
        """Send new users to a listener again."""
        _drain(context, service, endpoint, False)


def _drain(context: AdminContext, service: str, endpoint: str, draining: bool) -> None:
    reply = context.ask(build_request.drain_listener(service, endpoint, draining), Reported)
    context.print_result(sentences(reply), reply)


def _listener(context: AdminContext, service: str, endpoint: str) -> Listener:
    message = f"{service} has no listener {endpoint}; 'opengnsadmin listener list --within {service}' shows all"
    return cast(Listener, context.one(build_request.fetch_listener(service, endpoint), "unknown-listener", message))


def explain_command(group: click.Group) -> None:
    """Add `explain` to the program."""

    @command(
        group,
        "explain",
        "explain chinaserver.openuss",
        "explain openuss --host web1.example.net",
        "explain openuss --json | jq -r '.listeners[] | select(.returned).address'",
    )
    @click.argument("name")
    @click.option("--host", metavar="NAME", default="", help="The host that looks the name up.")
    def explain_name(context: AdminContext, name: str, host: str) -> None:
        """Explain which listeners a lookup of a service or a category returns now, and why the others are not.

        The answer follows from the rows of the server you ask, which may be of any version. A host that has lost its
        session, or that avoids a listener since its own report, can answer otherwise until it is connected again.
        """
        parsed = parse_name(name)
        if isinstance(parsed, Refusal):
            raise failure_of(parsed)
        asker = _host(context, host) if host else None
        found = explain(_catalogue(context, parsed), parsed, asker)
        if isinstance(found, Refusal):
            raise failure_of(found)
        context.print_result(list(sentences_of(found)), found)


def _host(context: AdminContext, host: str) -> Host:
    fetch = Fetch("host", name=parse_host_name(host))
    rows = context.rows(fetch)[0].rows
    if not rows:
        raise no_such("unknown-host", f"there is no host {host!r}; 'opengnsadmin host list' shows all")
    return cast(Host, rows[0])


def _catalogue(context: AdminContext, name: str) -> Catalogue:
    """Return the part of the server's catalogue that the explanation needs."""
    category = category_of(name) or name
    rows = context.rows(Fetch("category", name=category))[0].rows
    backup = cast(Category, rows[0]).backup if rows else ""
    places = dict.fromkeys((category, *([category_of(backup)] if backup else [])))
    wanted = [Fetch("category"), Fetch("dependency")]
    wanted += [Fetch("service", within=place) for place in places]
    wanted += [Fetch("listener", within=place) for place in places]
    parts = context.rows(*wanted)
    return catalogue_of((row for part in parts for row in part.rows), {}, max(part.revision for part in parts))
