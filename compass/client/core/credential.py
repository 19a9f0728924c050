"""Where a service's credential comes from: an argument, the environment, or best a file that only it can read."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

CREDENTIAL_OCTETS_MAX = 4096
"""Of a credential file: a token is 43 characters; a file that is larger is another one, given by mistake."""
OTHERS = stat.S_IRWXG | stat.S_IRWXO


class CredentialProblem(Exception):
    """There is no credential to use; the text says what to do."""


def read_credential(path: Path, warn: Callable[[str], None]) -> str:
    """The token in a file, without the white space around it. Warns when others can read it too."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(CREDENTIAL_OCTETS_MAX + 1)
    except OSError as error:
        raise CredentialProblem(f"credential file {path}: {error.strerror}") from None
    if len(data) > CREDENTIAL_OCTETS_MAX:
        raise CredentialProblem(f"credential file {path}: more than {CREDENTIAL_OCTETS_MAX} octets is no credential")
    try:
        token = data.decode("ascii").strip()
    except UnicodeDecodeError:
        token = "\n"
    if not token:
        raise CredentialProblem(f"credential file {path} is empty; opengnsadmin credential add prints a new one")
    if not token.isprintable() or " " in token:
        raise CredentialProblem(f"credential file {path} must hold one token and nothing else")
    if stat.S_ISREG(mode) and mode & OTHERS:
        warn(f"credential file {path} is open to other users: chmod 600 {path}")
    return token


def credential_from(token: str, file: str | os.PathLike[str], warn: Callable[[str], None]) -> str:
    """The token that was given, or that is in the file that was given, or where the environment says: the file that
    OPENGNS_CREDENTIAL_FILE names, else OPENGNS_CREDENTIAL itself. Raises CredentialProblem."""
    if token and file:
        raise CredentialProblem("give a credential or a credential file, not both")
    if token:
        return token.strip()
    file = file or os.environ.get("OPENGNS_CREDENTIAL_FILE", "")
    if file:
        return read_credential(Path(file), warn)
    token = os.environ.get("OPENGNS_CREDENTIAL", "").strip()
    if not token:
        raise CredentialProblem(
            "a credential is needed: credential_file=FILE, or OPENGNS_CREDENTIAL_FILE or OPENGNS_CREDENTIAL in the "
            "environment; an administrator makes one with: opengnsadmin credential add SERVICE"
        )
    return token
