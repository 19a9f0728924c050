"""Identity of one end of a connection: key, certificate and trusted authorities; role and name in a certificate.

Certificates of compass's own authority have the role in the organizational unit; an installation with its own PKI
assigns roles to names by `RoleRules`.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from compass.model.rules.certificates import OwnCertificate
from compass.model.text import is_printable_line
from compass.pki.authority import ROLES, Role, attributes_of
from compass.pki.chain import CHAIN_MAX, Chain, leftovers, order, own_certificates

_PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey | rsa.RSAPrivateKey


class IdentityError(Exception):
    """Unusable key and certificate files. `problems` has one sentence for each problem."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class PeerUnknown(Exception):
    """The peer's certificate is genuine, but assigns no role or name in this installation."""


@dataclass(frozen=True)
class IdentityPaths:
    """Paths of the three PEM files of an identity."""

    key: Path
    certificate: Path
    authority: Path


@dataclass(frozen=True)
class Identity:
    """Key and certificate of one end of a connection, and its trusted authorities. Only `load_identity` creates it.

    `chain`: intermediate certificates that are sent too, in order. `warnings`: sentences for the log about the files.
    """

    key: _PrivateKey
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    authorities: tuple[x509.Certificate, ...]
    warnings: tuple[str, ...]
    links: Chain
    paths: IdentityPaths

    def certificates(self, now: datetime) -> tuple[OwnCertificate, ...]:
        """Return the certificates whose end ends connections, the own one first."""
        return own_certificates(self.links, self.paths.certificate, self.paths.authority, now)


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

    `certificate_path` may contain intermediates in any order, `authority_path` several authorities (so one authority
    can replace another without an outage). Raises IdentityError with all problems. A date is none of these: the clock
    may be wrong, and it is not for ever; see `Identity.certificates`.
    """
    problems: list[str] = []
    warnings: list[str] = []
    paths = IdentityPaths(key_path, certificate_path, authority_path)
    key = _load_key(key_path, problems, warnings)
    certificates = _load_certificates(certificate_path, problems)
    authorities = _load_certificates(authority_path, problems)
    if certificates and key is not None and all(key.public_key() != one.public_key() for one in certificates):
        problems.append(f"{key_path} is not the key of the certificate in {certificate_path}")
    if problems or key is None:
        raise IdentityError(problems)
    links = order(certificates, key.public_key(), authorities, now)
    warnings += _chain_warnings(links, paths, now)
    return Identity(
        key=key,
        certificate=links.path[0],
        chain=(*links.path[1:], *links.rest),
        authorities=links.authorities,
        warnings=tuple(warnings),
        links=links,
        paths=paths,
    )


def _chain_warnings(links: Chain, paths: IdentityPaths, now: datetime) -> list[str]:
    """Return sentences about a chain that ends at no authority, and about certificates that nothing needs any more."""
    warnings = []
    if links.missing_issuer:
        warnings.append(
            f"no authority in {paths.authority} issued {links.missing_issuer!r} in {paths.certificate}, and the file "
            f"has no certificate of its issuer {links.path[-1].issuer.rfc4514_string()!r}: peers that trust only these "
            "authorities will refuse it; append the intermediate certificates to the file of the certificate"
        )
    for unused in leftovers(links, now):
        file = paths.authority if unused in links.authorities else paths.certificate
        when = f"{unused.not_valid_before_utc:%Y-%m-%d} to {unused.not_valid_after_utc:%Y-%m-%d}"
        subject = unused.subject.rfc4514_string()
        warnings.append(f"{subject!r} in {file} is valid from {when} and not now, and nothing here needs it")
    return warnings


def leaf_problem(certificate: x509.Certificate, *, server: bool) -> str:
    """Return why a certificate may not be that of one end of a connection, the server or the client; empty: it may.

    RFC 5280: it is not that of an authority (section 4.2.1.9), its key may sign (4.2.1.3), and its extended key usage
    names this end (4.2.1.12). A certificate that was issued for another purpose must not open a session.
    """
    subject = certificate.subject.rfc4514_string()
    try:
        extensions = certificate.extensions
    except (ValueError, x509.DuplicateExtension) as error:
        return f"the certificate {subject!r} cannot be read: {error}"
    found = {type(extension.value): extension.value for extension in extensions}
    constraints = found.get(x509.BasicConstraints)
    if isinstance(constraints, x509.BasicConstraints) and constraints.ca:
        return f"the certificate {subject!r} is that of an authority (CA:TRUE); issue one for this end alone"
    usage = found.get(x509.KeyUsage)
    if isinstance(usage, x509.KeyUsage) and not usage.digital_signature:
        return f"the key of the certificate {subject!r} may not sign (key usage); TLS 1.3 needs digitalSignature"
    name, needed = (
        ("serverAuth", ExtendedKeyUsageOID.SERVER_AUTH) if server else ("clientAuth", ExtendedKeyUsageOID.CLIENT_AUTH)
    )
    extended = found.get(x509.ExtendedKeyUsage)
    if not isinstance(extended, x509.ExtendedKeyUsage) or needed not in extended:
        return f"the certificate {subject!r} lacks the extended key usage {name}; issue one that has it"
    return ""


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
    if len(common_names) != 1 or not is_printable_line(common_names[0]):
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
            if is_printable_line(name) and any(fnmatchcase(name.lower(), one.lower()) for one in patterns):
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
        found = x509.load_pem_x509_certificates(content)
    except ValueError:
        problems.append(f"{path} is not a certificate in PEM form")
        return []
    if len(found) > CHAIN_MAX:
        problems.append(f"{path} has {len(found)} certificates; at most {CHAIN_MAX}: leave those out that none needs")
    return found


def _read(path: Path, problems: list[str]) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        problems.append(f"{path} does not exist")
    except OSError as error:
        problems.append(f"{path} cannot be read: {error.strerror}")
    return None
