"""Chains with an intermediate authority, as the PKI of a company makes them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = timedelta(days=100)
"""Life of a certificate here, unless a test says otherwise."""


@dataclass(frozen=True)
class Made:
    """A certificate with its key."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key as PEM."""
        form = serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def make(
    name: str,
    unit: str,
    issuer: Made | None = None,
    *,
    ends: timedelta = LIFE,
    key: ec.EllipticCurvePrivateKey | None = None,
    names: tuple[str, ...] = (),
) -> Made:
    """Make a certificate that ends in this time; `unit` `ca`: that of an authority. Without an issuer it is a root."""
    key, now = key or ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit)]
    )
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = x509.CertificateBuilder(
        issuer.certificate.subject if issuer else subject,
        subject,
        key.public_key(),
        x509.random_serial_number(),
        now - timedelta(days=200),
        now + ends,
    ).add_extension(x509.BasicConstraints(unit == "ca", None), critical=True)
    if unit != "ca":
        alternative = x509.SubjectAlternativeName([x509.DNSName(one) for one in names or (name,)])
        builder = builder.add_extension(usages, critical=False).add_extension(alternative, critical=False)
    return Made(key, builder.sign(issuer.key if issuer else key, hashes.SHA256()))
