"""Commands `backup`, `restore`, `store`: work on the store itself, on a server's machine, without a server."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec
from sqlalchemy import URL, Connection

from compass.admin.shell.context import AdminContext, Failed
from compass.admin.shell.decorators import command, examples
from compass.admin.shell.tables import TableView
from compass.model.exit_codes import ExitCode
from compass.model.interfaces import Rebuilt, StoreUnavailable
from compass.store.bulk_insert import BatchWriter
from compass.store.engine import file_of, parse_url, redacted_url, resolve_url
from compass.store.errors import StoreInUse, StoreUnusable
from compass.store.migrate import head_of
from compass.store.offline.backup import back_up, downgrade, open_to_read, restore, verify
from compass.store.offline.copy import copy
from compass.store.offline.exclusive import correct_digest, give_new_id, open_exclusive
from compass.store.offline.verify import StoreReport, problems_of, report_of
from compass.store.restoration import rebuild, unexplained
from compass.system.command_line import CheckedGroup

CONFIG_VARIABLE = "OPENGNSSD_CONFIG"
CONFIG_DEFAULT = "/etc/opengns/opengnssd.toml"
CONFIG_MAX = 1024 * 1024
"""Greatest size of a server's configuration in octets, the same as the server's own limit."""
RESTART = "Hosts that connect take a snapshot and register their services again."

_which = (
    click.option("--store", "store_url", default="", metavar="URL", help="URL of the store, as in [server] store."),
    click.option(
        "--server-config",
        default="",
        metavar="FILE",
        help=f"Configuration of opengnssd with the store.  [default: ${CONFIG_VARIABLE}, else {CONFIG_DEFAULT}]",
    ),
)
_yes = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


@click.group("store", cls=CheckedGroup)
def store() -> None:
    """The database of the servers: show, check, copy or downgrade it directly, without a server."""


store.epilog = examples(
    "store check", "store copy sqlite:////var/lib/opengns/catalogue.sqlite3 postgresql://gns@db/gns"
)


def store_commands(group: click.Group) -> None:
    """Add `backup`, `restore` and `store` to the program, once."""
    if store.name in group.commands:
        return
    group.add_command(store)

    @command(
        group, "backup", "backup /var/backups/gns-monday.sqlite3", "backup FILE --store sqlite:///x", options=_which
    )
    @click.argument("file", type=click.Path(path_type=Path))
    def backup_command(context: AdminContext, file: Path, store_url: str, server_config: str) -> None:
        """Write a backup of the store to FILE, which must not exist. Servers keep running.

        FILE is a consistent SQLite database, checked and durable when the command ends. It holds digests of
        credentials, so only its owner can read it. For PostgreSQL the command names the tool to use.
        """
        with _store_errors():
            url = _store_url(context, store_url, server_config)
            with _progress("Copying") as progress:
                condition = back_up(url, file, progress)
        size = file.stat().st_size
        result = {"type": "backup", "file": str(file), "octets": size, "condition": condition}
        context.print_result([f"Wrote {file}: {size} octets, {_summary(condition)}; checked."], result)

    @command(group, "restore", "restore /var/backups/gns-monday.sqlite3", options=(*_which, _yes))
    @click.argument("file", type=click.Path(path_type=Path))
    def restore_command(context: AdminContext, file: Path, store_url: str, server_config: str, yes: bool) -> None:
        """Replace the store by the backup FILE, while no server uses the store.

        The replacement is atomic, and the old store is kept next to it. The store gets a new id, so that hosts drop
        what they hold of later revisions: they take a snapshot and register their services again.
        """
        with _store_errors():
            url = _store_url(context, store_url, server_config)
            condition = verify(file)
            _confirm(context, yes, f"Replace {redacted_url(url)} by {file} ({_summary(condition)})?")
            with _progress("Copying") as progress:
                restored = restore(url, file, _copy_name(context, url, "restore"), progress)
        kept = [f"The old store is {restored.kept}."] if restored.kept else []
        context.print_result(
            [f"{redacted_url(url)} is {_summary(restored.condition)}.", *kept, f"Start opengnssd. {RESTART}"], restored
        )


@command(store, "show", "store show", "store show --store sqlite:////var/lib/opengns/catalogue.sqlite3", options=_which)
def show_command(context: AdminContext, store_url: str, server_config: str) -> None:
    """Show the store's id, schema, revision, digest and row counts. Servers may keep running."""
    with _store_errors():
        url = _store_url(context, store_url, server_config)
        with context.working("Reading rows"), open_to_read(url) as connection:
            condition = report_of(connection, redacted_url(url))
    known = f"{condition.schema}, that of this program" if condition.schema == head_of() else condition.schema
    lines = [
        ("store", redacted_url(url)),
        ("id", condition.store),
        (
            "schema",
            known + (f"; programs from {condition.readable_from} on can use it" * bool(condition.readable_from)),
        ),
        ("revision", str(condition.revision)),
        ("log from", str(condition.floor)),
        ("digest", condition.digest or "unknown: another schema"),
        *((f"rows of {table}", str(count)) for table, count in condition.rows.items()),
    ]
    context.print_result(TableView(("", ""), tuple(lines)), condition)


