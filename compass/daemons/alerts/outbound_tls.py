"""TLS of alert channels: trusted authorities, contexts, and secrets read for each attempt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography import x509
from twisted.internet.ssl import optionsForClientTLS, platformTrust

from compass.daemons.config.secrets import SecretProblem, read_secret
from compass.pki.tls_contexts import TrustRoot
from compass.server.alerts.notifier import DeliveryFailed


def secret_now(path: str) -> bytes:
    """Return a secret for an attempt that has begun. Raises DeliveryFailed: the next attempt may find the file."""
    try:
        return read_secret(path)
    except SecretProblem as problem:
        raise DeliveryFailed(str(problem)) from None


def trust_of(authority: str) -> Any:
    """Return the trusted authorities: those in the file, or if `authority` is empty, those that this machine trusts."""
    if not authority:
        return platformTrust()
    found = x509.load_pem_x509_certificates(Path(authority).read_bytes())
    return TrustRoot(found)


def client_tls(host: str, authority: str) -> Any:
    """Return the options of TLS to `host`, a name or an address that the peer's certificate must contain."""
    return optionsForClientTLS(host, trustRoot=trust_of(authority))
