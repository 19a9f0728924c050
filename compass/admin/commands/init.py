"""Commands `init`: configuration and certificates of a server, a host or an administrator, written together.

The commands use no server. They write everything or nothing, and never replace a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from compass.admin.shell.context import AdminContext, Failed
from compass.admin.shell.decorators import command
from compass.model.exit_codes import ExitCode
from compass.model.names import format_endpoint, parse_server
from compass.pki.authority import AuthorityError, Credentials, Role, create_authority, issue
from compass.pki.signing import AUTHORITY_STEM, read_authority
from compass.system.command_line import CheckedGroup
from compass.system.new_files import NewFile, existing, unwritable, write_new

HTTPS_PORT = 4864
SYSTEM_DIRECTORY = Path("/etc/opengns")


@click.group("init", cls=CheckedGroup)
def init() -> None:
    """Write configuration and certificates of a server, a host or an administrator together.

    \b
    The way to a first installation:
        opengnsadmin init server gns1.example.net   (on the server; makes the authority, too)
        opengnsadmin init admin alice --server gns1.example.net
        opengnsadmin host invite web1.example.net   (for each host, which then joins by itself)

    Each command writes all of its files or none, replaces nothing, and prints the next command. On a terminal it asks
    for what no option says; elsewhere the defaults count.
    """


def _directory(default: str) -> Callable[[Any], Any]:
    return click.option(
        "--directory", type=click.Path(path_type=Path), help=f"Directory of the new files (default {default})."
    )


_AUTHORITY = click.option(
    "--authority",
    type=click.Path(path_type=Path),
    help=f"Directory of the private authority (default {SYSTEM_DIRECTORY / AUTHORITY_STEM}).",
)
_ALSO = click.option("--also", multiple=True, metavar="NAME_OR_ADDRESS", help="Further name or address; repeatable.")
_SERVERS = click.option("--server", "servers", multiple=True, metavar="NAME[:PORT]", help="Server; repeatable.")


@command(
    init,
    "server",
    "init server gns1.example.net --also 192.0.2.1 --sign",
    "init server gns2.example.net --authority ./authority --directory gns2 --store postgresql://gns@db/gns",
    options=(_directory(str(SYSTEM_DIRECTORY)), _AUTHORITY, _ALSO),
)
@click.argument("name")
@click.option("--store", help="URL of the store (default: a SQLite file in the directory).")
@click.option(
    "--sign/--no-sign", default=None, help="Whether the server may sign: hosts join and renew there (default: not)."
)
def init_server(
    context: AdminContext,
    name: str,
    directory: Path | None,
    authority: Path | None,
    also: tuple[str, ...],
    store: str | None,
    sign: bool | None,
) -> None:
    """Write configuration and certificate of a server.

    NAME is its DNS name or IP address, as hosts and administrators dial it. Without --authority a new private authority
    is made in the directory. With --sign its key is used by the server: a person who controls the server can then make
    certificates of every role (docs/explanation/security.md).
    """
    ask = _Questions(context)
    directory = ask.path("Directory", directory, SYSTEM_DIRECTORY)
    also = ask.names("Further names or addresses of this machine, with spaces", also)
    store = ask.text("Store", store, "sqlite:///catalogue.sqlite3")
    sign = ask.whether("May the server sign certificates, so that hosts can join with a token", sign)
    files: dict[Path, NewFile] = {}
    keys = authority if authority is not None else directory / AUTHORITY_STEM
    made = _read_or_make(keys, files) if authority is None else _read(keys)
    server: dict[str, Any] = {"store": store} | ({"authority": str(keys.absolute())} if sign else {})
    https = {"listen": [f"[::]:{HTTPS_PORT}"]}
    _add(files, directory, made, "server", name, also)
    sections = {"server": server, "server.https": https, "tls": _tls("server")}
    files[directory / "opengnssd.toml"] = _config("opengnssd", sections)
    _write(context, files, f"opengnssd --config {directory / 'opengnssd.toml'}")


@command(
    init,
    "host",
    "init host web1.example.net --server gns1.example.net --directory web1",
    options=(_directory("opengns-NAME"), _AUTHORITY, _ALSO, _SERVERS),
)
@click.argument("name")
def init_host(
    context: AdminContext,
    name: str,
    directory: Path | None,
    authority: Path | None,
    also: tuple[str, ...],
    servers: tuple[str, ...],
) -> None:
    """Write configuration and certificate of a host, where the authority is.

    Bring the directory to the host. Where a server may sign, 'opengnsadmin host invite' is better: the key is then made
    on the host and never copied.
    """
    ask = _Questions(context)
    directory = ask.path("Directory", directory, Path(f"opengns-{name}"))
    servers = _servers(ask, servers)
    files: dict[Path, NewFile] = {}
    made = _read(ask.path("Directory of the authority", authority, SYSTEM_DIRECTORY / AUTHORITY_STEM))
    _add(files, directory, made, "host", name, also)
    sections = {"host": {"servers": servers, "state_directory": "state"}, "tls": _tls("host")}
    files[directory / "opengnscd.toml"] = _config("opengnscd", sections)
    _write(context, files, f"bring {directory} to {name}; there: opengnscd --config {directory.name}/opengnscd.toml")


@command(
    init,
    "admin",
    "init admin alice --server gns1.example.net",
    options=(_directory("~/.config/opengns"), _AUTHORITY, _SERVERS),
)
@click.argument("name")
def init_admin(
    context: AdminContext, name: str, directory: Path | None, authority: Path | None, servers: tuple[str, ...]
) -> None:
    """Write settings and certificate of an administrator.

    NAME is the name of a person; the logs record it with every change.
    """
    ask = _Questions(context)
    default = context.machine.home / ".config/opengns"
    directory = ask.path("Directory", directory, default)
    servers = _servers(ask, servers)
    files: dict[Path, NewFile] = {}
    made = _read(ask.path("Directory of the authority", authority, SYSTEM_DIRECTORY / AUTHORITY_STEM))
    _add(files, directory, made, "admin", name, ())
    files[directory / "admin.toml"] = _config("opengnsadmin", {"": {"server": servers} | _tls("admin")})
    option = "" if directory == default else f"--config {directory / 'admin.toml'} "
    _write(context, files, f"opengnsadmin {option}doctor")


class _Questions:
    """Questions for what no option says; without a terminal the defaults count."""

    def __init__(self, context: AdminContext) -> None:
        self._asks = context.machine.is_interactive() and not context.in_json

    def text(self, question: str, given: str | None, default: str) -> str:
        """Return a text."""
        if given is not None or not self._asks:
            return default if given is None else given
        with _interruptible():
            answer: str = click.prompt(question, default=default, err=True)
        return answer

    def path(self, question: str, given: Path | None, default: Path) -> Path:
        """Return a path."""
        return Path(self.text(question, None if given is None else str(given), str(default))).expanduser()

    def names(self, question: str, given: tuple[str, ...]) -> tuple[str, ...]:
        """Return names, which may be none."""
        return given or tuple(self.text(question, None, "").split())

    def whether(self, question: str, given: bool | None) -> bool:
        """Return yes or no; no is the default."""
        if given is not None or not self._asks:
            return bool(given)
        with _interruptible():
            return click.confirm(question, default=False, err=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C at a question end the program as everywhere else."""
    try:
        yield
    except click.Abort:
        raise KeyboardInterrupt from None


