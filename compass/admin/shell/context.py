"""What the commands work with: it finds the settings, keeps one session, asks, and prints.

The commands stay thin: they build a request (`asking`), ask here, and hand the reply to `say` with its two faces, for
people and for programs. Everything that ends a command without success is a `Failed`, which knows its exit status.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from compass.admin.shell.config import Given, Settings, SettingsProblem, read_settings
from compass.admin.shell.connection import AdminSession, ConnectionFailed
from compass.admin.shell.exit_codes import EXIT_OF_KIND
from compass.admin.shell.seen_revisions import SeenRevisions
from compass.admin.shell.tables import TableView, TimeFormat, as_json
from compass.model.exit_codes import ExitCode, exit_of
from compass.model.names import InvalidName
from compass.model.replies import Code, Refusal, Rows
from compass.model.requests import Fetch, Impact, Pull, Request
from compass.model.rows import Row
from compass.model.text import escape_line
from compass.system.files import replacing

CONNECT_SECONDS = 5.0
"""For each step of connecting to one server: a person waits, and there may be another server to try."""
SOFTWARE = "opengnsadmin"
PAGE = 10_000
"""Rows asked for at once: a page of listeners with metadata is some 3 MB, and a frame holds 16."""
READ_ATTEMPTS = 5
"""How often rows are read again when they change while they are read."""
CELL_MAX = 4096
"""Characters of one cell: as much as the longest text in a log."""
PIPE_WIDTH = 1000
"""Columns of a table that goes into a file or a pipe, where nothing has to be wrapped for a screen."""
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

R = TypeVar("R")


class Failed(click.ClickException):
    """The end of a command that did not do what was asked."""

    def __init__(
        self,
        exit_status: ExitCode,
        message: str,
        told: Mapping[str, Any] | None = None,
        refusal: Refusal | None = None,
    ) -> None:
        super().__init__(message)
        self.refusal = refusal
        """The server's, if it was one."""
        self.exit_code = exit_status.value  # type: ignore[misc]  # click reads the instance's, and types the class's
        self.told = told or {"type": "problem", "message": message}
        """The same for programs."""
        self.in_json = False

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it to the standard error stream, as text or as JSON."""
        text = json.dumps(self.told) if self.in_json else f"Error: {_printable_lines(self.message)}"
        click.echo(text, file=file or sys.stderr)


def failure_of(refusal: Refusal) -> Failed:
    """A refusal as the end of a command."""
    problems = "".join(f"\n  row {problem.index}: {problem.message}" for problem in refusal.problems)
    again = f" (try again in {refusal.retry_after_seconds:g} s)" if refusal.retry_after_seconds else ""
    text = f"{refusal.message}{again} [{refusal.code}]{problems}"
    return Failed(exit_of(refusal.code), text, as_json(refusal), refusal)


def no_such(code: Code, message: str) -> Failed:
    """A refusal of our own: what was asked for is not among the rows that the server sent."""
    return failure_of(Refusal(code, message))


class AdminContext:
    """One run of the program. `environment`, `home`, `now` and `is_interactive` are the edge to the machine."""

    def __init__(
        self,
        environment: Mapping[str, str] = os.environ,
        home: Path | None = None,
        now: Callable[[], float] = time.time,
        is_interactive: Callable[[], bool] = lambda: sys.stdin.isatty(),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.given = Given()
        self.in_json = False
        self.environment = environment
        self.home = home or Path.home()
        self.now = now
        self.is_interactive = is_interactive
        self.sleep = sleep
        self._settings: Settings | None = None
        self._session: AdminSession | None = None
        self._seen = SeenRevisions(self.home, now)

    @property
    def settings(self) -> Settings:
        """The settings in force. Raises SettingsProblem."""
        if self._settings is None:
            self._settings = read_settings(self.given, self.environment, self.home)
        return self._settings

    @property
    def time_format(self) -> TimeFormat:
        """How times are shown."""
        return TimeFormat(self.now())

    def ask(self, request: Request, expected: type[R]) -> R:
        """The reply of that kind; a refusal ends the command."""
        if self._session is None:
            settings = self.settings
            self._session = AdminSession.connect(settings.servers, settings.identity, CONNECT_SECONDS, SOFTWARE)
        store = self._session.welcome.store
        if isinstance(request, Fetch | Impact | Pull):
            request = msgspec.structs.replace(request, store=store, seen=self._seen.last_seen(store))
        reply = self._session.ask(request)
        if not getattr(request, "dry_run", False):
            # What would be has not been seen.
            self._seen.note(store, getattr(reply, "revision", 0))
        if isinstance(reply, Refusal):
            raise failure_of(reply)
        if not isinstance(reply, expected):
            raise Failed(
                ExitCode.MISUNDERSTOOD, f"the server answered with {type(reply).__name__}; is it newer than this?"
            )
        return reply

    def close_session(self) -> None:
        """End the session; the next question opens another. Servers do not keep one that is idle."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def rows(self, *wanted: Fetch) -> list[Rows]:
        """All rows of each fetch, as they were at one revision, or twice the same."""
        before: list[tuple[Row, ...]] = []
        for _ in range(READ_ATTEMPTS):
            revisions: set[int] = set()
            found = [self._all_pages(fetch, revisions) for fetch in wanted]
            rows = [part.rows for part in found]
            if len(revisions) == 1 or rows == before:
                return found
            before = rows
        raise failure_of(Refusal("busy", "the rows change faster than they can be read; try again", 1.0))

    def _all_pages(self, fetch: Fetch, revisions: set[int]) -> Rows:
        rows: list[Row] = []
        while True:
            page = self.ask(msgspec.structs.replace(fetch, limit=PAGE, after=len(rows)), Rows)
            revisions.add(page.revision)
            rows += page.rows
            if len(rows) >= page.total or not page.rows:
                return Rows(page.revision, tuple(rows), page.total)

    def one(self, fetch: Fetch, code: Code, message: str) -> Row:
        """The one row of that name, or the end of the command with that refusal."""
        rows = self.rows(fetch)[0].rows
        if not rows:
            raise no_such(code, message)
        return rows[0]

    def print_result(self, for_people: TableView | Sequence[str | TableView], for_programs: Any) -> None:
        """Print what was learned: JSON if that was asked for, else tables and sentences."""
        if self.in_json:
            click.echo(json.dumps(as_json(for_programs), indent=2))
        elif isinstance(for_people, TableView):
            print_table(for_people)
        else:
            for part in for_people:
                if isinstance(part, TableView):
                    print_table(part)
                else:
                    click.echo(escape_line(part, CELL_MAX))

    def print_note(self, text: str) -> None:
        """Something beside the answer, on the standard error stream."""
        click.echo(escape_line(text, CELL_MAX), err=True)

    @contextmanager
    def error_handling(self) -> Iterator[None]:
        """Every way in which a command can fail, as `Failed`; the session is left whatever happens."""
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
            not_asked = failure_of(Refusal(problem.code, str(problem)))
            not_asked.in_json = self.in_json
            raise not_asked from None

    def _failure(self, status: ExitCode, message: str, kind: str) -> Failed:
        failed = Failed(status, message, {"type": "problem", "kind": kind, "message": message})
        failed.in_json = self.in_json
        return failed


def print_table(sheet: TableView, headed: bool = True) -> None:
    """A table on the standard output; what a stranger chose cannot command the terminal."""
    if not sheet.lines:
        click.echo(sheet.empty_text)
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
