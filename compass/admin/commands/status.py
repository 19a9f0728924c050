"""`alert`, `log`, `impact`, `status`, `lag`: what is going on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Literal

import click

from compass.admin.commands.objects import list_rows
from compass.admin.shell import build_request
from compass.admin.shell.connection import ConnectionFailed
from compass.admin.shell.context import AdminContext, Failed, print_table
from compass.admin.shell.decorators import command
from compass.admin.shell.tables import (
    as_json,
    table_of_channels,
    table_of_impact,
    table_of_lags,
    table_of_log,
    table_of_servers,
    table_of_status,
    table_of_tried_channels,
)
from compass.model.exit_codes import ExitCode
from compass.model.replies import Lags, LogEntries, LogEntry, ServerStatus, Told, WayList, WaysTried
from compass.model.requests import Fetch, Lag, ReadLog, Status, TryWays, Ways
from compass.wire.limits import LOG_WAIT_SECONDS_MAX

LOG_PAGE = 1000
"""Entries asked for at once."""
LAST_MAX = 10_000
"""Most entries before the end: what a server gives at once. For more, --after."""
RETRY_SECONDS = 2.0
"""Pause before a server that went away is looked for again while its log is followed."""
LogName = Literal["updates", "security", "administration"]


@click.group("alert")
def alert() -> None:
    """Open incidents: listeners that failed or are slow. An incident is told once and closes by itself."""


@command(alert, "list", "alert list")
def alert_list(context: AdminContext) -> None:
    """List the open incidents."""
    list_rows(context, Fetch("alert"))


@command(alert, "ways", "alert ways", "--server gns2.example.net alert ways --json")
def alert_ways(context: AdminContext) -> None:
    """By which ways a server tells administrators of incidents, and how they do.

    Of several servers over one store one tells by each way; 'pending' are incidents that it has still to tell of.
    """
    reply = context.ask(Ways(), WayList)
    context.print_result(table_of_channels(reply, context.time_format), reply)


@command(alert, "test", "alert test", "alert test --way pager", "--server gns2.example.net alert test --json")
@click.option(
    "--way", "name", default="", metavar="NAME", help="Only this one; for mail without an address: all of it."
)
def alert_test(context: AdminContext, name: str) -> None:
    """Have a server send a message by every configured way, now, and see which of them arrive.

    Ends with a status other than 0 when one does not. A mail counts as arrived when the relay has taken it.
    """
    reply = context.ask(TryWays(name), WaysTried)
    context.print_result(table_of_tried_channels(reply), reply)
    failed = [way.name for way in reply.ways if way.problem]
    if failed:
        click.get_current_context().exit(ExitCode.FAILED.value)


@click.group("log")
def log() -> None:
    """The three logs: committed changes, refused credentials and rights, and what administrators did."""


def _log_command(name: str, kind: LogName, about: str) -> None:
    lines = (f"log {name}", f"log {name} --last 100 --json", f"log {name} --after 4711 --follow")

    @command(log, name, *lines)
    @click.option("--last", type=click.IntRange(1, LAST_MAX), help="So many from the end.  [default: 20]")
    @click.option("--after", type=click.IntRange(0), metavar="NUMBER", help="All after this number instead.")
    @click.option("--follow", is_flag=True, help="Go on with new entries until Ctrl-C, which ends with status 0.")
    def show_log(context: AdminContext, last: int | None, after: int | None, follow: bool) -> None:
        if last is not None and after is not None:
            raise click.UsageError("--last and --after exclude each other")
        first = ReadLog(kind, last=last or 20, limit=LAST_MAX) if after is None else ReadLog(kind, after, LOG_PAGE)
        if follow:
            _follow(context, first)
        else:
            _print_log(context, first)

    show_log.help = f"{about}\n\nWith --follow and --json there is one JSON object to a line."


_log_command("updates", "updates", "Committed changes, in their one order; the number is the revision.")
_log_command("security", "security", "Credentials and rights that were refused: who asked for what, from where.")
_log_command("admin", "administration", "What administrators asked for, and what came of it.")


def _pages(context: AdminContext, first: ReadLog) -> Iterator[LogEntries]:
    """The answer to `first` and what comes after it, until nothing more is there."""
    page = context.ask(first, LogEntries)
    if not first.last and page.floor > first.after + 1:
        context.print_note(f"The log begins at number {page.floor}; what was before has been trimmed.")
    yield page
    while len(page.entries) >= LOG_PAGE:
        page = context.ask(ReadLog(first.log, page.entries[-1].number, LOG_PAGE), LogEntries)
        yield page


def _print_log(context: AdminContext, first: ReadLog) -> None:
    entries: list[LogEntry] = []
    floor = 0
    for page in _pages(context, first):
        entries += page.entries
        floor = page.floor
    context.print_result(table_of_log(first.log, entries, context.time_format), LogEntries(tuple(entries), floor))


def _follow(context: AdminContext, first: ReadLog) -> None:
    """Print entries as they come, across restarts of the server, until the person has seen enough."""
    after, headed = first.after, True
    try:
        for page in _pages(context, first):
            after = _print_page(context, first.log, page, after, headed)
            headed = headed and not page.entries
        while True:
            waiting = ReadLog(first.log, after, LOG_PAGE, wait_seconds=LOG_WAIT_SECONDS_MAX)
            try:
                page = context.ask(waiting, LogEntries)
            except (ConnectionFailed, Failed) as problem:
                if not _may_retry(problem):
                    raise
                context.close_session()
                context.print_note(f"{problem}; looking again in {RETRY_SECONDS:g} s")
                context.sleep(RETRY_SECONDS)
                continue
            after = _print_page(context, first.log, page, after, headed)
            headed = headed and not page.entries
    except KeyboardInterrupt:
        return


def _may_retry(problem: ConnectionFailed | Failed) -> bool:
    if isinstance(problem, Failed):
        return problem.exit_code == ExitCode.UNAVAILABLE
    return problem.kind == "unavailable"


def _print_page(context: AdminContext, name: str, page: LogEntries, after: int, headed: bool) -> int:
    """Print a page; the number of its last entry."""
    if not page.entries:
        return after
    if context.in_json:
        for entry in page.entries:
            click.echo(json.dumps(as_json(entry)))
    else:
        print_table(table_of_log(name, page.entries, context.time_format), headed)
    return page.entries[-1].number


def status_commands(group: click.Group) -> None:
    """Add `impact`, `status` and `lag` to the program."""

    @command(
        group,
        "impact",
        "impact openuss",
        "impact chinaserver.openuss",
        "impact chinaserver.openuss 192.0.2.7:2028",
    )
    @click.argument("name")
    @click.argument("endpoint", metavar="[ADDRESS:PORT]", required=False)
    def impact(context: AdminContext, name: str, endpoint: str | None) -> None:
        """Who would be told if something happened to a category, a service or a listener."""
        reply = context.ask(build_request.impact(name, endpoint), Told)
        context.print_result(table_of_impact(reply), reply)

    @command(group, "status", "status", "--server gns2.example.net:4863 status --json")
    def status(context: AdminContext) -> None:
        """The server in figures, and all servers over the same store.

        Role: a keeper looks after hosts and incidents; a bystander serves, but has no host's session, or does not
        believe its own probes; a silent one has not been heard of for some seconds. Lag: revisions behind the newest.
        """
        reply = context.ask(Status(), ServerStatus)
        context.print_result(
            [table_of_status(reply, context.time_format), "", table_of_servers(reply, context.time_format)], reply
        )

    @command(group, "lag", "lag")
    def lag(context: AdminContext) -> None:
        """Which host holds which revision, at whichever server: the proof that a change has arrived.

        Hosts of other servers are told of as those said within the last second.
        """
        reply = context.ask(Lag(), Lags)
        context.print_result(table_of_lags(reply), reply)
