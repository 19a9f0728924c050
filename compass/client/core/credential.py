"""Credential of a service: from an argument, the environment, or (preferred) a file that only the service can read."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from compass.model.text import is_printable_line

CREDENTIAL_OCTETS_MAX = 4096
"""Greatest size of a credential file in octets: a token has 43 characters, so a larger file is the wrong one."""
OTHERS = stat.S_IRWXG | stat.S_IRWXO


class CredentialProblem(Exception):
    """No usable credential; the text says what to do."""


class NoCredential(CredentialProblem):
    """No credential at all, which development mode does not need."""


def read_credential(path: Path, warn: Callable[[str], None]) -> str:
    """Return the token in a file, without surrounding white space. Warns if other users can read the file."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(CREDENTIAL_OCTETS_MAX + 1)
    except OSError as error:
        raise CredentialProblem(f"credential file {path}: {error.strerror}") from None
    if len(data) > CREDENTIAL_OCTETS_MAX:
        raise CredentialProblem(
            f"credential file {path}: too large for a credential (more than {CREDENTIAL_OCTETS_MAX} octets)"
        )
    token = data.decode("ascii", "replace").strip()
    if not token:
        raise CredentialProblem(
            f"credential file {path} is empty; create one with: opengnsadmin credential add SERVICE"
        )
    check_token(token, f"credential file {path}")
    if stat.S_ISREG(mode) and mode & OTHERS:
        warn(f"credential file {path} is readable by other users: chmod 600 {path}")
    return token


def credential_from(token: str, file: str | os.PathLike[str], warn: Callable[[str], None]) -> str:
    """Return the given token, or that of the given file, or that of the environment: the file in
    OPENGNS_CREDENTIAL_FILE, else OPENGNS_CREDENTIAL itself. Raises CredentialProblem."""
    if token and file:
        raise CredentialProblem("use a credential or a credential file, not both")
    if token:
        return check_token(token, "the credential")
    file = file or os.environ.get("OPENGNS_CREDENTIAL_FILE", "")
    if file:
        return read_credential(Path(file), warn)
    token = os.environ.get("OPENGNS_CREDENTIAL", "")
    if not token.strip():
        raise NoCredential(
            "a credential is required: credential_file=FILE, or OPENGNS_CREDENTIAL_FILE or OPENGNS_CREDENTIAL in the "
            "environment; an administrator creates one with: opengnsadmin credential add SERVICE"
        )
    return check_token(token, "OPENGNS_CREDENTIAL")


def check_token(text: str, source: str) -> str:
    """Return the token in a text, without surrounding white space. Raises CredentialProblem if it is none."""
    token = text.strip()
    if not token.isascii() or not is_printable_line(token) or " " in token:
        raise CredentialProblem(f"{source} must contain one token and nothing else")
    return token
