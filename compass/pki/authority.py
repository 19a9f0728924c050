"""Private certificate authority of one installation.

Every connection between `opengnssd`, `opengnscd` and the administrators' tools is TLS with a certificate on both ends,
and one authority of the installation issues all of these certificates. Its key only signs, so it stays on the machine
where `opengnsadmin tls` runs and is copied nowhere.

The subject of a certificate has two parts: the organizational unit (OU) is the role, the common name (CN) the name of
its holder. The subject alternative names are its addresses. The extended key usage separates the roles in TLS: servers
and hosts connect to each other, so both get both usages; an administrator is only a client, so a stolen key of an
administrator cannot be used by a server.

All functions except `write_credentials` depend only on their arguments and on new key material; the time is an
argument.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypedDict, cast, get_args

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Role: TypeAlias = Literal["server", "host", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

AUTHORITY_DAYS: Final = 3650
"""Ten years, because replacing an authority means work on every machine."""

CREDENTIAL_DAYS: Final = 825
"""The longest life of a leaf certificate that every common TLS library accepts."""

DAY_SECONDS: Final = 86_400

LIFETIME_SECONDS_MIN: Final = 60
"""Shortest life of a certificate: people see an expiry with it; a shorter one ends before it is copied."""

CLOCK_SKEW: Final = timedelta(hours=1)
"""Time by which validity begins before `now`, because the clock of the target machine may be slow."""

NAME_LENGTH_MAX: Final = 64
"""Greatest length of a common name in X.509 (`ub-common-name`)."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:-]*")
_DNS_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_DNS_NAME_LENGTH_MAX = 253