def _servers(ask: _Questions, given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the servers, each with its port. Raises InvalidName and UsageError."""
    names = ask.names("Servers, NAME or NAME:PORT, with spaces", given)
    if not names:
        raise click.UsageError("name at least one server with --server NAME")
    return tuple(format_endpoint(*parse_server(name)) for name in names)


def _read(directory: Path) -> Credentials:
    try:
        return read_authority(directory)
    except AuthorityError as problem:
        advice = "name its directory with --authority, or make one with 'opengnsadmin init server NAME'"
        raise Failed(ExitCode.FAILED, f"{problem}: {advice}") from None


def _read_or_make(directory: Path, files: dict[Path, NewFile]) -> Credentials:
    """Return the authority in a directory; a new one, which is added to the files, if there is none."""
    paths = {suffix: directory / f"{AUTHORITY_STEM}.{suffix}" for suffix in ("key", "crt")}
    if any(path.exists() for path in paths.values()):
        return _read(directory)
    made = create_authority("opengns-authority", datetime.now(UTC))
    files[paths["key"]] = NewFile(made.key_pem, 0o600)
    files[paths["crt"]] = NewFile(made.certificate_pem)
    return made


def _add(
    files: dict[Path, NewFile], directory: Path, authority: Credentials, role: Role, name: str, also: tuple[str, ...]
) -> None:
    """Add key, certificate and authority of a new holder."""
    try:
        made = issue(authority, role, name, also, datetime.now(UTC))
    except AuthorityError as problem:
        raise Failed(ExitCode.BAD_INPUT, str(problem)) from None
    tls = directory / "tls"
    files[tls / f"{role}.key"] = NewFile(made.key_pem, 0o600)
    files[tls / f"{role}.crt"] = NewFile(made.certificate_pem)
    files[tls / f"{AUTHORITY_STEM}.crt"] = NewFile(authority.certificate_pem)


def _tls(role: Role) -> dict[str, Any]:
    return {"certificate": f"tls/{role}.crt", "key": f"tls/{role}.key", "authority": f"tls/{AUTHORITY_STEM}.crt"}


def _config(program: str, sections: dict[str, dict[str, Any]]) -> NewFile:
    """Return a configuration file; TOML spells texts, numbers and lists as JSON does."""
    explained = "" if program == "opengnsadmin" else f"; '{program} --print-config' explains every key"
    lines = [f"# Written by 'opengnsadmin init'{explained}."]
    for section, values in sections.items():
        lines += ["", f"[{section}]"] if section else [""]
        lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return NewFile(("\n".join(lines) + "\n").encode())


def _write(context: AdminContext, files: dict[Path, NewFile], following: str) -> None:
    """Write all files, or none, and print the next command."""
    if (found := existing(files)) is not None:
        text = f"{found} exists, and nothing is overwritten: move it away, or use another directory with --directory"
        raise Failed(ExitCode.CONFLICT, text)
    if (directory := unwritable(files)) is not None:
        text = f"{directory} cannot be written by this user: use sudo, or another directory with --directory"
        raise Failed(ExitCode.FAILED, text)
    try:
        write_new(files)
    except OSError as error:
        text = f"cannot write {error.filename}: {error.strerror}; nothing was left behind"
        raise Failed(ExitCode.FAILED, text) from None
    lines = [f"Wrote {path}{' (secret)' if path.suffix == '.key' else ''}" for path in files]
    result = {"type": "written", "written": [str(path) for path in files], "next": following}
    context.print_result([*lines, f"Next: {following}"], result)
