"""Identity of one end of a connection: key, certificate and trusted authorities; role and name in a certificate.

Certificates of compass's own authority have the role in the organizational unit; an installation with its own PKI
assigns roles to names by `RoleRules`.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import NameOID

from compass.pki.authority import ROLES, Role, attributes_of

EXPIRY_NOTICE: Final = timedelta(days=30)
"""Remaining life of a certificate below which each start logs a warning."""


_PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey | rsa.RSAPrivateKey


class IdentityError(Exception):
    """Unusable key and certificate files. `problems` has one sentence for each problem."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class PeerUnknown(Exception):
    """The peer's certificate is genuine, but assigns no role or name in this installation."""


@dataclass(frozen=True)
class Identity:
    """Key and certificate of one end of a connection, and its trusted authorities. Only `load_identity` creates it.

    `chain`: intermediate certificates that are sent too. `warnings`: sentences for the log about problems to come.
    """

    key: _PrivateKey
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    authorities: tuple[x509.Certificate, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class RoleRules:
    """Rules for an own PKI: roles by patterns for the common name and the DNS names of a certificate.

    The patterns are those of a shell, case-insensitive, and `*` matches dots too. They are tried in the order admin,
    server, host; the first match decides.
    """

    admin: Sequence[str] = ()
    host: Sequence[str] = ()
    server: Sequence[str] = ()


def load_identity(key_path: Path, certificate_path: Path, authority_path: Path, now: datetime) -> Identity:
    """Read and check the three PEM files of an identity.

    `certificate_path` may contain intermediates after the certificate itself, `authority_path` several authorities
    (so one authority can replace another without an outage). Raises IdentityError with all problems.
    """
    problems: list[str] = []
    warnings: list[str] = []
    key = _load_key(key_path, problems, warnings)
    certificates = _load_certificates(certificate_path, problems)
    authorities = _load_certificates(authority_path, problems)
    if certificates:
        problems += _validity_problems(certificate_path, certificates[0], now)
        if key is not None and key.public_key() != certificates[0].public_key():
            problems.append(f"{key_path} is not the key of the certificate in {certificate_path}")
        left = certificates[0].not_valid_after_utc - now
        if timedelta(0) < left < EXPIRY_NOTICE:
            warnings.append(f"{certificate_path} expires in {left.days} days: issue a new certificate")
    expired = [why for authority in authorities for why in _validity_problems(authority_path, authority, now)]
    # One valid authority is enough; an expired one in addition is only a warning.
    (problems if len(expired) == len(authorities) else warnings).extend(expired)
    if certificates and authorities and not _is_issued_by(certificates[-1], authorities):
        warnings.append(
            f"{certificate_path} was not issued by an authority in {authority_path}: "
            "peers that trust only these will refuse it"
        )
    if problems or key is None:
        raise IdentityError(problems)
    return Identity(
        key=key,
        certificate=certificates[0],
        chain=tuple(certificates[1:]),
        authorities=tuple(authorities),
        warnings=tuple(warnings),
    )


def role_and_name(certificate: x509.Certificate, rules: RoleRules | None = None) -> tuple[Role, str]:
    """Return the role and the name in a certificate.

    Without `rules` the role is the subject's only OU and the name its only CN. With rules the OU is ignored, and the
    name is the one that matched. Raises PeerUnknown, whose message says what is missing.
    """
    subject = certificate.subject.rfc4514_string()
    common_names = attributes_of(certificate.subject, NameOID.COMMON_NAME)
    if rules is not None:
        found = _match_rules(rules, [*common_names, *_dns_names(certificate)])
        if found is None:
            raise PeerUnknown(f"no role rule matches the common name or a DNS name of the certificate {subject!r}")
        return found
    units = attributes_of(certificate.subject, NameOID.ORGANIZATIONAL_UNIT_NAME)
    role = next((role for role in ROLES if units == [role]), None)
    if role is None:
        raise PeerUnknown(
            f"the certificate {subject!r} must have exactly one OU, one of {', '.join(ROLES)}; "
            "for certificates without an OU, configure role rules"
        )
    if len(common_names) != 1 or not common_names[0].isprintable():
        raise PeerUnknown(f"the certificate {subject!r} must have exactly one CN, the name of its holder")
    return role, common_names[0]


def _match_rules(rules: RoleRules, names: Sequence[str]) -> tuple[Role, str] | None:
    by_role: tuple[tuple[Role, Sequence[str]], ...] = (
        ("admin", rules.admin),
        ("server", rules.server),
        ("host", rules.host),
    )
    for role, patterns in by_role:
        for name in names:
            if name.isprintable() and any(fnmatchcase(name.lower(), one.lower()) for one in patterns):
                return role, name
    return None


def _dns_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return names.get_values_for_type(x509.DNSName)


def _load_key(path: Path, problems: list[str], warnings: list[str]) -> _PrivateKey | None:
    content = _read(path, problems)
    if content is None:
        return None
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        warnings.append(f"{path} is readable by other users than its owner (mode {mode:04o}): chmod 600 {path}")
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except TypeError:
        problems.append(f"{path} has a passphrase: a daemon cannot enter it, store the key without one")
    except (ValueError, UnsupportedAlgorithm):
        problems.append(f"{path} is not a private key in PEM form")
    else:
        if isinstance(key, _PrivateKey):
            return key
        problems.append(f"{path} is a key of a kind that TLS 1.3 does not support (use ECDSA, EdDSA or RSA)")
    return None


def _load_certificates(path: Path, problems: list[str]) -> list[x509.Certificate]:
    content = _read(path, problems)
    if content is None:
        return []
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        problems.append(f"{path} is not a certificate in PEM form")
        return []


def _read(path: Path, problems: list[str]) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        problems.append(f"{path} does not exist")
    except OSError as error:
        problems.append(f"{path} cannot be read: {error.strerror}")
    return None


def _validity_problems(path: Path, certificate: x509.Certificate, now: datetime) -> list[str]:
    if certificate.not_valid_after_utc <= now:
        return [f"{path} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"]
    if certificate.not_valid_before_utc > now:
        begin = f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M}"
        return [f"{path} is not valid before {begin} UTC: check the clock of this machine"]
    return []


def _is_issued_by(certificate: x509.Certificate, authorities: Sequence[x509.Certificate]) -> bool:
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False
