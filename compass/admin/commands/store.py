"""`backup`, `restore`, `store`: what is done to the store itself, on the machine of a server, without asking one."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from sqlalchemy import URL

from compass.admin.shell.context import AdminContext, Failed
from compass.admin.shell.decorators import command, examples
from compass.admin.shell.tables import TableView
from compass.model.exit_codes import ExitCode
from compass.model.interfaces import StoreUnavailable
from compass.store.engine import file_of, parse_url, redacted_url, resolve_url
from compass.store.errors import StoreInUse, StoreUnusable
from compass.store.migrate import head_of
from compass.store.offline.backup import back_up, checked, downgrade, restore
from compass.store.offline.copy import copy
from compass.store.offline.exclusive import give_new_id, open_exclusive
from compass.store.offline.verify import StoreReport, condition_of, problems_of

CONFIG_VARIABLE = "OPENGNSSD_CONFIG"
CONFIG_DEFAULT = "/etc/opengns/opengnssd.toml"
CONFIG_MAX = 1024 * 1024
"""Octets of a server's configuration: as many as the server reads."""
RESTART = "Hosts that come take a snapshot and register again what runs on them."

_which = (
    click.option("--store", "store_url", default="", metavar="URL", help="The store, as in [server] store."),
    click.option(
        "--server-config",
        default="",
        metavar="FILE",
        help=f"Take it from this file of opengnssd.  [default: ${CONFIG_VARIABLE}, else {CONFIG_DEFAULT}]",
    ),
)
_yes = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group("store")
def store() -> None:
    """The database below the servers: look at it, check it, move it; done on the store itself, not through a server."""


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
        """Write the store to FILE, which must not exist. Servers go on meanwhile.

        FILE is a SQLite database of one moment: whole, checked and on disk when the command ends. It holds digests of
        credentials, so only its owner can read it. For PostgreSQL the command says which of its tools to use.
        """
        with _store_errors():
            url = _store_url(context, store_url, server_config)
            with _progress("Copying") as progress:
                condition = back_up(url, file, progress)
        size = file.stat().st_size
        told = {"type": "backup", "file": str(file), "octets": size, "condition": condition}
        context.print_result([f"Wrote {file}: {size} octets, {_summary(condition)}; checked."], told)

    @command(group, "restore", "restore /var/backups/gns-monday.sqlite3", options=(*_which, _yes))
    @click.argument("file", type=click.Path(path_type=Path))
    def restore_command(context: AdminContext, file: Path, store_url: str, server_config: str, yes: bool) -> None:
        """Put the backup FILE in the place of the store, while no server uses it.

        All of it or nothing; what was there is kept beside it. The store gets a new id, so that hosts do not believe
        what they hold of later revisions: they take a snapshot, and register again what runs on them.
        """
        with _store_errors():
            url = _store_url(context, store_url, server_config)
            condition = checked(file)
            _confirm(context, yes, f"Put {file} ({_summary(condition)}) in the place of {redacted_url(url)}?")
            with _progress("Copying") as progress:
                restored = restore(url, file, _copy_name(context, url, "restore"), progress)
        kept = [f"What was there is {restored.kept}."] if restored.kept else []
        context.print_result(
            [f"{redacted_url(url)} is {_summary(restored.condition)}.", *kept, f"Start opengnssd. {RESTART}"], restored
        )


@command(store, "show", "store show", "store show --store sqlite:////var/lib/opengns/catalogue.sqlite3", options=_which)
def show_command(context: AdminContext, store_url: str, server_config: str) -> None:
    """What the store is: its id, schema, revision, digest, and how much is in it. Servers may use it meanwhile."""
    with _store_errors():
        url = _store_url(context, store_url, server_config)
        with open_exclusive(url, alone=False, writes=False) as connection:
            condition = condition_of(connection, redacted_url(url))
    known = f"{condition.schema}, this program's" if condition.schema == head_of() else condition.schema
    lines = [
        ("store", redacted_url(url)),
        ("id", condition.store),
        (
            "schema",
            known + (f"; programs from {condition.readable_from} on can use it" * bool(condition.readable_from)),
        ),
        ("revision", str(condition.revision)),
        ("log from", str(condition.floor)),
        ("digest", condition.digest or "not counted: another schema"),
        *((f"rows of {table}", str(count)) for table, count in condition.rows.items()),
    ]
    context.print_result(TableView(("", ""), tuple(lines)), condition)


