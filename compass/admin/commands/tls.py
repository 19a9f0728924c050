"""Commands `opengnsadmin tls`: create and show the certificates of an installation.

The commands use no server. They work on the files of one directory, which holds the authority (`authority.key`,
`authority.crt`) and a pair for each server, host and administrator (`server-NAME.key`, `server-NAME.crt`, and so on).
The rules are in `compass.pki.authority`.

Exit status: 0 done, 1 refused with a reason, 2 the command line is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from compass.admin.shell.build_request import duration
from compass.admin.shell.context import AdminContext, Failed
from compass.admin.shell.decorators import command
from compass.model.exit_codes import ExitCode
from compass.pki.authority import (
    AUTHORITY_DAYS,
    CREDENTIAL_DAYS,
    DAY_SECONDS,
    AuthorityError,
    Credentials,
    Role,
    WrittenFiles,
    check_days,
    create_authority,
    describe,
    issue,
    write_credentials,
)
from compass.pki.signing import AUTHORITY_STEM
from compass.system.command_line import CheckedGroup

_DIRECTORY = click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=Path("opengns-tls"),
    show_default=True,
    help="Directory of the authority and of new files.",
)
_ALSO = click.option(
    "--also",
    multiple=True,
    metavar="NAME_OR_ADDRESS",
    help="Further DNS name or IP address of the machine; repeatable.",
)


class _Days(click.ParamType):  # type: ignore[type-arg]  # generic only for mypy, not in click 8.1
    """Type of a lifetime: days, or a length of time, with which people practise an expiry."""

    name = "days"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value)
        try:
            days = float(int(text)) if text.isascii() and text.isdigit() else duration(text) / DAY_SECONDS
            check_days(days)
        except ValueError:
            self.fail(f"{text!r} is neither a number of days nor a length of time such as 12h or 30m", param, ctx)
        except AuthorityError as problem:
            self.fail(str(problem), param, ctx)
        return days


def _days(default: int) -> Callable[[Any], Any]:
    about = "Days until the certificate expires, or a length of time (30m, 12h), to practise an expiry."
    return click.option("--days", type=_Days(), metavar="DAYS", default=default, show_default=True, help=about)


_ISSUE = (_DIRECTORY, _ALSO, _days(CREDENTIAL_DAYS))


@click.group("tls", cls=CheckedGroup)
def tls() -> None:
    """Create and show the certificates of servers, hosts and administrators.

    \b
    Once, on a machine that you trust:
        opengnsadmin tls init
    Then one for each machine and each person:
        opengnsadmin tls server gns1.example.net --also 192.0.2.1
        opengnsadmin tls host web1.example.net
        opengnsadmin tls admin alice

    Each command creates a key and a certificate. Copy these two files and authority.crt to where they are used.
    Certificates are issued with authority.key: keep it on this machine and copy it to no server and no host.
    """


@contextmanager
def _failures() -> Iterator[None]:
    """Turn a refusal of the authority into the failure of the command."""
    try:
        yield
    except AuthorityError as error:
        raise Failed(ExitCode.FAILED, str(error)) from error


@command(tls, "init", "tls init", "tls init --directory /root/opengns-tls --name our-authority", options=(_DIRECTORY,))
@click.option("--name", default="opengns-authority", show_default=True, help="Name of the authority.")
@_days(AUTHORITY_DAYS)
def init(context: AdminContext, directory: Path, name: str, days: float) -> None:
    """Create the authority of this installation.

    Do this once. An existing authority is never overwritten, because all certificates that it has issued would
    become invalid.
    """
    with _failures():
        authority = create_authority(name, datetime.now(UTC), days)
        files = write_credentials(directory, AUTHORITY_STEM, authority)
    lines = (
        f"Wrote {files.key} (secret: keep it here, and a copy offline)",
        f"Wrote {files.certificate} (copy it to every server, host and administrator)",
        "Next: opengnsadmin tls server NAME for each machine that runs opengnssd",
    )
    context.print_result(lines, {"written": [_as_json(files, authority)]})


@command(tls, "server", "tls server gns1.example.net --also 192.0.2.1", options=_ISSUE)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def server(context: AdminContext, names: tuple[str, ...], directory: Path, also: tuple[str, ...], days: float) -> None:
    """Create a certificate for each machine that runs opengnssd.

    NAME is the DNS name or the IP address that hosts and administrators connect to; they refuse a server whose
    certificate is not for that name. Give further names of the same machine with --also.
    """
    if len(names) > 1 and also:
        raise click.UsageError("--also applies to one machine: use it with one NAME")
    _issue_all(context, "server", names, directory, also, days)


@command(tls, "host", "tls host web1.example.net", options=_ISSUE)
@click.argument("name")
def host(context: AdminContext, name: str, directory: Path, also: tuple[str, ...], days: float) -> None:
    """Create a certificate for a machine that runs opengnscd.

    NAME is the DNS name or the IP address of the host. Servers connect to it there if it keeps no session open, and
    refuse it if its certificate is not for that name.
    """
    _issue_all(context, "host", (name,), directory, also, days)


@command(tls, "admin", "tls admin alice", options=_ISSUE)
@click.argument("name")
def admin(context: AdminContext, name: str, directory: Path, also: tuple[str, ...], days: float) -> None:
    """Create a certificate for an administrator.

    NAME is the name of a person; the logs record it with every change. Do not share a certificate between persons.
    It is valid for clients only and cannot be used by a server.
    """
    _issue_all(context, "admin", (name,), directory, also, days)


@command(tls, "show", "tls show opengns-tls/server-gns1.example.net.crt")
@click.argument("file", type=click.Path(path_type=Path))
def show(context: AdminContext, file: Path) -> None:
    """Show a certificate: its holder, role, names and validity.

    FILE is a .crt file of this or any other authority.
    """
    try:
        description = describe(_read(file))
    except AuthorityError as error:
        raise Failed(ExitCode.FAILED, f"{file}: {error}") from error
    texts = {key: ", ".join(value) if isinstance(value, list) else str(value) for key, value in description.items()}
    lines = [f"{label.replace('_', ' ') + ':':<20} {text or '-'}" for label, text in texts.items()]
    context.print_result(lines, description)


def _issue_all(
    context: AdminContext, role: Role, names: tuple[str, ...], directory: Path, also: tuple[str, ...], days: float
) -> None:
    """Issue all certificates first and write them afterwards, so that an invalid name leaves no files."""
    now = datetime.now(UTC)
    with _failures():
        authority = _read_authority(directory)
        issued = [(name, issue(authority, role, name, also, now, days)) for name in names]
        written = [(made, write_credentials(directory, f"{role}-{name}", made)) for name, made in issued]
    lines = []
    for name, (_, files) in zip(names, written, strict=True):
        place = {
            "server": f"the machine {name}, for opengnssd",
            "host": f"the machine {name}, for opengnscd",
            "admin": f"where {name} runs opengnsadmin",
        }[role]
        lines += [f"Wrote {files.key} (secret)", f"Wrote {files.certificate}"]
        lines.append(f"Copy both, and {directory / AUTHORITY_STEM}.crt, to {place}")
    context.print_result(lines, {"written": [_as_json(files, made) for made, files in written]})


def _read_authority(directory: Path) -> Credentials:
    key, certificate = directory / f"{AUTHORITY_STEM}.key", directory / f"{AUTHORITY_STEM}.crt"
    try:
        there = key.exists() or certificate.exists()
    except OSError as error:
        raise AuthorityError(f"cannot read {directory}: {error.strerror}") from error
    if not there:
        raise AuthorityError(
            f"no authority in {directory}: run 'opengnsadmin tls init' first, or name its directory with --directory"
        )
    return Credentials(_read(key), _read(certificate))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AuthorityError(f"cannot read {path}: {error.strerror}") from error


def _as_json(files: WrittenFiles, credentials: Credentials) -> dict[str, object]:
    return {"key": str(files.key), "certificate": str(files.certificate), **describe(credentials.certificate_pem)}