@command(store, "check", "store check", "store check --store sqlite:////var/backups/gns.sqlite3 --json", options=_which)
def check_command(context: AdminContext, store_url: str, server_config: str) -> None:
    """Check the consistency of file, rows, logs and digest. Servers may keep running; a backup can be checked too.

    The exit status is 0 if there is no problem, else 1 with every problem printed.
    """
    with _store_errors():
        url = _store_url(context, store_url, server_config)
        with context.working("Reading rows and logs"), open_to_read(url) as connection:
            condition = report_of(connection, redacted_url(url))
            problems = problems_of(connection, condition)
    result = {"type": "check", "condition": condition, "problems": problems}
    note = "" if condition.recorded_digest else " The last commit recorded no digest; the next one will."
    context.print_result(
        problems or [f"{redacted_url(url)} is consistent: {_summary(condition)}, digest {condition.digest}.{note}"],
        result,
    )
    if problems:
        click.get_current_context().exit(ExitCode.FAILED.value)


@command(
    store,
    "copy",
    "store copy sqlite:////var/lib/opengns/catalogue.sqlite3 postgresql://gns@db1,db2/gns",
    "store copy postgresql://gns@db1/gns sqlite:////tmp/gns.sqlite3 --new-id",
)
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option(
    "--new-id", is_flag=True, help="Make an independent store, for tests for instance; servers may keep using FROM."
)
def copy_command(context: AdminContext, source: str, target: str, new_id: bool) -> None:
    """Copy a store into an empty database: from SQLite to PostgreSQL, back, or to another of the same kind.

    Rows, logs, revisions and the id are copied in one transaction, and the digest of the copy is compared before
    the commit. Stop every server first, start them on TO afterwards, and never again on FROM: hosts continue at their
    revisions without a snapshot.
    """
    with _store_errors():
        with _progress("Copying") as progress:
            copied = copy(parse_url(source), parse_url(target), new_id=new_id, progress=progress)
        after = copied.condition
    name = redacted_url(parse_url(target))
    rows = f"{sum(after.rows.values())} rows"
    lines = [
        f"{name} is {_summary(after)}: {rows}, digest {after.digest}, the same as in {redacted_url(parse_url(source))}."
    ]
    if not new_id:
        lines.append("Now set [server] store of every opengnssd to TO, start them, and never use FROM again.")
    context.print_result(lines, copied)


@command(store, "downgrade", "store downgrade 0002", options=(*_which, _yes))
@click.argument("version")
def downgrade_command(context: AdminContext, version: str, store_url: str, server_config: str, yes: bool) -> None:
    """Downgrade the schema to VERSION for an older program. No server may use the store.

    Data that only the newer schema can hold is lost; a SQLite file is copied first. See docs/howto/upgrade.md.
    """
    with _store_errors():
        url = _store_url(context, store_url, server_config)
        _confirm(context, yes, f"Downgrade {redacted_url(url)} to schema {version}?")
        done = downgrade(url, version, _copy_name(context, url, "downgrade"))
    copies = [f"The copy from before is {done.kept}."] if done.kept else []
    context.print_result([f"{redacted_url(url)} now has schema {done.condition.schema}.", *copies], done)


@command(store, "new-id", "store new-id", options=(*_which, _yes))
def new_id_command(context: AdminContext, store_url: str, server_config: str, yes: bool) -> None:
    """Give the store a new id, after PostgreSQL was restored to an earlier state by its own tools.

    Without a new id, hosts would mistake the store for the one that they know, with revisions that they already
    hold. No server may use the store. 'restore' does this by itself.
    """
    with _store_errors():
        url = _store_url(context, store_url, server_config)
        _confirm(context, yes, f"Give {redacted_url(url)} a new id?")
        with open_exclusive(url, alone=True, writes=True) as connection:
            report_of(connection, redacted_url(url))
            id = give_new_id(connection)
    context.print_result(
        [f"{redacted_url(url)} now has the id {id}. Start opengnssd. {RESTART}"], {"type": "new-id", "store": id}
    )


