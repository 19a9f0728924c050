"""TLS of alert channels: trusted authorities, contexts, and secrets read for each attempt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography import x509
from OpenSSL import crypto
from twisted.internet.ssl import Certificate, optionsForClientTLS, platformTrust, trustRootFromCertificates

from compass.daemons.config.secrets import SecretProblem, read_secret
from compass.server.alerts.notifier import DeliveryFailed


def secret_now(path: str) -> bytes:
    """The same for an attempt that has begun. Raises Undelivered: the file may be back at the next attempt."""
    try:
        return read_secret(path)
    except SecretProblem as problem:
        raise DeliveryFailed(str(problem)) from None


def trust_of(authority: str) -> Any:
    """Whose certificates count: those in the file; without one those that this machine trusts."""
    if not authority:
        return platformTrust()
    found = x509.load_pem_x509_certificates(Path(authority).read_bytes())
    return trustRootFromCertificates([Certificate(crypto.X509.from_cryptography(one)) for one in found])


def client_tls(host: str, authority: str) -> Any:
    """TLS towards `host`, a name or an address, which its certificate must show."""
    return optionsForClientTLS(host, trustRoot=trust_of(authority))
