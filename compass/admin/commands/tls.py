"""Commands `opengnsadmin tls`: create and show the certificates of an installation.

The commands use no server. They work on the files of one directory, which holds the authority (`authority.key`,
`authority.crt`) and a pair for each server, host and administrator (`server-NAME.key`, `server-NAME.crt`, and so on).
The rules are in `compass.pki.authority`.

Exit status: 0 done, 1 refused with a reason, 2 the command line is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from compass.pki.authority import (
    AUTHORITY_DAYS,
    CREDENTIAL_DAYS,
    AuthorityError,
    Credentials,
    Role,
    WrittenFiles,
    create_authority,
    describe,
    issue,
    write_credentials,
)

DEFAULT_DIRECTORY = Path("opengns-tls")
AUTHORITY_STEM = "authority"

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _option_directory(command: _Command) -> _Command:
    return click.option(
        "--directory",
        type=click.Path(path_type=Path),
        default=DEFAULT_DIRECTORY,
        show_default=True,
        help="Directory of the authority and of new files.",
    )(command)


def _option_json(command: _Command) -> _Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)


def _option_also(command: _Command) -> _Command:
    return click.option(
        "--also",
        multiple=True,
        metavar="NAME_OR_ADDRESS",
        help="Further DNS name or IP address of the machine; repeatable.",
    )(command)


def _option_days(default: int) -> Callable[[_Command], _Command]:
    return click.option(
        "--days",
        type=click.IntRange(min=1),
        default=default,
        show_default=True,
        help="Days until the certificate expires.",
    )


@click.group("tls")
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


@tls.command("init")
@_option_directory
@click.option("--name", default="opengns-authority", show_default=True, help="Name of the authority.")
@_option_days(AUTHORITY_DAYS)
@_option_json
def init(directory: Path, name: str, days: int, as_json: bool) -> None:
    """Create the authority of this installation.

    Do this once. An existing authority is never overwritten, because all certificates that it has issued would
    become invalid.
    """
    try:
        authority = create_authority(name, datetime.now(UTC), days)
        files = write_credentials(directory, AUTHORITY_STEM, authority)
    except AuthorityError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps({"written": [_as_json(files, authority)]}, indent=2))
        return
    click.echo(f"Wrote {files.key} (secret: keep it here, and a copy offline)")
    click.echo(f"Wrote {files.certificate} (copy it to every server, host and administrator)")
    click.echo("Next: opengnsadmin tls server NAME for each machine that runs opengnssd")


@tls.command("server")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@_option_directory
@_option_also
@_option_days(CREDENTIAL_DAYS)
@_option_json
def server(names: tuple[str, ...], directory: Path, also: tuple[str, ...], days: int, as_json: bool) -> None:
    """Create a certificate for each machine that runs opengnssd.

    NAME is the DNS name or the IP address that hosts and administrators connect to; they refuse a server whose
    certificate is not for that name. Give further names of the same machine with --also.
    """
    if len(names) > 1 and also:
        raise click.UsageError("--also applies to one machine: use it with one NAME")
    _issue_all("server", names, directory, also, days, as_json)


@tls.command("host")
@click.argument("name")
@_option_directory
@_option_also
@_option_days(CREDENTIAL_DAYS)
@_option_json
def host(name: str, directory: Path, also: tuple[str, ...], days: int, as_json: bool) -> None:
    """Create a certificate for a machine that runs opengnscd.

    NAME is the DNS name or the IP address of the host. Servers connect to it there if it keeps no session open, and
    refuse it if its certificate is not for that name.
    """
    _issue_all("host", (name,), directory, also, days, as_json)


@tls.command("admin")
@click.argument("name")
@_option_directory
@_option_also
@_option_days(CREDENTIAL_DAYS)
@_option_json
def admin(name: str, directory: Path, also: tuple[str, ...], days: int, as_json: bool) -> None:
    """Create a certificate for an administrator.

    NAME is the name of a person; the logs record it with every change. Do not share a certificate between persons.
    It is valid for clients only and cannot be used by a server.
    """
    _issue_all("admin", (name,), directory, also, days, as_json)


@tls.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@_option_json
def show(file: Path, as_json: bool) -> None:
    """Show a certificate: its holder, role, names and validity.

    FILE is a .crt file of this or any other authority.
    """
    try:
        description = describe(_read(file))
    except AuthorityError as error:
        raise click.ClickException(f"{file}: {error}") from error
    if as_json:
        click.echo(json.dumps(description, indent=2))
        return
    for label, value in description.items():
        text = ", ".join(value) if isinstance(value, list) else str(value)
        click.echo(f"{label.replace('_', ' ') + ':':<20} {text or '-'}")


def _issue_all(
    role: Role, names: tuple[str, ...], directory: Path, also: tuple[str, ...], days: int, as_json: bool
) -> None:
    """Issue all certificates first and write them afterwards, so that an invalid name leaves no files."""
    now = datetime.now(UTC)
    try:
        authority = _read_authority(directory)
        issued = [(name, issue(authority, role, name, also, now, days)) for name in names]
        written = [
            (name, credentials, write_credentials(directory, f"{role}-{name}", credentials))
            for name, credentials in issued
        ]
    except AuthorityError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps({"written": [_as_json(files, made) for _, made, files in written]}, indent=2))
        return
    for name, _, files in written:
        click.echo(f"Wrote {files.key} (secret)")
        click.echo(f"Wrote {files.certificate}")
        place = {
            "server": f"the machine {name}, for opengnssd",
            "host": f"the machine {name}, for opengnscd",
            "admin": f"where {name} runs opengnsadmin",
        }[role]
        click.echo(f"Copy both, and {directory / AUTHORITY_STEM}.crt, to {place}")


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
    return {
        "key": str(files.key),
        "certificate": str(files.certificate),
        **describe(credentials.certificate_pem),
    }
