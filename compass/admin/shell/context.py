"""Context of the commands of `opengnsadmin`: settings, one session, requests and output.

Commands stay thin: they build a request (`build_request`), send it with `ask`, and pass the reply to `print_result` in
two forms, for people and for programs. A command that does not succeed ends with `Failed`, which has the exit status.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from compass.admin.shell.config import Given, Settings, SettingsProblem, read_settings
from compass.admin.shell.connection import EXIT_OF_KIND, AdminSession, ConnectionFailed
from compass.admin.shell.formats import TimeFormat, as_json, format_duration
from compass.admin.shell.seen_revisions import SeenRevisions
from compass.admin.shell.tables import TableView
from compass.model.exit_codes import ExitCode, exit_of
from compass.model.limits import ADMIN_CONNECT_SECONDS
from compass.model.names import InvalidName
from compass.model.replies import Code, Lags, Refusal, Rows
from compass.model.requests import Fetch, Impact, Lag, Pull, Request
from compass.model.rows import Row
from compass.model.rules.certificates import NOTICE_DAYS
from compass.model.text import escape, escape_line
from compass.pki.authority import describe
from compass.system.command_line import print_text
from compass.system.files import replacing

SOFTWARE = "opengnsadmin"
PAGE = 10_000
"""Rows requested at once. The server ends a page earlier if its rows are long."""
CHANGED_BY_HOSTS = frozenset({"listener", "host", "alert", "credential"})
"""Kinds of rows that change without an administrator."""
FEW = 100
"""Rows that are read again when they change meanwhile: they fit into a page even with full metadata."""
READ_ATTEMPTS = 5
"""Attempts to read rows that change while they are read."""
CELL_MAX = 4096
"""Characters of one cell: the length of the longest text in a log."""
PIPE_WIDTH = 1000
"""Columns of a table in a file or a pipe, where lines are not wrapped."""
STATE_COLOURS = {
    "up": "green",
    "slow": "yellow",
    "suspect": "yellow",
    "draining": "cyan",
    "down": "bold red",
    "offline": "dim",
    "ok": "green",
    "failed": "bold red",
    "barred": "bold red",
}

WAIT_SECONDS_MAX = 3600.0
"""Longest time to wait for a server; a start that takes longer has failed."""
WAIT_POLL_SECONDS = 0.2
"""Pause between two attempts to connect."""

R = TypeVar("R")


class Failed(click.ClickException):
    """End of a command that failed, with its exit status."""

    def __init__(
        self,
        exit_status: ExitCode,
        message: str,
        details: Mapping[str, Any] | None = None,
        refusal: Refusal | None = None,
    ) -> None:
        super().__init__(message)
        self.refusal = refusal
        """Refusal of the server, if that is the reason."""
        self.exit_code = exit_status.value  # type: ignore[misc]  # click reads the instance's, and types the class's
        self.details = details or {"type": "problem", "message": message}
        """Message for programs, printed with --json."""
        self.in_json = False

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message to the standard error stream, as text or as JSON."""
        text = json.dumps(self.details) if self.in_json else f"opengnsadmin: {_printable_lines(self.message)}"
        print_text(text, err=True)


def failure_of(refusal: Refusal) -> Failed:
    """Return the failure of a command for a refusal."""
    problems = "".join(f"\n  row {problem.index}: {escape(problem.message)}" for problem in refusal.problems)
    again = f" (try again in {refusal.retry_after_seconds:g} s)" if refusal.retry_after_seconds else ""
    text = f"{escape(refusal.message)}{again} [{escape(refusal.code)}]{problems}"
    return Failed(exit_of(refusal.code), text, as_json(refusal), refusal)


def no_such(code: Code, message: str) -> Failed:
    """Return the failure for a row that is not among those that the server sent."""
    return failure_of(Refusal(code, message))


class Machine:
    """Machine and terminal that the program runs on."""

    def __init__(self, environment: Mapping[str, str] = os.environ, home: Path | None = None) -> None:
        self.environment = environment
        self.home = home or Path.home()

    def now(self) -> float:
        """Return UNIX time."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Pause."""
        time.sleep(seconds)

    def is_interactive(self) -> bool:
        """Return whether a person can answer a question."""
        return sys.stdin.isatty()


