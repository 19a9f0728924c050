"""Secrets that stand in files, and whom to believe when a connection to the outside is made.

Files are read when they are needed, so a secret is replaced without a restart, and is never in a worker's orders.
"""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

SECRET_OCTETS_MIN = 16
"""Of what signs a message: 128 bits; a shorter one can be guessed."""
SECRET_OCTETS_MAX = 4096
"""A file that is larger is another one, named by mistake."""


class SecretProblem(Exception):
    """Why there is no secret; the text never holds any of it."""


def read_secret(path: str, octets_min: int = 1) -> bytes:
    """What is in the file, without white space around it. Raises SecretProblem."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(SECRET_OCTETS_MAX + 1)
    except OSError as error:
        raise SecretProblem(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > SECRET_OCTETS_MAX:
        raise SecretProblem(f"{path} has more than {SECRET_OCTETS_MAX} octets; is it the right file?")
    secret = data.strip()
    if len(secret) < octets_min:
        raise SecretProblem(
            f"{path} has {len(secret)} octets; at least {octets_min} are needed: openssl rand -hex 32 > {path}"
        )
    return secret


def check_authority(path: str) -> str:
    """What is wrong with a file of certificates; empty: nothing."""
    try:
        x509.load_pem_x509_certificates(Path(path).read_bytes())
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    except ValueError:
        return f"{path} holds no certificate in PEM form"
    return ""
