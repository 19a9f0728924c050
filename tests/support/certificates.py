"""Certificates as an authority of another program, or a careless one, would issue them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from compass.pki.authority import Credentials


def changed(
    authority: Credentials,
    whole: Credentials,
    *extensions: x509.ExtensionType,
    without: type[x509.ExtensionType] | None = None,
    seconds: float | None = None,
    begins: float | None = None,
) -> Credentials:
    """Return the credentials with another certificate of the same key and subject: with these extensions in place of
    its own of their types, without those of a type, and with an end, and a begin, in some seconds."""
    old = x509.load_pem_x509_certificate(whole.certificate_pem)
    end = old.not_valid_after_utc if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
    begin = old.not_valid_before_utc if begins is None else datetime.now(UTC) + timedelta(seconds=begins)
    builder = x509.CertificateBuilder(
        old.issuer, old.subject, old.public_key(), old.serial_number, begin, max(begin, end)
    )
    replaced = {type(one): one for one in extensions}
    for extension in old.extensions:
        value = replaced.get(type(extension.value), extension.value)
        if type(value) is not without:
            builder = builder.add_extension(value, extension.critical)
    key = serialization.load_pem_private_key(authority.key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    made = builder.sign(key, hashes.SHA256())
    return Credentials(whole.key_pem, made.public_bytes(serialization.Encoding.PEM))