class AdminContext:
    """Context of one run of the program."""

    def __init__(self, machine: Machine | None = None) -> None:
        self.machine = machine or Machine()
        self.given = Given()
        self.in_json = False
        self._settings: Settings | None = None
        self._session: AdminSession | None = None
        self._is_noted = False
        self._seen = SeenRevisions(self.machine.home, self.machine)

    @property
    def settings(self) -> Settings:
        """Settings in effect. Raises SettingsProblem."""
        if self._settings is None:
            self._settings = read_settings(self.given, self.machine.environment, self.machine.home)
        return self._settings

    @property
    def time_format(self) -> TimeFormat:
        """Format of times in tables."""
        return TimeFormat(self.machine.now())

    def ask(self, request: Request, expected: type[R]) -> R:
        """Send a request. Returns the reply of the expected type, raises Failed for a refusal."""
        if self._session is None:
            self._session = self._connect()
            self._note_end_of_certificate(self.settings.identity.certificate)
        store = self._session.welcome.store
        if isinstance(request, Fetch | Impact | Pull):
            request = msgspec.structs.replace(request, store=store, seen=self._seen.last_seen(store))
        reply = self._session.ask(request)
        if not getattr(request, "dry_run", False):
            # The revision of a dry run is not one that was seen.
            self._seen.note(store, getattr(reply, "revision", 0))
        if isinstance(reply, Refusal):
            raise failure_of(reply)
        if not isinstance(reply, expected):
            raise Failed(
                ExitCode.MISUNDERSTOOD,
                f"unexpected reply {type(reply).__name__}; is the server newer than this program?",
            )
        return reply

    def _connect(self) -> AdminSession:
        """Return a session with the first server that answers. Raises ConnectionFailed after the time to wait."""
        settings, end = self.settings, self.machine.now() + self.given.wait
        while True:
            try:
                return AdminSession.connect(settings.servers, settings.identity, ADMIN_CONNECT_SECONDS, SOFTWARE)
            except ConnectionFailed as problem:
                if problem.kind != "unavailable" or self.machine.now() >= end:
                    raise
            self.machine.sleep(WAIT_POLL_SECONDS)

    def _note_end_of_certificate(self, path: Path) -> None:
        """Print a note if the administrator's own certificate ends soon: no server renews it."""
        ends = datetime.fromisoformat(describe(path.read_bytes())["not_after"])
        left = ends.timestamp() - self.machine.now()
        if not self._is_noted and left < timedelta(days=NOTICE_DAYS[0]).total_seconds():
            self._is_noted = True
            advice = "have another one made with 'opengnsadmin init admin NAME' where the authority is"
            self.print_note(f"Note: your certificate ends in {format_duration(max(left, 0.0))}; {advice}")

    def close_session(self) -> None:
        """Close the session, because servers end an idle one. The next request opens another."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def rows(self, *wanted: Fetch) -> list[Rows]:
        """Return all rows of each fetch, at one revision or equal in two reads.

        Rows that hosts change may fill many pages; each of them is returned as it was when its page was read.
        """
        before: list[tuple[Row, ...]] = []
        for _ in range(READ_ATTEMPTS):
            revisions: set[int] = set()
            found = [self._all_pages(fetch, revisions) for fetch in wanted]
            rows = [part.rows for part in found]
            if len(revisions) == 1 or rows == before or self._is_long(wanted, found):
                return found
            before = rows
        raise failure_of(Refusal("busy", "the rows change faster than they can be read; try again", 1.0))

    def _all_pages(self, fetch: Fetch, revisions: set[int]) -> Rows:
        rows: list[Row] = []
        page = self.ask(msgspec.structs.replace(fetch, limit=PAGE, pages=True), Rows)
        while True:
            revisions.add(page.revision)
            rows += page.rows
            if page.cursor:
                following = msgspec.structs.replace(fetch, limit=PAGE, cursor=page.cursor)
            elif page.rows and len(rows) < page.total:
                # An older server knows no cursors.
                following = msgspec.structs.replace(fetch, limit=PAGE, after=len(rows))
            else:
                return Rows(page.revision, tuple(rows), len(rows))
            page = self.ask(following, Rows)

    @staticmethod
    def _is_long(wanted: Sequence[Fetch], found: Sequence[Rows]) -> bool:
        """Return whether rows that hosts change fill several pages, which are never all of one revision."""
        return all(fetch.kind in CHANGED_BY_HOSTS for fetch in wanted) and any(len(part.rows) > FEW for part in found)

    def one(self, fetch: Fetch, code: Code, message: str) -> Row:
        """Return the only row of the fetch. Raises Failed with the given refusal if there is none."""
        rows = self.rows(fetch)[0].rows
        if not rows:
            raise no_such(code, message)
        return rows[0]

    def lags(self) -> Lags:
        """Return the session of each host, and the revision that it holds."""
        reply = self.ask(Lag(pages=True), Lags)
        while reply.cursor:
            page = self.ask(Lag(cursor=reply.cursor), Lags)
            reply = msgspec.structs.replace(page, hosts=reply.hosts + page.hosts)
        return reply

    def print_result(self, for_people: TableView | Sequence[str | TableView], for_programs: Any) -> None:
        """Print a result: JSON with --json, else tables and sentences."""
        if self.in_json:
            print_text(json.dumps(as_json(for_programs), indent=2))
        elif isinstance(for_people, TableView):
            print_table(for_people)
        else:
            for part in for_people:
                if isinstance(part, TableView):
                    print_table(part)
                else:
                    print_text(escape_line(part, CELL_MAX))

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """Show on a terminal what is being done, and for how long already, while the block runs."""
        if not sys.stderr.isatty():
            yield
            return
        parts = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
        with Progress(*parts, console=Console(stderr=True), transient=True) as progress:
            progress.add_task(escape_line(text, CELL_MAX), total=None)
            yield

    def print_note(self, text: str) -> None:
        """Print a note to the standard error stream."""
        print_text(escape_line(text, CELL_MAX), err=True)

    @contextmanager
    def error_handling(self) -> Iterator[None]:
        """Turn every failure of a command into `Failed`, and close the session in any case."""
        try:
            try:
                yield
            finally:
                self.close_session()
        except Failed as failed:
            failed.in_json = self.in_json
            raise
        except ConnectionFailed as problem:
            raise self._failure(EXIT_OF_KIND[problem.kind], str(problem), problem.kind) from None
        except SettingsProblem as problem:
            raise self._failure(ExitCode.FAILED, str(problem), "settings") from None
        except InvalidName as problem:
            failure = failure_of(Refusal(problem.code, str(problem)))
            failure.in_json = self.in_json
            raise failure from None

    def _failure(self, status: ExitCode, message: str, kind: str) -> Failed:
        failed = Failed(status, message, {"type": "problem", "kind": kind, "message": message})
        failed.in_json = self.in_json
        return failed


def print_table(sheet: TableView, headed: bool = True) -> None:
    """Print a table to the standard output. Control characters are escaped."""
    if not sheet.lines:
        print_text(sheet.empty_text)
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    headed = headed and any(sheet.columns)
    table = Table(box=None, show_header=headed, header_style="bold", pad_edge=False)
    for column in sheet.columns:
        table.add_column(column.upper(), overflow="fold")
    for line in sheet.lines:
        table.add_row(*(Text(escape_line(cell, CELL_MAX), STATE_COLOURS.get(cell, "")) for cell in line))
    console.print(table)


def write_new_text(path: Path, text: str, mode: int) -> None:
    """Replace the file's content in one step. Raises Failed."""
    with output_file(path, mode) as file:
        file.write(text)


@contextmanager
def output_file(path: Path, mode: int) -> Iterator[IO[str]]:
    """Open a file that replaces `path` when the block ends without an exception. Raises Failed."""
    try:
        with replacing(path, mode) as file:
            yield file
    except OSError as error:
        raise Failed(ExitCode.FAILED, f"cannot write {path}: {error.strerror}") from None


def _printable_lines(text: str) -> str:
    return "\n".join(escape_line(line, CELL_MAX) for line in text.split("\n"))