@command(store, "repair", "store repair", "store repair --accept", options=(*_which, _yes))
@click.option("--accept", is_flag=True, help="Record the digest of rows that the log cannot rebuild, as they are.")
def repair_command(context: AdminContext, store_url: str, server_config: str, yes: bool, accept: bool) -> None:
    """Rebuild damaged rows from the update log. No server may use the store.

    The rows must have the digest that their last commit recorded. Rows that the log knows otherwise are written as the
    log has them, if all rows then have that digest. If the log does not say enough, nothing is changed: put a backup
    back with 'restore', or accept the rows as they are with --accept. Servers do the same by themselves, except for
    --accept.
    """
    with _store_errors():
        url = _store_url(context, store_url, server_config)
        name = redacted_url(url)
        _confirm(context, yes, f"Repair {name}?")
        with open_exclusive(url, alone=True, writes=True) as connection:
            condition = report_of(connection, name)
            if condition.recorded_digest in ("", condition.digest):
                found, text = Rebuilt("confirmed"), f"{name} needs no repair: {_summary(condition)}."
            else:
                found = rebuild(connection, BatchWriter(connection.dialect.name), condition.recorded_digest)
                text = _repaired(connection, name, condition, found, accept)
    context.print_result([text], {"type": "repair", "result": found, "accepted": accept})


def _repaired(connection: Connection, name: str, condition: StoreReport, found: Rebuilt, accept: bool) -> str:
    """Return the result of a repair as a sentence. Raises Failed if an administrator has to decide."""
    if found.verdict == "rebuilt":
        return f"{name}: rebuilt {found.rows} rows from the update log. Start opengnssd."
    if found.verdict == "unexplained" and found.unreadable:
        why = f"{found.unreadable} rows cannot be read"
        raise Failed(ExitCode.FAILED, f"{unexplained(name, why)}; nothing was changed")
    if found.verdict == "unexplained" and not accept:
        raise Failed(
            ExitCode.FAILED,
            f"{name}: the rows do not have the recorded digest, and the update log does not say which are wrong ("
            f"{found.rows} differ from it, it has no entry of {found.unknown}); nothing was changed. Put a backup back "
            "with 'opengnsadmin restore', or accept the rows with --accept",
        )
    correct_digest(connection, condition.revision, condition.digest)
    why = "which the update log confirms" if found.verdict == "confirmed" else "as they are"
    return f"{name}: recorded the digest of the rows, {why}. Start opengnssd."


def _summary(condition: StoreReport) -> str:
    return f"store {condition.store[:12]} at revision {condition.revision}"


def _store_url(context: AdminContext, store_url: str, server_config: str) -> URL:
    """Return the store's URL from the options or from the server's configuration. Raises Failed, StoreUnusable."""
    if store_url and server_config:
        raise click.UsageError("--store and --server-config exclude each other")
    if store_url:
        return parse_url(store_url)
    path = Path(server_config or context.machine.environment.get(CONFIG_VARIABLE, "") or CONFIG_DEFAULT)
    try:
        with path.open("rb") as file:
            tables = tomllib.loads(file.read(CONFIG_MAX).decode("utf-8"))
        text = tables["server"]["store"]
    except OSError as error:
        hint = "name the store with --store URL, or opengnssd's file with --server-config"
        raise Failed(ExitCode.FAILED, f"{path} cannot be read: {error.strerror}; {hint}") from None
    except (ValueError, KeyError, TypeError):
        raise Failed(ExitCode.FAILED, f"{path} is not a configuration of opengnssd with [server] store") from None
    return resolve_url(str(text), path.absolute().parent)


def _copy_name(context: AdminContext, url: URL, step: str) -> str:
    """Return the file name of the copy that is kept from before a step."""
    file = file_of(url)
    stamp = datetime.fromtimestamp(context.machine.now(), UTC)
    return f"{file.name if file else ''}.before-{step}-{stamp:%Y%m%dT%H%M%SZ}"


def _confirm(context: AdminContext, yes: bool, question: str) -> None:
    """Ask for confirmation, unless --yes was given. Raises Failed if it is refused or there is no terminal."""
    if yes:
        return
    if not context.machine.is_interactive():
        raise Failed(ExitCode.FAILED, f"{question} There is no terminal to confirm: use --yes")
    if not click.confirm(question, err=True):
        raise Failed(ExitCode.FAILED, "nothing was changed")


@contextmanager
def _progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on the standard error stream, if it is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with click.progressbar(length=1000, label=label, file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.update(1000 * done // max(total, 1) - bar.pos)

        yield progress


@contextmanager
def _store_errors() -> Iterator[None]:
    """Turn a problem with the store into the failure of the command."""
    try:
        yield
    except msgspec.DecodeError as problem:
        text = f"a row of the store cannot be decoded ({problem}): put a backup back with 'opengnsadmin restore'"
        raise Failed(ExitCode.FAILED, text, {"type": "problem", "kind": "unusable", "message": text}) from None
    except StoreUnavailable as problem:
        kind, status = "unavailable", ExitCode.UNAVAILABLE
        if isinstance(problem, StoreInUse):
            kind, status = "in-use", ExitCode.CONFLICT
        elif isinstance(problem, StoreUnusable):
            kind, status = "unusable", ExitCode.FAILED
        details: dict[str, Any] = {"type": "problem", "kind": kind, "message": str(problem)}
        raise Failed(status, str(problem), details) from None
