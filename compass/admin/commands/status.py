"""Commands `alert`, `log`, `impact`, `status`, `lag`: the state of the name service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Literal

import click
import msgspec

from compass.admin.commands.objects import list_rows
from compass.admin.shell import build_request
from compass.admin.shell.connection import ConnectionFailed
from compass.admin.shell.context import AdminContext, Failed, print_table
from compass.admin.shell.decorators import command
from compass.admin.shell.formats import as_json
from compass.admin.shell.tables import (
    table_of_channels,
    table_of_impact,
    table_of_lags,
    table_of_log,
    table_of_servers,
    table_of_status,
    table_of_tried_channels,
)
from compass.model.exit_codes import ExitCode
from compass.model.replies import LogEntries, ServerStatus, Told, WayList, WaysTried
from compass.model.requests import Fetch, ReadLog, Status, TryWays, Ways
from compass.model.rows import LogEntry
from compass.system.command_line import CheckedGroup, print_text
from compass.wire.limits import LOG_WAIT_SECONDS_MAX

LOG_PAGE = 1000
"""Entries requested at once."""
LAST_MAX = 10_000
"""Greatest value of --last: what a server returns at once. For more, use --after."""
RETRY_SECONDS = 2.0
"""Seconds before reconnecting to a server whose log is followed."""
LogName = Literal["updates", "security", "administration"]


@click.group("alert", cls=CheckedGroup)
def alert() -> None:
    """Open incidents: listeners that failed or are slow. An incident is reported once and closes by itself."""


@command(alert, "list", "alert list", watchable=True)
def alert_list(context: AdminContext) -> None:
    """List the open incidents."""
    list_rows(context, Fetch("alert"))


@command(alert, "ways", "alert ways", "--server gns2.example.net alert ways --json")
def alert_ways(context: AdminContext) -> None:
    """Show the channels by which a server notifies administrators of incidents, with their state.

    If several servers share a store, one of them uses each channel; 'pending' incidents are still to be sent.
    """
    reply = context.ask(Ways(), WayList)
    context.print_result(table_of_channels(reply, context.time_format), reply)


@command(alert, "test", "alert test", "alert test --way pager", "--server gns2.example.net alert test --json")
@click.option(
    "--way", "name", default="", metavar="NAME", help="Only this channel; for mail without an address: all of mail."
)
def alert_test(context: AdminContext, name: str) -> None:
    """Send a test message through every configured channel of a server and show the results.

    The exit status is not 0 if one fails. A mail counts as delivered once the relay has accepted it.
    """
    reply = context.ask(TryWays(name), WaysTried)
    context.print_result(table_of_tried_channels(reply), reply)
    failed = [way.name for way in reply.ways if way.problem]
    if failed:
        click.get_current_context().exit(ExitCode.FAILED.value)


@click.group("log", cls=CheckedGroup)
def log() -> None:
    """The three logs: committed changes, refused credentials and rights, and requests of administrators."""


def _log_command(name: str, kind: LogName, about: str) -> None:
    lines = (f"log {name}", f"log {name} --last 100 --json", f"log {name} --after 4711 --follow")

    @command(log, name, *lines)
    @click.option(
        "--last", type=click.IntRange(1, LAST_MAX), help="Show the last N entries.  [default: 20]", metavar="N"
    )
    @click.option(
        "--after", type=click.IntRange(0), metavar="NUMBER", help="Show all entries after this number instead."
    )
    @click.option("--follow", is_flag=True, help="Wait for new entries until Ctrl-C, which ends with status 0.")
    def show_log(context: AdminContext, last: int | None, after: int | None, follow: bool) -> None:
        if last is not None and after is not None:
            raise click.UsageError("--last and --after exclude each other")
        first = ReadLog(kind, last=last or 20, limit=LAST_MAX) if after is None else ReadLog(kind, after, LOG_PAGE)
        if follow:
            _follow(context, first)
        else:
            _print_log(context, first)

    show_log.help = f"{about}\n\nWith --follow and --json, each line is one JSON object."


_log_command("updates", "updates", "Show committed changes in order; the number is the revision.")
_log_command("security", "security", "Show refused credentials and rights: principal, operation and origin.")
_log_command("admin", "administration", "Show the requests of administrators and their outcomes.")


def log_pages(context: AdminContext, first: ReadLog) -> Iterator[LogEntries]:
    """Yield the reply to `first` and the following pages."""
    page = context.ask(msgspec.structs.replace(first, pages=True), LogEntries)
    if not first.last and page.floor > first.after + 1:
        context.print_note(f"The log begins at number {page.floor}; older entries have been trimmed.")
    yield page
    while page.more or len(page.entries) >= LOG_PAGE:
        page = context.ask(ReadLog(first.log, page.entries[-1].number, LOG_PAGE, pages=True), LogEntries)
        yield page


def _print_log(context: AdminContext, first: ReadLog) -> None:
    entries: list[LogEntry] = []
    floor = 0
    for page in log_pages(context, first):
        entries += page.entries
        floor = page.floor
    context.print_result(table_of_log(first.log, entries, context.time_format), LogEntries(tuple(entries), floor))


def _follow(context: AdminContext, first: ReadLog) -> None:
    """Print entries as they arrive, also after restarts of the server, until Ctrl-C."""
    after, headed = first.after, True
    try:
        for page in log_pages(context, first):
            after = _print_page(context, first.log, page, after, headed)
            headed = headed and not page.entries
        while True:
            waiting = ReadLog(first.log, after, LOG_PAGE, wait_seconds=LOG_WAIT_SECONDS_MAX, pages=True)
            try:
                page = context.ask(waiting, LogEntries)
            except (ConnectionFailed, Failed) as problem:
                if not _may_retry(problem):
                    raise
                context.close_session()
                context.print_note(f"{problem}; reconnecting in {RETRY_SECONDS:g} s")
                context.machine.sleep(RETRY_SECONDS)
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
    """Print a page. Returns the number of its last entry."""
    if not page.entries:
        return after
    if context.in_json:
        for entry in page.entries:
            print_text(json.dumps(as_json(entry)))
    else:
        print_table(table_of_log(name, page.entries, context.time_format), headed)
    return page.entries[-1].number


def status_commands(group: click.Group) -> None:
    """Add `impact`, `status` and `lag` to the program."""

    @command(
        group, "impact", "impact openuss", "impact chinaserver.openuss", "impact chinaserver.openuss 192.0.2.7:2028"
    )
    @click.argument("name")
    @click.argument("endpoint", metavar="[ADDRESS:PORT]", required=False)
    def impact(context: AdminContext, name: str, endpoint: str | None) -> None:
        """Show who would be notified of a change of a category, a service or a listener."""
        reply = context.ask(build_request.impact(name, endpoint), Told)
        context.print_result(table_of_impact(reply), reply)

    @command(group, "status", "status", "--server gns2.example.net:4863 status --json", watchable=True)
    def status(context: AdminContext) -> None:
        """Show the figures of a server, and all servers over the same store.

        Role: a keeper monitors hosts and sends alerts; a bystander serves, but has no sessions of hosts or distrusts
        its own probes; a silent one has sent no heartbeat for some seconds. Lag: revisions behind the newest.
        """
        reply = context.ask(Status(), ServerStatus)
        context.print_result(
            [table_of_status(reply, context.time_format), "", table_of_servers(reply, context.time_format)], reply
        )

    @command(group, "lag", "lag", watchable=True)
    def lag(context: AdminContext) -> None:
        """Show which revision each host holds, at any server: the proof that a change has arrived.

        Behind: changes that concern the host and that it has not acknowledged. Status: 'lost' if it has lost its
        session and is not back, 'gap' if it reported missing changes, 'unknown' if its server knows nothing of it.

        Figures of hosts at other servers are up to one second old.
        """
        reply = context.lags()
        context.print_result(table_of_lags(reply), reply)
