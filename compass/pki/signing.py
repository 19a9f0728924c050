"""Certificate requests: a host makes its key pair itself, and the authority signs the public part alone.

The private key never leaves the host. A request (PKCS #10) proves that its sender has the key; names and role come from
the authority's side, from a join token or from the certificate that is renewed. A request that asks for other names is
refused, because its sender expects something that it would not get.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from compass.pki.authority import (
    CLOCK_SKEW,
    AuthorityError,
    Credentials,
    Subject,
    attributes_of,
    certify,
    check_authority,
    names_of,
)

AUTHORITY_STEM = "authority"
"""Name of the authority's two files in its directory, without the suffix."""


class RequestRefused(Exception):
    """Refusal of a certificate request; the message says what is wrong with it."""


def new_request(name: str) -> tuple[bytes, bytes]:
    """Make a key pair. Returns the private key (PEM) and the request for a certificate of `name` (DER)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return secret, request.public_bytes(serialization.Encoding.DER)


def read_authority(directory: Path) -> Credentials:
    """Read the authority in a directory of `opengnsadmin tls`. Raises AuthorityError."""
    files = [directory / f"{AUTHORITY_STEM}{suffix}" for suffix in (".key", ".crt")]
    try:
        key, certificate = (file.read_bytes() for file in files)
    except OSError as error:
        raise AuthorityError(f"cannot read the authority in {directory}: {error.strerror}") from error
    authority = Credentials(key, certificate)
    check_authority(authority)
    return authority


def fingerprint(certificate_pem: bytes) -> str:
    """Return the SHA-256 of the first certificate, 64 hexadecimal digits. Raises AuthorityError."""
    try:
        return fingerprint_of(x509.load_pem_x509_certificate(certificate_pem))
    except ValueError:
        raise AuthorityError("not a PEM certificate") from None


def fingerprint_of(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate, 64 hexadecimal digits."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def sign_request(
    authority: Credentials, subject: Subject, request: bytes, now: datetime, lifetime: timedelta
) -> x509.Certificate:
    """Return the certificate of `subject` for the key of a request. Raises RequestRefused and AuthorityError."""
    return certify(authority, subject, _requested_key(request, subject), now, lifetime)


def subject_of(certificate: x509.Certificate) -> Subject:
    """Return the subject of a certificate of the private authority: its renewal has the same. Raises RequestRefused."""
    units = attributes_of(certificate.subject, NameOID.ORGANIZATIONAL_UNIT_NAME)
    names = attributes_of(certificate.subject, NameOID.COMMON_NAME)
    if len(names) == 1 and units == ["host"]:
        return Subject("host", names[0], names_of(certificate))
    if len(names) == 1 and units == ["server"]:
        return Subject("server", names[0], names_of(certificate))
    subject = certificate.subject.rfc4514_string()
    raise RequestRefused(f"the certificate {subject!r} is not one of a host or a server of the private authority")


def renewal_due(certificate: x509.Certificate) -> datetime:
    """Return the time at which a certificate should be renewed: when a third of its lifetime is left."""
    begin, end = certificate.not_valid_before_utc + CLOCK_SKEW, certificate.not_valid_after_utc
    return end - max(end - begin, timedelta(0)) / 3


def pem(certificate: x509.Certificate) -> str:
    """Return a certificate in PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _requested_key(octets: bytes, subject: Subject) -> ec.EllipticCurvePublicKey:
    try:
        request = x509.load_der_x509_csr(octets)
        key, is_signed = request.public_key(), request.is_signature_valid
        asked = _asked_names(request)
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension):
        raise RequestRefused("this is not a certificate request (PKCS #10, DER)") from None
    if not is_signed:
        raise RequestRefused("the certificate request is not signed with its own key")
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise RequestRefused("the certificate request must be for an EC key (P-256)")
    units = attributes_of(request.subject, NameOID.ORGANIZATIONAL_UNIT_NAME)
    if not set(units) <= {subject.role}:
        raise RequestRefused(f"the certificate request asks for the role {', '.join(units)}, not {subject.role}")
    more = sorted(set(asked) - {subject.name, *subject.alternative_names})
    if more:
        raise RequestRefused(f"the certificate request asks for {', '.join(more)}; only {subject.name} is permitted")
    return key


def _asked_names(request: x509.CertificateSigningRequest) -> Sequence[str]:
    """Return all names that a request asks for. Raises ValueError."""
    names = attributes_of(request.subject, NameOID.COMMON_NAME)
    try:
        found = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return names
    return [*names, *(str(one.value) for one in found)]
