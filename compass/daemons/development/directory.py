"""Directory of development mode: made in one step, of one version, of one user, used by one process at a time.

A new directory is filled next to its place and then renamed, so that a process that is killed leaves no half of one.
The settings are written again at each start; certificates that end soon are replaced together with their authority.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

import compass
from compass.pki.authority import create_authority, issue, write_credentials
from compass.system.files import replace_file

MARKER: Final = "opengns-dev.json"
"""File that makes a directory one of development mode, with its format."""
MARKER_OCTETS_MAX: Final = 4096
"""Greatest size of the marker: it has two short values, so a larger file is another one."""
FORMAT: Final = 1
"""Format of the directory; a program refuses every other one."""
TLS: Final = "tls"
SERVER_NAME: Final = "localhost"
"""Name in the server's certificate, which hosts and administrators check."""
HOST_NAME: Final = "localhost"
ADMIN_NAME: Final = "developer"
RENEW_DAYS: Final = 30
"""Days before the end of a certificate at which a start replaces it: longer than a person leaves the mode running."""
OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class DevelopmentProblem(Exception):
    """Reason for which development mode cannot start here; the text says what to do."""

    def __init__(self, text: str, *, is_temporary: bool = False) -> None:
        """`is_temporary`: the same command may work later, such as when another process has ended."""
        super().__init__(text)
        self.is_temporary = is_temporary


class DevelopmentDirectory:
    """Directory of development mode, locked for this process until the process ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = -1

    def hold(self) -> None:
        """Check and lock a directory that exists, without a change to it. Raises DevelopmentProblem."""
        with _sentence(self.path):
            if self._is_made():
                self._lock = _locked(self.path, self.path)
                self._check_marker()

    def open(self) -> None:
        """Make the directory if it is missing or empty; it is locked then. Raises DevelopmentProblem."""
        with _sentence(self.path):
            if self._lock < 0:
                self._create()
            if not _is_current(self.path / TLS):
                self._renew()

    def _is_made(self) -> bool:
        """Return whether the directory exists with files in it. Raises DevelopmentProblem if it cannot be used."""
        path = self.path
        try:
            status = path.stat()
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(status.st_mode):
            raise DevelopmentProblem(f"{path} is not a directory; name another one with --directory")
        if status.st_uid != os.geteuid():
            raise DevelopmentProblem(
                f"{path} belongs to {_user(status.st_uid)}, and {_user(os.geteuid())} runs this program; run it as "
                "the owner, or name another directory with --directory"
            )
        if not any(path.iterdir()):
            return False
        if status.st_mode & OTHERS_WRITE:
            raise DevelopmentProblem(f"{path} can be written by other users: chmod go-w {path}")
        return True

    def _check_marker(self) -> None:
        path, found = self.path, None
        try:
            with (path / MARKER).open("rb") as file:
                found = json.loads(file.read(MARKER_OCTETS_MAX))["format"]
        except (FileNotFoundError, IsADirectoryError, ValueError, KeyError, TypeError):
            raise DevelopmentProblem(
                f"{path} has files, but not those of development mode; name an empty or a new directory with "
                "--directory"
            ) from None
        if found != FORMAT:
            raise DevelopmentProblem(
                f"{path} was made by another version of compass (format {str(found)[:20]}, and this is {FORMAT}); "
                "start that version, or name a new directory with --directory"
            )

    def _create(self) -> None:
        path = self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        # What a killed process has left is removed; one that still runs holds the lock.
        new.mkdir(mode=0o700, exist_ok=True)
        if new.stat().st_uid != os.geteuid():
            raise DevelopmentProblem(f"{new} belongs to {_user(new.stat().st_uid)}; have it removed")
        self._lock = _locked(new, path)
        _empty(new)
        new.chmod(0o700)
        _write_certificates(new / TLS)
        marker = {"format": FORMAT, "version": compass.__version__}
        replace_file(new / MARKER, json.dumps(marker).encode())
        new.rename(path)

    def _renew(self) -> None:
        """Replace the certificates and their authority, which sign nothing outside of this directory."""
        new = self.path / f"{TLS}.new"
        shutil.rmtree(new, ignore_errors=True)
        _write_certificates(new)
        shutil.rmtree(self.path / TLS, ignore_errors=True)
        new.rename(self.path / TLS)


def _write_certificates(directory: Path) -> None:
    now = datetime.now(UTC)
    authority = create_authority("opengns-dev", now)
    write_credentials(directory, "authority", authority)
    loopback = ("127.0.0.1", "::1")
    write_credentials(directory, "server", issue(authority, "server", SERVER_NAME, loopback, now))
    write_credentials(directory, "host", issue(authority, "host", HOST_NAME, loopback, now))
    write_credentials(directory, "admin", issue(authority, "admin", ADMIN_NAME, (), now))


def _is_current(directory: Path) -> bool:
    """Return whether all certificates are there, whole and valid for some time."""
    now = datetime.now(UTC)
    try:
        for name in ("authority", "server", "host", "admin"):
            certificate = x509.load_pem_x509_certificate((directory / f"{name}.crt").read_bytes())
            begun = certificate.not_valid_before_utc <= now
            if not (directory / f"{name}.key").stat().st_size or not begun:
                return False
            if certificate.not_valid_after_utc < now + timedelta(days=RENEW_DAYS):
                return False
    except (OSError, ValueError):
        return False
    return True


def _locked(path: Path, shown: Path) -> int:
    """Return the descriptor that holds the lock of a directory. Raises DevelopmentProblem."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise DevelopmentProblem(
            f"{shown} is used by another 'opengns dev' that runs; end that one, or name another directory with "
            "--directory and other ports with --port",
            is_temporary=True,
        ) from None
    return descriptor


def _empty(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _user(number: int) -> str:
    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"


@contextlib.contextmanager
def _sentence(path: Path) -> Iterator[None]:
    """Turn an error of the file system into a DevelopmentProblem."""
    try:
        yield
    except OSError as error:
        where = os.fsdecode(error.filename2 or error.filename or path)
        raise DevelopmentProblem(
            f"{where}: {error.strerror}; make room or set the permissions, or name another directory with --directory"
        ) from None