@command(store, "check", "store check", "store check --store sqlite:////var/backups/gns.sqlite3 --json", options=_which)
def check_command(context: AdminContext, store_url: str, server_config: str) -> None:
    """Check that file, rows, logs and digest fit each other. Servers may use it meanwhile; a backup can be checked too.

    The status is 0 when all is well, else 1 with every problem.
    """
    with _store_errors():
        url = _store_url(context, store_url, server_config)
        with open_exclusive(url, alone=False, writes=False) as connection:
            condition = condition_of(connection, redacted_url(url))
            problems = problems_of(connection, condition)
    told = {"type": "check", "condition": condition, "problems": problems}
    said = "" if condition.recorded_digest else " The last commit said no digest; the next one will."
    context.print_result(
        problems or [f"{redacted_url(url)} is well: {_summary(condition)}, digest {condition.digest}.{said}"], told
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
@click.option("--new-id", is_flag=True, help="A store of its own, as for tests; servers may go on using FROM.")
def copy_command(context: AdminContext, source: str, target: str, new_id: bool) -> None:
    """Copy a store into an empty database: from SQLite to PostgreSQL, back, or to another of the same kind.

    Rows, logs, revisions and the id come over in one transaction, and the digest of what has come is compared before
    it is committed. Stop every server first, start them on TO afterwards, and never again on FROM: hosts go on where
    they were and notice nothing.
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
        lines.append("Now give every opengnssd TO as [server] store, start them, and use FROM no more.")
    context.print_result(lines, copied)


@command(store, "downgrade", "store downgrade 0002", options=(*_which, _yes))
@click.argument("version")
def downgrade_command(context: AdminContext, version: str, store_url: str, server_config: str, yes: bool) -> None:
    """Take the schema back to VERSION, so that an older program can use the store again. No server may use it.

    What only the newer schema has a place for is lost; a SQLite file is copied first. See docs/howto/upgrade.md.
    """
    with _store_errors():
        url = _store_url(context, store_url, server_config)
        _confirm(context, yes, f"Take {redacted_url(url)} down to schema {version}?")
        done = downgrade(url, version, _copy_name(context, url, "downgrade"))
    copies = [f"What it was is {done.kept}."] if done.kept else []
    context.print_result([f"{redacted_url(url)} has schema {done.condition.schema} now.", *copies], done)


@command(store, "new-id", "store new-id", options=(*_which, _yes))
def new_id_command(context: AdminContext, store_url: str, server_config: str, yes: bool) -> None:
    """Give the store a new id: after PostgreSQL was restored to an earlier state by its own tools.

    Else hosts would take the store for the one that they know, with revisions that they hold already. No server may
    use it. 'restore' does it by itself.
    """
    with _store_errors():
        url = _store_url(context, store_url, server_config)
        _confirm(context, yes, f"Give {redacted_url(url)} a new id?")
        with open_exclusive(url, alone=True, writes=True) as connection:
            condition_of(connection, redacted_url(url))
            id = give_new_id(connection)
    context.print_result(
        [f"{redacted_url(url)} has the id {id} now. Start opengnssd. {RESTART}"], {"type": "new-id", "store": id}
    )


def _summary(condition: StoreReport) -> str:
    return f"store {condition.store[:12]} at revision {condition.revision}"


def _store_url(context: AdminContext, store_url: str, server_config: str) -> URL:
    """The store that the options name, or the server's configuration on this machine. Raises Failed, StoreUnusable."""
    if store_url and server_config:
        raise click.UsageError("--store and --server-config exclude each other")
    if store_url:
        return parse_url(store_url)
    path = Path(server_config or context.environment.get(CONFIG_VARIABLE, "") or CONFIG_DEFAULT)
    try:
        with path.open("rb") as file:
            tables = tomllib.loads(file.read(CONFIG_MAX).decode("utf-8"))
        text = tables["server"]["store"]
    except OSError as error:
        named = "name the store with --store URL, or opengnssd's file with --server-config"
        raise Failed(ExitCode.FAILED, f"{path} cannot be read: {error.strerror}; {named}") from None
    except (ValueError, KeyError, TypeError):
        raise Failed(ExitCode.FAILED, f"{path} is no configuration of opengnssd with [server] store") from None
    return resolve_url(str(text), path.absolute().parent)


def _copy_name(context: AdminContext, url: URL, step: str) -> str:
    """The name of the copy that is kept of a file before a step."""
    file = file_of(url)
    stamp = datetime.fromtimestamp(context.now(), UTC)
    return f"{file.name if file else ''}.before-{step}-{stamp:%Y%m%dT%H%M%SZ}"


def _confirm(context: AdminContext, yes: bool, question: str) -> None:
    """Go on only when the person agrees; a script has to say --yes."""
    if yes:
        return
    if not context.is_interactive():
        raise Failed(ExitCode.FAILED, f"{question} Nobody can be asked here: say --yes")
    if not click.confirm(question, err=True):
        raise Failed(ExitCode.FAILED, "nothing was changed")


@contextmanager
def _progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the standard error stream of a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with click.progressbar(length=1000, label=label, file=sys.stderr) as bar:

        def told(done: int, total: int) -> None:
            bar.update(1000 * done // max(total, 1) - bar.pos)

        yield told


@contextmanager
def _store_errors() -> Iterator[None]:
    """What is wrong with a store, as the end of the command."""
    try:
        yield
    except StoreUnavailable as problem:
        kind, status = "unavailable", ExitCode.UNAVAILABLE
        if isinstance(problem, StoreInUse):
            kind, status = "in-use", ExitCode.CONFLICT
        elif isinstance(problem, StoreUnusable):
            kind, status = "unusable", ExitCode.FAILED
        told: dict[str, Any] = {"type": "problem", "kind": kind, "message": str(problem)}
        raise Failed(status, str(problem), told) from None
