"""Secrets that stand in files, and whom to believe when a connection to the outside is made.

Files are read when they are needed, so a secret is replaced without a restart, and is never in a worker's orders.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography import x509
from OpenSSL import crypto
from twisted.internet.ssl import Certificate, optionsForClientTLS, platformTrust, trustRootFromCertificates

from compass.server.alerts.notifier import DeliveryFailed

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


def secret_now(path: str) -> bytes:
    """The same for an attempt that has begun. Raises Undelivered: the file may be back at the next attempt."""
    try:
        return read_secret(path)
    except SecretProblem as problem:
        raise DeliveryFailed(str(problem)) from None


def check_authority(path: str) -> str:
    """What is wrong with a file of certificates; empty: nothing."""
    try:
        x509.load_pem_x509_certificates(Path(path).read_bytes())
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    except ValueError:
        return f"{path} holds no certificate in PEM form"
    return ""


def trust_of(authority: str) -> Any:
    """Whose certificates count: those in the file; without one those that this machine trusts."""
    if not authority:
        return platformTrust()
    found = x509.load_pem_x509_certificates(Path(authority).read_bytes())
    return trustRootFromCertificates([Certificate(crypto.X509.from_cryptography(one)) for one in found])


def client_tls(host: str, authority: str) -> Any:
    """TLS towards `host`, a name or an address, which its certificate must show."""
    return optionsForClientTLS(host, trustRoot=trust_of(authority))
