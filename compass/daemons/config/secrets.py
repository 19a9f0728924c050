"""Secrets in files, and files of certificates, for channels to administrators.

A file is read when it is needed, so that a secret can be replaced without a restart and is never part of the
configuration that a worker gets.
"""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

SECRET_OCTETS_MIN = 16
"""Shortest secret that signs messages: 128 bits; a shorter one can be guessed."""
SECRET_OCTETS_MAX = 4096
"""Longest file of a secret: a larger file was named by mistake."""


class SecretProblem(Exception):
    """Reason why a secret cannot be read; the text never contains any part of the secret."""


def read_secret(path: str, octets_min: int = 1) -> bytes:
    """Return the content of the file, without white space around it. Raises SecretProblem."""
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
    """Return the problem of a file of certificates; empty if there is none."""
    try:
        x509.load_pem_x509_certificates(Path(path).read_bytes())
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    except ValueError:
        return f"{path} holds no certificate in PEM form"
    return ""