_USAGES: Final[dict[Role, list[x509.ObjectIdentifier]]] = {
    "server": [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
    "host": [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
    "admin": [ExtendedKeyUsageOID.CLIENT_AUTH],
}


class AuthorityError(Exception):
    """An operation that `opengnsadmin tls` cannot do; the message says what to do instead."""


@dataclass(frozen=True)
class Credentials:
    """A private key and its certificate, both PEM (the key PKCS #8, no passphrase)."""

    key_pem: bytes
    certificate_pem: bytes

    def __repr__(self) -> str:
        # A generated representation could put the key into a log or a traceback.
        return f"<Credentials, certificate of {len(self.certificate_pem)} bytes>"


@dataclass(frozen=True)
class Subject:
    """Subject of a certificate: role and name of its holder, with further DNS names and IP addresses."""

    role: Role
    name: str
    alternative_names: Sequence[str] = ()


@dataclass(frozen=True)
class WrittenFiles:
    """Paths of the two files of `write_credentials`."""

    key: Path
    certificate: Path


class Description(TypedDict):
    """Description of a certificate, for JSON.

    `role` is the organizational unit in the subject, or "" if there is none; times are ISO 8601, UTC.
    """

    subject: str
    role: str
    name: str
    names: list[str]
    not_before: str
    not_after: str
    fingerprint_sha256: str
    issuer: str


def create_authority(name: str, now: datetime, days: float = AUTHORITY_DAYS) -> Credentials:
    """Create an authority with a name, valid for `days`. Raises AuthorityError for an invalid name or time."""
    _check_name(name)
    check_days(days)
    not_before, not_after = _validity(now, timedelta(days=days))
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(subject, subject, key.public_key(), key.public_key(), not_before, not_after)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _credentials(key, certificate)


def issue(
    authority: Credentials,
    role: Role,
    name: str,
    alternative_names: Sequence[str],
    now: datetime,
    days: float = CREDENTIAL_DAYS,
) -> Credentials:
    """Issue a key and a certificate for `name` in `role`, signed by `authority`.

    `alternative_names`: further DNS names and IP addresses of the holder; `name` comes first if it is one. The
    certificate never outlives its authority. Raises AuthorityError.
    """
    check_days(days)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = certify(
        authority, Subject(role, name, alternative_names), key.public_key(), now, timedelta(days=days)
    )
    return _credentials(key, certificate)


def certify(
    authority: Credentials, subject: Subject, key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.Certificate:
    """Return a certificate of `subject` for a key whose private part the caller need not have. Raises AuthorityError.

    The certificate never outlives its authority.
    """
    role, name = subject.role, subject.name
    if role not in ROLES:
        raise AuthorityError(f"{role!r} is not a role; the roles are {', '.join(ROLES)}")
    _check_name(name)
    authority_key, authority_certificate = _open_authority(authority)
    not_before, not_after = _validity(now, lifetime)
    if authority_certificate.not_valid_after_utc <= now:
        raise AuthorityError(
            f"the authority expired on {authority_certificate.not_valid_after_utc:%Y-%m-%d}; "
            "create a new one in another directory with 'opengnsadmin tls init'"
        )
    distinguished = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    builder = (
        _builder(
            distinguished,
            authority_certificate.subject,
            key,
            authority_key.public_key(),
            max(not_before, authority_certificate.not_valid_before_utc),
            min(not_after, authority_certificate.not_valid_after_utc),
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_USAGES[role]), critical=False)
    )
    names = _general_names(name, subject.alternative_names)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(authority_key, hashes.SHA256())


def check_authority(authority: Credentials) -> x509.Certificate:
    """Return the certificate of an authority whose key belongs to it and may sign. Raises AuthorityError."""
    return _open_authority(authority)[1]


def check_names(name: str, alternative_names: Sequence[str]) -> None:
    """Check that a certificate can have these names. Raises AuthorityError."""
    _check_name(name)
    _general_names(name, alternative_names)


def write_credentials(directory: Path, stem: str, credentials: Credentials) -> WrittenFiles:
    """Write `stem.key` (mode 0600) and `stem.crt` into `directory`, which is created (mode 0700) if it is missing.

    Existing files are never overwritten. Raises AuthorityError, and then neither file exists.
    """
    files = WrittenFiles(directory / f"{stem}.key", directory / f"{stem}.crt")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if files.certificate.exists():
            raise FileExistsError(files.certificate)
        _write_new(files.key, credentials.key_pem, 0o600)
        try:
            _write_new(files.certificate, credentials.certificate_pem, 0o644)
        except OSError:
            files.key.unlink()
            raise
    except FileExistsError:
        existing = files.certificate if files.certificate.exists() else files.key
        if existing.exists():
            raise AuthorityError(
                f"{existing} already exists and is not overwritten; "
                "move it away, or use another directory with --directory"
            ) from None
        raise AuthorityError(f"{directory} is not a directory") from None
    except OSError as error:
        raise AuthorityError(f"cannot write to {directory}: {error.strerror}") from error
    return files


def describe(certificate_pem: bytes) -> Description:
    """Describe the first certificate in `certificate_pem`. Raises AuthorityError if there is none."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        names = names_of(certificate)
    except ValueError:
        raise AuthorityError("not a PEM certificate") from None
    return {
        "subject": certificate.subject.rfc4514_string(),
        "role": ", ".join(attributes_of(certificate.subject, NameOID.ORGANIZATIONAL_UNIT_NAME)),
        "name": ", ".join(attributes_of(certificate.subject, NameOID.COMMON_NAME)),
        "names": names,
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "fingerprint_sha256": certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
        "issuer": certificate.issuer.rfc4514_string(),
    }


def names_of(certificate: x509.Certificate) -> list[str]:
    """Return the DNS names, then the IP addresses, among the subject alternative names of `certificate`."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = names.get_values_for_type(x509.IPAddress)
    return [*names.get_values_for_type(x509.DNSName), *(str(address) for address in addresses)]


def attributes_of(name: x509.Name, oid: x509.ObjectIdentifier) -> list[str]:
    """Return the values of one kind in a subject."""
    return [str(attribute.value) for attribute in name.get_attributes_for_oid(oid)]


def _check_name(name: str) -> None:
    if len(name) > NAME_LENGTH_MAX:
        raise AuthorityError(f"the name {name!r} is longer than {NAME_LENGTH_MAX} characters")
    if not _NAME.fullmatch(name):
        raise AuthorityError(
            f"{name!r} is not a valid name: use letters, digits and . _ @ : -, beginning with a letter or digit"
        )


def check_days(days: float) -> None:
    """Check a lifetime in days. Raises AuthorityError."""
    if round(days * DAY_SECONDS) < LIFETIME_SECONDS_MIN:
        raise AuthorityError(f"a certificate lives at least {LIFETIME_SECONDS_MIN} s, not {days * DAY_SECONDS:g}")
    if days > timedelta.max.days:
        raise AuthorityError(f"{days:g} days from now is past the end of the calendar")


def _validity(now: datetime, lifetime: timedelta) -> tuple[datetime, datetime]:
    if now.tzinfo is None:
        raise ValueError("now must have a time zone")
    try:
        return now - CLOCK_SKEW, now + lifetime
    except OverflowError:
        raise AuthorityError(f"{lifetime.days} days from now is past the end of the calendar") from None


def _general_names(name: str, alternative_names: Sequence[str]) -> list[x509.GeneralName]:
    """Return `name` if it is an address, then all of `alternative_names`, each once."""
    names: dict[x509.GeneralName, None] = {}
    own = _general_name(name)
    if own is not None:
        names[own] = None
    for alternative in alternative_names:
        general = _general_name(alternative)
        if general is None:
            raise AuthorityError(
                f"{alternative!r} is neither a DNS name nor an IP address (names outside ASCII: use the xn-- form)"
            )
        names[general] = None
    return list(names)


def _general_name(text: str) -> x509.GeneralName | None:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    labels = text.split(".")
    # A last label of digits alone is a mistyped address, not a name (RFC 1123, section 2.1).
    if len(text) > _DNS_NAME_LENGTH_MAX or labels[-1].isdigit():
        return None
    if not all(_DNS_LABEL.fullmatch(label) for label in labels):
        return None
    return x509.DNSName(text.lower())


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    not_before: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    """Return a builder with the parts that all certificates have. Strict verification requires both key identifiers."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _open_authority(authority: Credentials) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    try:
        key = serialization.load_pem_private_key(authority.key_pem, password=None)
        certificate = x509.load_pem_x509_certificate(authority.certificate_pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise AuthorityError("the authority's files are damaged, or its key has a passphrase") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AuthorityError("the authority's key is not an ECDSA key, as 'opengnsadmin tls init' creates it")
    if key.public_key() != cast(ec.EllipticCurvePublicKey, certificate.public_key()):
        raise AuthorityError("the authority's key does not belong to its certificate")
    if not _may_sign(certificate):
        raise AuthorityError(
            "the certificate is not that of an authority (CA:TRUE, keyCertSign); use one of 'opengnsadmin tls init'"
        )
    return key, certificate


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    return constraints.ca and usage.key_cert_sign


def _credentials(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> Credentials:
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Credentials(key_pem, certificate.public_bytes(serialization.Encoding.PEM))


def _write_new(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError:
        path.unlink()
        raise
